//! `toolb run` from outside: real processes, real sockets, real signals. In place of a Python this
//! test program runs itself as the worker.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use toolb_core::consumer::{Consumer, ConsumerOptions, ControlEvent, Event};
use toolb_core::sys::epoll::{EDGE, Epoll, Events, IN};

/// No test takes longer; one that hangs fails.
const WATCHDOG: Duration = Duration::from_secs(60);

#[test]
fn serves_and_stops() {
    let mut server = Server::start(&["echo:app", "--port", "0", "--workers", "2"]);
    let banner = server.wait_for("serving echo:app on http://127.0.0.1:");
    assert!(
        banner.ends_with(&format!(
            "(2 workers, 1 loop, pid {}) - stop with Ctrl-C",
            server.child.id()
        )),
        "{banner}"
    );
    let response = get(TcpStream::connect(address(&banner)).unwrap(), "/");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("server: toolb\r\n"), "{response}");
    server.signal("INT");
    let (status, rest) = server.finish();
    assert_eq!(status.code(), Some(0), "{rest}");
}

#[test]
fn serves_on_a_socket_file() {
    let folder = Folder::new();
    let path = folder.0.join("app.sock");
    let socket = path.to_str().unwrap();
    let args = ["echo:app", "--uds", socket, "--uds-permissions", "600"];
    let mut server = Server::start(&args);
    server.wait_for(&format!("serving echo:app on unix:{socket} (1 worker"));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    ask(&mut stream, "/");
    let response = answer_of(stream);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    server.signal("TERM");
    assert_eq!(server.finish().0.code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_worker_that_dies_is_replaced() {
    let mut server = Server::start(&["echo:app", "--port", "0"]);
    let address = address(&server.wait_for("serving")).to_owned();
    let first = body(&get(TcpStream::connect(&address).unwrap(), "/"));
    kill("KILL", first.parse().unwrap());
    let line = server.wait_for("another starts");
    let expected = format!(
        "toolb warning: worker 1 (pid {first}) was ended by SIGKILL; another starts in 100 ms"
    );
    assert_eq!(line, expected);
    // Waits in the queue until the new one is ready.
    let second = body(&get(TcpStream::connect(&address).unwrap(), "/"));
    assert_ne!(first, second);
    server.signal("TERM");
    assert_eq!(server.finish().0.code(), Some(0));
}

#[test]
fn what_was_accepted_is_answered_before_the_end() {
    let folder = Folder::new();
    let mut server = Server::start_in(&folder, &["echo:app", "--port", "0"]);
    let address = address(&server.wait_for("serving")).to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    ask(&mut stream, "/hold");
    server.wait_for("holding");
    server.signal("TERM");
    server.wait_for("SIGTERM: finishing what has been accepted, for 30 s at most");
    fs::write(folder.fifo(), "go on").unwrap();
    let response = answer_of(stream);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    let (status, rest) = server.finish();
    assert_eq!(status.code(), Some(0), "{rest}");
}

#[test]
fn a_second_signal_waits_for_nothing() {
    let folder = Folder::new();
    let mut server = Server::start_in(&folder, &["echo:app", "--port", "0"]);
    let address = address(&server.wait_for("serving")).to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    ask(&mut stream, "/hold");
    server.wait_for("holding");
    server.signal("INT");
    server.wait_for("SIGINT: finishing");
    // not-sync: time is what tells a second signal from an echo of the first.
    thread::sleep(Duration::from_millis(150));
    server.signal("INT");
    // The worker shares standard error: its end is the end of both.
    let (status, rest) = server.finish();
    assert!(rest.contains("second signal: killing 1 worker"), "{rest}");
    assert_eq!(status.code(), Some(128 + 2));
}

#[test]
fn the_time_to_finish_is_limited() {
    let folder = Folder::new();
    let args = [
        "echo:app",
        "--port",
        "0",
        "--timeout-graceful-shutdown",
        "200ms",
    ];
    let mut server = Server::start_in(&folder, &args);
    let address = address(&server.wait_for("serving")).to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    ask(&mut stream, "/hold");
    server.wait_for("holding");
    server.signal("TERM");
    let (status, rest) = server.finish();
    let text = "1 worker did not finish within 0.2 s and is killed";
    assert!(rest.contains(text), "{rest}");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn workers_do_not_outlive_a_killed_server() {
    let mut server = Server::start(&["echo:app", "--port", "0", "--workers", "3"]);
    server.wait_for("serving");
    server.signal("KILL");
    // Standard error ends when the last of them has gone.
    server.finish();
}

#[test]
fn an_application_that_cannot_start_ends_it_all_with_one_line() {
    let cases = [
        (
            "broken:app",
            "toolb error: cannot start: no module named \"broken\"; look at --app-dir\n",
        ),
        (
            "exits:app",
            "could not start the application; its message stands above\n",
        ),
        (
            "ends:app",
            "exited with code 1 before it was ready; if it has no module toolb",
        ),
    ];
    for (target, text) in cases {
        let server = Server::start(&[target, "--port", "0", "--workers", "3"]);
        let (status, output) = server.finish();
        assert_eq!(status.code(), Some(3), "{output}");
        assert!(output.contains(text), "{output}");
        let errors = output.matches("toolb error:").count();
        assert_eq!(errors, 1, "{output}");
    }
}

#[test]
fn a_port_that_is_taken_ends_it_with_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, output) = Server::start(&["echo:app", "--port", &port]).finish();
    assert_eq!(status.code(), Some(3));
    assert_eq!(output.lines().count(), 1, "{output}");
    assert!(output.contains(&format!("127.0.0.1:{port}")), "{output}");
    assert!(output.contains("--port"), "{output}");
}

#[test]
fn wrong_usage_names_option_value_and_what_is_allowed() {
    let cases: [(&[&str], &str); 8] = [
        (
            &["run", "main:app", "--port", "99999"],
            "toolb: --port: \"99999\": expected 0 to 65535 (0 picks a free port)\n",
        ),
        (
            &["run", "main:app", "--loop", "fast"],
            "toolb: --loop: \"fast\": expected auto, asyncio or uvloop\n",
        ),
        (
            &["run", "main:app", "--timeout-response", "soon"],
            "toolb: --timeout-response: \"soon\": expected a duration such as 90, 90s, 1m, 2h, 1d or 500ms\n",
        ),
        (
            &["run", "main:app", "--prot", "1"],
            "toolb: unknown option --prot; did you mean --port?\n",
        ),
        (
            &["run", "main.py"],
            "toolb: MODULE:ATTR: \"main.py\": expected a module and a name in it, such as main:app\n",
        ),
        (
            &["run"],
            "toolb: MODULE:ATTR is missing: name the application, as in toolb run main:app\n",
        ),
        (
            &["main:app"],
            "toolb: unknown command \"main:app\"; did you mean toolb run main:app?\n",
        ),
        (
            &["run", "main:app", "--limit-request-line", "20KiB"],
            "toolb: --limit-request-line: 20480 is more than limit-request-head (16384), of which the request line is a part\n",
        ),
    ];
    for (args, text) in cases {
        let output = toolb().args(args).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), text);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_environment_is_the_default_and_is_named_when_wrong() {
    let output = toolb()
        .args(["run", "main:app"])
        .env("TOOLB_PORT", "none")
        .output()
        .unwrap();
    let text =
        "toolb: --port: \"none\": expected 0 to 65535 (0 picks a free port) (from TOOLB_PORT)\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), text);
    let output = toolb()
        .args(["run", "main:app"])
        .env("WEB_CONCURRENCY", "0")
        .output()
        .unwrap();
    let text = "toolb: WEB_CONCURRENCY: \"0\": expected a number from 1 to 1024\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), text);
}

#[test]
fn version() {
    let output = toolb().arg("--version").output().unwrap();
    let text = format!("toolb {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    assert_eq!(output.status.code(), Some(0));
}

/// Not a test: what a server under test starts as its worker.
#[test]
fn worker() {
    let (Ok(bus), Ok(target)) = (env::var("TOOLB_BUS"), env::var("TEST_TARGET")) else {
        return;
    };
    match target.as_str() {
        "exits:app" => {
            eprintln!("the reason");
            process::exit(3);
        }
        "ends:app" => process::exit(1),
        _ => {}
    }
    let mut consumer = Consumer::attach(&bus, &ConsumerOptions::default()).unwrap();
    if target == "broken:app" {
        consumer.fail("no module named \"broken\"; look at --app-dir", true);
        process::exit(3);
    }
    consumer.ready();
    process::exit(serve(&mut consumer));
}

fn serve(consumer: &mut Consumer) -> i32 {
    let epoll = Epoll::new().unwrap();
    epoll.add(&consumer.fd(), 0, IN | EDGE).unwrap();
    epoll.add(&consumer.control_fd(), 1, IN).unwrap();
    let (mut ready, mut events) = (Events::with_capacity(2), Vec::new());
    let mut draining = false;
    loop {
        if consumer.poll(64, &mut events).unwrap() > 0 {
            for event in events.drain(..) {
                answer(consumer, event);
            }
            consumer.flush(false);
            continue;
        }
        if draining && consumer.in_flight() == 0 {
            consumer.drained();
            return 0;
        }
        if consumer.arm() {
            epoll.wait(&mut ready, None).unwrap();
        }
        match consumer.control().unwrap() {
            ControlEvent::None => {}
            ControlEvent::Drain => draining = true,
            ControlEvent::HangUp | ControlEvent::Error(_) => return 0,
        }
    }
}

/// Says which process it is; `/hold` only after something was written to the pipe.
fn answer(consumer: &mut Consumer, event: Event) {
    let Event::Request { id, request, .. } = event else {
        return;
    };
    if !consumer.start(id) {
        return;
    }
    if request.path() == b"/hold" {
        eprintln!("holding");
        fs::read(env::var_os("TEST_FIFO").unwrap()).unwrap();
    }
    let body = process::id().to_string();
    let fields = std::iter::empty::<(&[u8], &[u8])>();
    // An error means that the client has gone.
    let _ = consumer.respond_head(id, 200, -1, fields, body.as_bytes(), true, true);
}

/// A server under test.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Dropped when the test is over, so that the watchdog goes.
    _awake: Sender<()>,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        Self::spawn(toolb().arg("run").args(args))
    }

    fn start_in(folder: &Folder, args: &[&str]) -> Self {
        let made = Command::new("mkfifo").arg(folder.fifo()).status().unwrap();
        assert!(made.success());
        let mut command = toolb();
        command.env("TEST_FIFO", folder.fifo());
        Self::spawn(command.arg("run").args(args))
    }

    fn spawn(command: &mut Command) -> Self {
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
    fn wait_for(&mut self, text: &str) -> String {
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

    fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    /// Waits for the server and its workers; the rest of what they had to say.
    fn finish(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

/// A folder of its own for a test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let output = Command::new("mktemp").arg("-d").output().unwrap();
        let path = String::from_utf8(output.stdout).unwrap();
        Self(PathBuf::from(path.trim_end()))
    }

    fn fifo(&self) -> PathBuf {
        self.0.join("hold")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program, in an environment without settings, with this test program for a Python.
fn toolb() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolb"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("TOOLB_") {
            command.env_remove(name);
        }
    }
    command.env_remove("WEB_CONCURRENCY");
    command.env("TOOLB_PYTHON", worker_script());
    command
}

/// Turns `-m toolb.worker TARGET ...` into a call of the test `worker`.
fn worker_script() -> &'static Path {
    // Written once, before the first process starts: a script open for writing cannot be run.
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("worker.sh");
        let program = env::current_exe().unwrap();
        let text = format!(
            "#!/bin/sh\nTEST_TARGET=\"$3\" exec '{}' worker --exact --nocapture\n",
            program.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    })
}

fn kill(signal: &str, pid: u32) {
    let pid = pid.to_string();
    let status = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(status.unwrap().success());
}

/// The address in a line of the kind `... on http://127.0.0.1:8000 (...`.
fn address(banner: &str) -> &str {
    let (_, rest) = banner.split_once("http://").unwrap();
    rest.split(' ').next().unwrap()
}

fn ask(stream: &mut impl Write, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

fn get(mut stream: TcpStream, path: &str) -> String {
    ask(&mut stream, path);
    answer_of(stream)
}

/// All that comes; the connection is closed then.
fn answer_of(mut stream: impl Read) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

fn body(response: &str) -> String {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    body.to_owned()
}
