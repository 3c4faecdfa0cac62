//! Consumers that come by themselves, to an engine inside this process.
#![forbid(unsafe_code)]

#[path = "../loopback/mod.rs"]
mod loopback;
mod program;
mod refused;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use toolb_core::config::EngineConfig;
use toolb_core::consumer::{AttachError, Consumer, ConsumerOptions, ControlEvent, Event};
use toolb_core::engine::Routes;
use toolb_core::message::{Control, Hello};
use toolb_core::server::{Embedded, GateOptions};
use toolb_core::sys::rendezvous::{PacketListener, connect};
use toolb_core::sys::seqpacket::Seqpacket;

use loopback::{address_of, any_port, to_consumers};
use program::{Order, Program};

const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of its own for a test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("toolb-gate-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn bus(&self) -> PathBuf {
        self.0.join("bus")
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(gate: &GateOptions) -> Embedded {
    try_start(gate).unwrap()
}

fn try_start(gate: &GateOptions) -> Result<Embedded, String> {
    Embedded::start(EngineConfig::default(), to_consumers(), &[any_port()], gate)
}

fn at(path: &Path) -> GateOptions {
    GateOptions::new(Some(path.to_owned()))
}

fn ask(server: &Embedded, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address_of(server.engine())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The status and the body of all that comes.
fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn attach(path: &Path) -> Consumer {
    let consumer = Consumer::attach(path.to_str().unwrap(), &ConsumerOptions::default());
    consumer.unwrap()
}

/// Tries until the end of another consumer has been noticed.
fn when_there_is_room(attach: impl Fn() -> Result<Consumer, AttachError>) -> Consumer {
    loop {
        match attach() {
            Ok(consumer) => return consumer,
            Err(AttachError::Refused(_)) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn consumers_come_and_go_and_requests_wait_meanwhile() {
    let folder = Folder::new();
    let server = start(&at(&folder.bus()));
    assert_eq!(server.bus(), Some(&*folder.bus()));
    let early = ask(&server, "/");
    let one = Program::start(attach(&folder.bus()), "one");
    assert_eq!(answer(early), (200, "one".to_owned()));
    one.order(Order::Leave);
    drop(one.join());
    let between = ask(&server, "/");
    let bus = format!("unix:{}", folder.bus().display());
    let two = Consumer::attach(&bus, &ConsumerOptions::default()).unwrap();
    let two = Program::start(two, "two");
    assert_eq!(answer(between), (200, "two".to_owned()));
    drop(server);
    two.join();
}

#[test]
fn one_that_leaves_under_load_loses_nothing() {
    let folder = Folder::new();
    let server = start(&at(&folder.bus()));
    let mut programs: Vec<_> = (0..3)
        .map(|index| Program::start(attach(&folder.bus()), &index.to_string()))
        .collect();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..300).all(|_| answer(ask(&server, "/")).0 == 200)))
            .collect();
        for _ in 0..2 {
            let program = programs.pop().unwrap();
            program.order(Order::Leave);
            program.join();
        }
        assert!(clients.into_iter().all(|client| client.join().unwrap()));
    });
    drop(server);
    programs.pop().unwrap().join();
}

#[test]
fn whoever_goes_without_a_word_takes_only_what_it_had_begun() {
    let folder = Folder::new();
    let server = start(&at(&folder.bus()));
    let mut one = attach(&folder.bus());
    one.ready();
    let begun = ask(&server, "/begun");
    let mut events = Vec::new();
    while events.is_empty() {
        one.arm();
        one.poll(8, &mut events).unwrap();
    }
    let Some(Event::Request { id, .. }) = events.pop() else {
        panic!("{events:?}");
    };
    assert!(one.start(id));
    // It has begun one, and will not even look at these.
    let waiting: Vec<_> = (0..5).map(|_| ask(&server, "/waiting")).collect();
    drop(one);
    assert_eq!(answer(begun).0, 502);
    let two = Program::start(attach(&folder.bus()), "two");
    for stream in waiting {
        assert_eq!(answer(stream), (200, "two".to_owned()));
    }
    drop(server);
    two.join();
}

#[test]
fn one_that_leaves_as_soon_as_it_has_come_gets_no_work() {
    let folder = Folder::new();
    let server = start(&at(&folder.bus()));
    for _ in 0..50 {
        let mut hasty = attach(&folder.bus());
        hasty.ready();
        hasty.leave();
        // The engine has taken note of both once it has answered the one who came later.
        let steady = Program::start(attach(&folder.bus()), "steady");
        for _ in 0..4 {
            assert_eq!(answer(ask(&server, "/")).1, "steady");
        }
        let mut events = Vec::new();
        assert_eq!(hasty.poll(8, &mut events).unwrap(), 0, "{events:?}");
        steady.order(Order::Leave);
        steady.join();
    }
}

#[test]
fn the_engine_that_goes_is_noticed_by_all() {
    let folder = Folder::new();
    let server = start(&at(&folder.bus()));
    let mut consumer = attach(&folder.bus());
    consumer.ready();
    drop(server);
    while consumer.control().unwrap() != ControlEvent::HangUp {}
}

