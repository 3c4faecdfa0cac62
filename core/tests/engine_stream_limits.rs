//! Stream services when descriptors run out, and after many connections. The engine runs in a child
//! process, so that its descriptors and its memory are nobody else's.
#![forbid(unsafe_code)]

mod streams;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use toolb_core::engine::ControlEvent;
use toolb_core::sys::process::raise_open_files;

use streams::{Server, What, connect, read};

const GREETING: &[u8] = b"Hello from here!\r\n";

/// Not a test of its own: the engine that the others talk to.
#[test]
fn child() {
    if std::env::var_os("TOOLB_TEST_CHILD").is_none() {
        return;
    }
    // Whatever comes is answered by a greeting and an end, and who says nothing hears of the drain.
    let members = Mutex::new(Vec::new());
    let server = Server::start(1, move |context, what| {
        let streams = context.streams();
        match what {
            What::Accept(id) => {
                streams.send(id, b"hi").unwrap();
                members.lock().unwrap().push(id);
            }
            What::Receive(id) => {
                let unread = streams.peek(id).unwrap().len();
                streams.consume(id, unread).unwrap();
                streams.send(id, GREETING).unwrap();
                streams.close(id).unwrap();
            }
            What::Close(id, _) => members.lock().unwrap().retain(|member| *member != id),
            What::Drain => {
                for &id in &*members.lock().unwrap() {
                    streams.send(id, b"bye").unwrap();
                    streams.close(id).unwrap();
                }
            }
            _ => {}
        }
    });
    println!("address={}", server.address);
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    server.engine.drain();
    while !matches!(server.engine.next_control_event(), Some(ControlEvent::Idle)) {
        server.engine.control_events().wait(None).unwrap();
        server.engine.control_events().drain();
    }
}

struct Remote {
    process: Child,
    address: String,
    /// Kept open, or the child could not write any more.
    _output: BufReader<ChildStdout>,
}

impl Remote {
    fn start(open_files: u32) -> Self {
        let this = std::env::current_exe().unwrap();
        let mut process = Command::new("bash")
            .args(["-c", &format!("ulimit -n {open_files}; exec \"$0\" \"$@\"")])
            .arg(this)
            .args(["--exact", "child", "--nocapture"])
            .env("TOOLB_TEST_CHILD", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let address = (&mut output)
            .lines()
            .map(|line| line.unwrap())
            .find_map(|line| Some(line.split_once("address=")?.1.to_owned()))
            .unwrap();
        Self {
            process,
            address,
            _output: output,
        }
    }

    fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.process.id());
        fs::read_dir(folder).unwrap().count()
    }

    /// Waits until so many files are open.
    fn wait_for_files(&self, enough: impl Fn(usize) -> bool) {
        while !enough(self.open_files()) {
            std::thread::yield_now();
        }
    }

    /// Memory in use, in bytes.
    fn memory(&self) -> usize {
        let path = format!("/proc/{}/statm", self.process.id());
        let text = fs::read_to_string(path).unwrap();
        let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    fn greet(&self) {
        let mut client = connect(&self.address);
        client.write_all(b"x").unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all, [b"hi", GREETING].concat());
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The end of its input ends it; a test that failed may have left it in any state.
        drop(self.process.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn two_thousand_connections_are_served_with_a_thousand_descriptors() {
    raise_open_files().unwrap();
    let remote = Remote::start(1024);
    let before = remote.open_files();
    let clients: Vec<_> = (0..2000).map(|_| connect(&remote.address)).collect();
    // All but those that are kept for workers.
    remote.wait_for_files(|count| count >= 1024 - 128);
    // In the order in which they came: each that goes makes room for another.
    for mut client in clients {
        assert_eq!(read(&mut client, 2), b"hi");
    }
    remote.wait_for_files(|count| count <= before);
    remote.greet();
}

#[test]
fn a_drain_is_told_to_streams_that_hold_all_descriptors_while_others_wait() {
    let mut remote = Remote::start(200);
    let mut clients: Vec<_> = (0..300).map(|_| connect(&remote.address)).collect();
    drop(remote.process.stdin.take());
    let mut all = Vec::new();
    clients[0].read_to_end(&mut all).unwrap();
    assert_eq!(all, b"hibye");
    drop(clients);
    assert!(remote.process.wait().unwrap().success());
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let remote = Remote::start(1024);
    let before = remote.open_files();
    for _ in 0..2_000 {
        remote.greet();
    }
    let memory = remote.memory();
    for _ in 0..8_000 {
        remote.greet();
    }
    remote.wait_for_files(|count| count <= before);
    let grown = remote.memory().saturating_sub(memory);
    assert!(grown < 512 * 1024, "{grown} bytes more than at first");
}
