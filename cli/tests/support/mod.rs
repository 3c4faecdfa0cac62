//! The program under test, as a person starts and stops it.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod worker;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// No test takes longer; one that hangs fails.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A server under test.
pub(crate) struct Server {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
    /// Dropped when the test is over, so that the watchdog goes.
    _awake: Sender<()>,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(toolb().arg("run").args(args))
    }

    pub(crate) fn start_in(folder: &Folder, args: &[&str]) -> Self {
        let mut command = toolb();
        command.env("TEST_FIFO", folder.make_fifo());
        Self::spawn(command.arg("run").args(args))
    }

    /// One whose worker holds a request until somebody writes to the FIFO.
    pub(crate) fn start_and_hold(folder: &Folder, args: &[&str]) -> (Self, TcpStream) {
        let mut server = Self::start_in(folder, args);
        let banner = server.wait_for("serving");
        let mut stream = TcpStream::connect(address(&banner)).unwrap();
        ask(&mut stream, "/hold");
        server.wait_for("holding");
        (server, stream)
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (awake, watchdog) = mpsc::channel::<()>();
        let pid = child.id();
        thread::spawn(move || {
            if watchdog.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                kill("KILL", pid);
            }
        });
        Self {
            child,
            stderr,
            _awake: awake,
        }
    }

    /// The first line from now on that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            let read = self.stderr.read_line(&mut seen).unwrap();
            assert_ne!(read, 0, "{text:?} never came: {seen}");
            if seen[start..].contains(text) {
                return seen[start..].trim_end().to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    /// Asks it to end, which it does well.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let (status, rest) = self.finish();
        assert_eq!(status.code(), Some(0), "{rest}");
    }

    /// Waits for the server and its workers; the rest of what they had to say.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

/// A folder of its own for a test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let output = Command::new("mktemp").arg("-d").output().unwrap();
        let path = String::from_utf8(output.stdout).unwrap();
        Self(PathBuf::from(path.trim_end()))
    }

    pub(crate) fn fifo(&self) -> PathBuf {
        self.0.join("hold")
    }

    pub(crate) fn make_fifo(&self) -> PathBuf {
        let made = Command::new("mkfifo").arg(self.fifo()).status().unwrap();
        assert!(made.success());
        self.fifo()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program, in an environment without settings, with this test program for a Python.
pub(crate) fn toolb() -> Command {
    surround(Command::new(PROGRAM))
}

/// The same within a limit that `ulimit` sets.
pub(crate) fn limited_toolb(limit: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit {limit}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, PROGRAM]);
    surround(command)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_toolb");

fn surround(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("TOOLB_") {
            command.env_remove(name);
        }
    }
    command.env_remove("WEB_CONCURRENCY");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/worker.sh");
    command.env("TOOLB_PYTHON", script);
    command.env("TEST_PROGRAM", env::current_exe().unwrap());
    command
}

pub(crate) fn kill(signal: &str, pid: u32) {
    let pid = pid.to_string();
    let status = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(status.unwrap().success());
}

/// The address in a line of the kind `... on http://127.0.0.1:8000 (...`.
pub(crate) fn address(banner: &str) -> &str {
    let (_, rest) = banner.split_once("http://").unwrap();
    rest.split(' ').next().unwrap()
}

pub(crate) fn ask(stream: &mut impl Write, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

pub(crate) fn get(mut stream: TcpStream, path: &str) -> String {
    ask(&mut stream, path);
    answer_of(stream)
}

/// All that comes; the connection is closed then.
pub(crate) fn answer_of(mut stream: impl Read) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

pub(crate) fn body(response: &str) -> String {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    body.to_owned()
}