#[test]
fn the_name_has_one_owner_and_goes_with_it() {
    let folder = Folder::new();
    let path = folder.bus();
    let first = start(&at(&path));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = try_start(&at(&path)).err().unwrap();
    let owner = format!("another engine (pid {}) has it", std::process::id());
    assert!(refused.contains(&owner), "{refused}");
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    drop(first);
    assert_eq!(folder.entries(), 0);

    // What a killed engine leaves behind: a socket without a listener, a file without a lock.
    drop(PacketListener::bind(&path, 1).unwrap());
    fs::write(folder.0.join("bus.lock"), "1").unwrap();
    drop(start(&at(&path)));
    assert_eq!(folder.entries(), 0);

    fs::write(&path, "precious").unwrap();
    let refused = try_start(&at(&path)).err().unwrap();
    assert!(
        refused.contains("something else than a socket"),
        "{refused}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let refused = try_start(&at(&path)).err().unwrap();
    assert!(refused.contains("another program"), "{refused}");
    drop(other);
    let nowhere = folder.0.join("no/such/bus");
    let refused = try_start(&at(&nowhere)).err().unwrap();
    assert!(refused.contains("there is no folder"), "{refused}");
    let long = folder.0.join("x".repeat(120));
    let refused = try_start(&at(&long)).err().unwrap();
    assert!(refused.contains("1 to 107 bytes"), "{refused}");
}

#[test]
fn why_one_cannot_attach_is_said_with_a_remedy() {
    let folder = Folder::new();
    let path = folder.bus();
    let error = |bus: &str| {
        let outcome = Consumer::attach(bus, &ConsumerOptions::default());
        outcome.map(drop).unwrap_err()
    };
    let absent = error(path.to_str().unwrap());
    assert!(absent.may_pass());
    assert!(absent.to_string().contains("is `toolb serve` running?"));
    drop(PacketListener::bind(&path, 1).unwrap());
    let stale = error(path.to_str().unwrap());
    assert!(stale.may_pass());
    assert!(
        stale
            .to_string()
            .contains("is `toolb serve` still running?")
    );
    fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let other = error(path.to_str().unwrap());
    assert!(!other.may_pass());
    assert!(other.to_string().contains("is no bus"), "{other}");
    let file = folder.0.join("file");
    fs::write(&file, "").unwrap();
    for what in [&file, &folder.0] {
        let error = error(what.to_str().unwrap());
        assert!(!error.may_pass());
        assert!(error.to_string().contains("is no socket"), "{error}");
    }
    for nonsense in ["", "bus", "fd:x", "fd:-1", "tcp:1"] {
        assert!(matches!(error(nonsense), AttachError::Address(_)));
    }
}

#[test]
fn an_engine_that_comes_later_is_waited_for() {
    let folder = Folder::new();
    let path = folder.bus();
    let bus = path.to_str().unwrap().to_owned();
    let options = ConsumerOptions::default();
    let soon = Consumer::attach_within(&bus, &options, Duration::from_millis(20));
    assert!(soon.err().unwrap().may_pass());
    let waits = thread::spawn(move || Consumer::attach_within(&bus, &options, PATIENCE));
    let server = start(&at(&path));
    let program = Program::start(waits.join().unwrap().unwrap(), "late");
    assert_eq!(answer(ask(&server, "/")).1, "late");
    drop(server);
    program.join();
}

#[test]
fn a_process_has_one_consumer_of_its_own() {
    let server = start(&GateOptions::new(None));
    assert_eq!(server.bus(), None);
    let options = ConsumerOptions::default();
    let own = Program::start(server.attach(&options).unwrap(), "own");
    assert_eq!(answer(ask(&server, "/")).1, "own");
    let refused = server.attach(&options).err().unwrap().to_string();
    assert!(refused.contains("`toolb run`"), "{refused}");
    assert_eq!(answer(ask(&server, "/")).1, "own");
    own.order(Order::Leave);
    drop(own.join());
    let another = when_there_is_room(|| server.attach(&options));
    let another = Program::start(another, "another");
    assert_eq!(answer(ask(&server, "/")).1, "another");
    drop(server);
    another.join();
}

#[test]
fn an_engine_without_a_pool_takes_no_consumer() {
    let server = Embedded::start(
        EngineConfig::default(),
        Routes::default(),
        &[],
        &GateOptions::new(None),
    );
    let refused = server.unwrap().attach(&ConsumerOptions::default());
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("give it a pool"), "{text}");
}

#[test]
fn the_end_waits_for_what_was_accepted() {
    let folder = Folder::new();
    let server = start(&at(&folder.bus()));
    let program = Program::start(attach(&folder.bus()), "patient");
    let held = ask(&server, "/hold");
    program.begun.recv().unwrap();
    let ending = thread::spawn(move || server.end(PATIENCE));
    // The name goes at once: whoever comes now finds nobody.
    while folder.entries() > 0 {
        thread::yield_now();
    }
    program.order(Order::GoOn);
    assert_eq!(answer(held), (200, "patient".to_owned()));
    assert!(ending.join().unwrap());
    program.join();
}

#[test]
fn the_end_cuts_off_what_does_not_finish() {
    let folder = Folder::new();
    let server = start(&at(&folder.bus()));
    let program = Program::start(attach(&folder.bus()), "stubborn");
    let mut held = ask(&server, "/hold");
    program.begun.recv().unwrap();
    assert!(!server.end(Duration::from_millis(100)));
    let mut rest = Vec::new();
    let _ = held.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    program.join();
}
