//! Consumers that answer with open files, from socket to socket.
#![forbid(unsafe_code)]

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use support::{Handle, Random, Server, Worker, hanging, read_response};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, FileError};
use toolb_core::engine::Snapshot;
use toolb_core::message::{Control, Request};
use toolb_core::sys::memory;

/// Answers `/file?OFFSET,LENGTH` with the file, `/slow` after a word, all else with its path.
struct Files {
    file: OwnedFd,
    begun: Sender<ExchangeId>,
    go_on: Receiver<()>,
}

impl Files {
    /// With the ends by which the test learns of slow requests and ends them.
    fn new(file: &File) -> (Self, Receiver<ExchangeId>, Sender<()>) {
        let (begin, begun) = channel();
        let (go, go_on) = channel();
        let files = Self {
            file: file.try_clone().unwrap().into(),
            begun: begin,
            go_on,
        };
        (files, begun, go)
    }
}

impl Handle for Files {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, _: bool) {
        let none = std::iter::empty();
        if request.path() == b"/slow" {
            self.begun.send(id).unwrap();
            self.go_on.recv().unwrap();
        } else if request.path() != b"/file" {
            consumer
                .respond_head(id, 200, -1, none, request.path(), true, true)
                .unwrap();
            return;
        }
        let query = std::str::from_utf8(request.query()).unwrap();
        let mut words = query.split(',');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (offset, length) = (number().unwrap_or(0), number());
        let status = number().unwrap_or(200) as u16;
        let fields = [(&b"x-file"[..], &b"yes"[..])].into_iter();
        let file = self.file.as_fd();
        match consumer.respond_file(id, status, fields, file, offset, length, true) {
            Ok(()) => {}
            Err(FileError::Beyond(len)) => {
                let text = len.to_string();
                consumer
                    .respond_head(id, 416, -1, none, text.as_bytes(), true, true)
                    .unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

struct Fixture {
    server: Server,
    worker: Worker,
    begun: Receiver<ExchangeId>,
    go_on: Sender<()>,
}

impl Fixture {
    fn new(file: &File) -> Self {
        let config = EngineConfig {
            loops: Some(1),
            ..EngineConfig::default()
        };
        Self::with(file, config, ConsumerOptions::default())
    }

    fn with(file: &File, config: EngineConfig, options: ConsumerOptions) -> Self {
        let server = Server::start(config);
        let (files, begun, go_on) = Files::new(file);
        let worker = server.attach(options, files);
        Self {
            server,
            worker,
            begun,
            go_on,
        }
    }

    fn ask(&self, target: &str) -> TcpStream {
        let mut client = self.server.connect();
        ask_on(&mut client, target);
        client
    }

    /// Asks for a file, and hands the engine what the consumer answers with.
    fn fetch(&self, target: &str) -> (u16, Vec<u8>) {
        let mut client = self.ask(target);
        let (packet, file) = self.worker.take_file();
        self.worker.give_file(&self.server.engine, &packet, file);
        read_response(&mut client)
    }

    /// The engine has taken all that the consumer said before.
    fn catch_up(&self) {
        let mut client = self.ask("/other");
        assert_eq!(read_response(&mut client), (200, b"/other".to_vec()));
    }

    fn end(mut self) {
        self.worker.kill(&self.server.engine);
    }
}

fn ask_on(client: &mut TcpStream, target: &str) {
    write!(client, "GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251) as u8 ^ at as u8).collect()
}

fn temporary() -> File {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("toolb-files-{}-{number}", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(name);
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true);
    let file = file.open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

fn file_of(content: &[u8]) -> File {
    let mut file = temporary();
    file.write_all(content).unwrap();
    // The place in the file means nothing to the engine.
    file.seek(std::io::SeekFrom::Start(7)).unwrap();
    file
}

#[test]
fn files_and_parts_of_them_come_whole() {
    let content = content(3_000_000);
    files_come_whole(&file_of(&content), &content);
}

/// Of such a file the kernel does not say beforehand whether a read would wait, so that the file
/// thread has to do it.
#[test]
fn files_that_the_file_thread_reads_come_whole() {
    let content = content(3_000_000);
    let file = File::from(memory::create(c"test", content.len()).unwrap());
    (&file).write_all(&content).unwrap();
    files_come_whole(&file, &content);
}

fn files_come_whole(file: &File, content: &[u8]) {
    let fixture = Fixture::new(file);
    assert!(fixture.fetch("/file") == (200, content.to_vec()));
    assert!(fixture.fetch("/file?2999990") == (200, content[2_999_990..].to_vec()));
    assert!(fixture.fetch("/file?100,5000,206") == (206, content[100..5100].to_vec()));
    assert_eq!(fixture.fetch("/file?3000000"), (200, Vec::new()));
    let mut client = fixture.ask("/file?10,3000000");
    assert_eq!(read_response(&mut client), (416, b"3000000".to_vec()));
    fixture.end();
}

#[test]
fn the_connection_goes_on_after_a_file() {
    let content = content(700_000);
    let fixture = Fixture::new(&file_of(&content));
    let mut client = fixture.server.connect();
    for target in ["/file", "/x", "/file?1", "/file?1,2", "/y"] {
        ask_on(&mut client, target);
    }
    for expected in [&content[..], b"/x", &content[1..], &content[1..3], b"/y"] {
        if expected.first() != Some(&b'/') {
            let (packet, file) = fixture.worker.take_file();
            let engine = &fixture.server.engine;
            fixture.worker.give_file(engine, &packet, file);
        }
        let (status, body) = read_response(&mut client);
        assert!(status == 200 && body == expected, "{} bytes", body.len());
    }
    fixture.end();
}

#[test]
fn head_and_not_modified_have_no_body() {
    let fixture = Fixture::new(&file_of(&content(100_000)));
    for (method, query, length) in [("HEAD", "0,100000", true), ("GET", "0,100000,304", false)] {
        let mut client = fixture.server.connect();
        write!(
            client,
            "{method} /file?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let (packet, file) = fixture.worker.take_file();
        let engine = &fixture.server.engine;
        fixture.worker.give_file(engine, &packet, file);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("x-file: yes"), "{answer}");
        assert_eq!(answer.contains("content-length: 100000"), length);
    }
    fixture.end();
}

#[test]
fn a_record_waits_for_its_file_and_holds_nobody_up() {
    let content = content(50_000);
    let fixture = Fixture::new(&file_of(&content));
    let mut client = fixture.ask("/file");
    let (packet, file) = fixture.worker.take_file();
    fixture.catch_up();
    // Others are answered by files meanwhile.
    assert!(fixture.fetch("/file?1") == (200, content[1..].to_vec()));
    fixture
        .worker
        .give_file(&fixture.server.engine, &packet, file);
    assert!(read_response(&mut client) == (200, content));
    fixture.end();
}

#[test]
fn a_file_waits_for_its_record() {
    let content = content(50_000);
    let file = file_of(&content);
    let fixture = Fixture::new(&file);
    let mut client = fixture.ask("/slow");
    let id = fixture.begun.recv().unwrap();
    let packet = Control::File {
        owner: 0,
        slot: id.slot,
        generation: id.generation,
    };
    let engine = &fixture.server.engine;
    // The second takes the place of the first, and neither is kept for another exchange.
    let other = temporary();
    fixture.worker.give_file(engine, &packet, other.into());
    let file = file.try_clone().unwrap();
    fixture.worker.give_file(engine, &packet, file.into());
    let strange = Control::File {
        owner: 0,
        slot: id.slot,
        generation: id.generation + 1,
    };
    fixture
        .worker
        .give_file(engine, &strange, temporary().into());
    fixture.go_on.send(()).unwrap();
    assert!(read_response(&mut client) == (200, content));
    fixture.catch_up();
    fixture.end();
}

#[test]
fn what_is_no_file_or_too_short_becomes_a_500() {
    let fixture = Fixture::new(&file_of(&content(50_000)));
    let engine = &fixture.server.engine;
    let folder = File::open(std::env::temp_dir()).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let shorter = file_of(&content(49_999));
    let strange: [OwnedFd; 3] = [folder.into(), pipe.into(), shorter.into()];
    for file in strange {
        let mut client = fixture.ask("/file");
        let (packet, _) = fixture.worker.take_file();
        fixture.worker.give_file(engine, &packet, file);
        assert_eq!(read_response(&mut client).0, 500);
        ask_on(&mut client, "/still");
        assert_eq!(read_response(&mut client), (200, b"/still".to_vec()));
    }
    fixture.end();
}

#[test]
fn a_file_that_shrinks_is_never_mistaken_for_a_whole_one() {
    let file = temporary();
    file.set_len(64 << 20).unwrap();
    let fixture = Fixture::new(&file);
    let mut client = fixture.ask("/file");
    let (packet, taken) = fixture.worker.take_file();
    fixture
        .worker
        .give_file(&fixture.server.engine, &packet, taken);
    let mut first = [0; 1000];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK\r\n"));
    file.set_len(1000).unwrap();
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest);
    assert!(end.is_err(), "{} bytes, and a good end", rest.len());
    assert!(rest.len() < 64 << 20);
    fixture.catch_up();
    fixture.end();
}

#[test]
fn a_file_that_grows_is_sent_as_it_was_announced() {
    let content = content(3_000_000);
    let mut file = file_of(&content);
    let fixture = Fixture::new(&file);
    let mut client = fixture.ask("/file");
    ask_on(&mut client, "/next");
    let (packet, taken) = fixture.worker.take_file();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    fixture
        .worker
        .give_file(&fixture.server.engine, &packet, taken);
    let mut first = vec![0; 1000];
    client.read_exact(&mut first).unwrap();
    file.write_all(&content).unwrap();
    let announced = b"content-length: 3000000\r\n";
    let head = first.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    assert!(
        first[..head]
            .windows(announced.len())
            .any(|at| at == announced)
    );
    let mut rest = vec![0; content.len() - (first.len() - head)];
    client.read_exact(&mut rest).unwrap();
    assert!([&first[head..], &rest].concat() == content);
    assert_eq!(read_response(&mut client), (200, b"/next".to_vec()));
    fixture.end();
}

#[test]
fn a_consumer_that_dies_before_its_file_comes_is_a_502() {
    let fixture = Fixture::new(&file_of(&content(50_000)));
    let mut client = fixture.ask("/file");
    drop(fixture.worker.take_file());
    fixture.catch_up();
    let mut worker = fixture.worker;
    worker.kill(&fixture.server.engine);
    assert_eq!(read_response(&mut client).0, 502);
}

#[test]
fn a_file_that_nobody_waits_for_any_more_is_closed() {
    let fixture = Fixture::new(&file_of(&content(50_000)));
    let client = fixture.ask("/file");
    let (packet, _) = fixture.worker.take_file();
    fixture.catch_up();
    drop(client);
    fixture.catch_up();
    let (file, mut closed) = std::io::pipe().unwrap();
    let engine = &fixture.server.engine;
    fixture.worker.give_file(engine, &packet, file.into());
    fixture.catch_up();
    // In a moment nobody has its other end any more; until then there is room, or the pipe waits.
    while closed.write_all(b"x").is_ok() {}
    fixture.end();
}

/// Closing such a socket waits for its peer, as any call may on a file of a file system that hangs.
#[test]
fn a_descriptor_that_hangs_holds_up_nobody_else() {
    let content = content(50_000);
    let file = file_of(&content);
    let fixture = Fixture::new(&file);
    let engine = &fixture.server.engine;
    let mut slow = fixture.ask("/slow");
    let id = fixture.begun.recv().unwrap();
    let (hanging, peer) = hanging();
    let for_nobody = Control::File {
        owner: 0,
        slot: id.slot,
        generation: id.generation + 1,
    };
    fixture.worker.give_file(engine, &for_nobody, hanging);
    // The lane that does not stand still gets what comes now.
    let (handler, ..) = Files::new(&file);
    let mut other = fixture.server.attach(ConsumerOptions::default(), handler);
    for _ in 0..3 {
        let mut client = fixture.ask("/file");
        let (packet, taken) = other.take_file();
        other.give_file(engine, &packet, taken);
        assert!(read_response(&mut client) == (200, content.clone()));
    }
    // Its own files wait behind it, and come then.
    fixture.go_on.send(()).unwrap();
    let (packet, taken) = fixture.worker.take_file();
    fixture.worker.give_file(engine, &packet, taken);
    fixture.catch_up();
    drop(peer);
    assert!(read_response(&mut slow) == (200, content));
    other.kill(engine);
    fixture.end();
}

#[test]
fn a_file_that_does_not_come_keeps_its_slot() {
    two_files_that_do_not_come(None, 2);
}

#[test]
fn a_file_that_does_not_come_keeps_its_place_in_the_pool() {
    two_files_that_do_not_come(Some(2), 8);
}

/// There is room for two.
fn two_files_that_do_not_come(limit_concurrency: Option<usize>, slots: u16) {
    let config = EngineConfig {
        loops: Some(1),
        limit_concurrency,
        queue_size: 0,
        ..EngineConfig::default()
    };
    let content = content(1000);
    let options = ConsumerOptions {
        slots,
        ..ConsumerOptions::default()
    };
    let fixture = Fixture::with(&file_of(&content), config, options);
    let engine = &fixture.server.engine;
    let first = fixture.ask("/file");
    drop(fixture.worker.take_file());
    let mut second = fixture.ask("/file");
    let (two, file) = fixture.worker.take_file();
    // The consumer is done with both.
    let refused = || read_response(&mut fixture.ask("/x")).0 == 503;
    for _ in 0..20 {
        assert!(refused());
    }
    drop(first);
    while refused() {}
    fixture.catch_up();
    fixture.worker.give_file(engine, &two, file);
    assert!(read_response(&mut second) == (200, content));
    // All of it is free again.
    for _ in 0..5 {
        assert!(fixture.fetch("/file").0 == 200);
    }
    fixture.end();
}

#[test]
fn a_client_that_leaves_in_the_middle_harms_nobody() {
    let file = temporary();
    file.set_len(64 << 20).unwrap();
    let fixture = Fixture::new(&file);
    for _ in 0..3 {
        let mut client = fixture.ask("/file");
        let (packet, taken) = fixture.worker.take_file();
        fixture
            .worker
            .give_file(&fixture.server.engine, &packet, taken);
        client.read_exact(&mut [0; 1000]).unwrap();
    }
    fixture.catch_up();
    fixture.end();
}

#[test]
fn whatever_becomes_of_files_what_they_held_is_free_again() {
    const ROOM: u16 = 4;
    let config = EngineConfig {
        loops: Some(1),
        limit_concurrency: Some(usize::from(ROOM)),
        queue_size: 0,
        ..EngineConfig::default()
    };
    let options = ConsumerOptions {
        slots: ROOM,
        ..ConsumerOptions::default()
    };
    let content = content(2_000_000);
    let fixture = Fixture::with(&file_of(&content), config, options);
    let engine = &fixture.server.engine;
    let give = |packet: &Control, file| fixture.worker.give_file(engine, packet, file);
    let settle = || {
        // A place is free as soon as its connection is closed.
        let is_open = |stats: Snapshot| stats.accepted > stats.closed;
        while is_open(engine.stats()) {
            thread::yield_now();
        }
    };
    let mut random = Random(7);
    for _ in 0..300 {
        settle();
        let mut client = fixture.ask("/file");
        let (packet, file) = fixture.worker.take_file();
        if random.below(2) == 0 {
            // The record has come.
            fixture.catch_up();
        }
        match random.below(5) {
            0 => {
                give(&packet, file.try_clone().unwrap());
                give(&packet, file);
                assert!(read_response(&mut client) == (200, content.clone()));
            }
            1 => {
                give(&packet, File::open("/dev/null").unwrap().into());
                assert_eq!(read_response(&mut client).0, 500);
            }
            2 => {
                give(&packet, file);
                let len = 1 + random.below(1_000_000) as usize;
                client.read_exact(&mut vec![0; len]).unwrap();
            }
            3 => {
                drop(client);
                give(&packet, file);
            }
            // It never comes.
            _ => drop((client, file)),
        }
    }
    settle();
    let mut clients: Vec<_> = (0..ROOM).map(|_| fixture.ask("/file")).collect();
    // Each of these has a place, and nobody else.
    assert_eq!(read_response(&mut fixture.ask("/other")).0, 503);
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        let answer = client.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(answer, Err(ErrorKind::WouldBlock));
        client.set_nonblocking(false).unwrap();
    }
    let files: Vec<_> = (0..ROOM).map(|_| fixture.worker.take_file()).collect();
    for (packet, file) in files {
        give(&packet, file);
    }
    for mut client in clients {
        assert!(read_response(&mut client) == (200, content.clone()));
    }
    fixture.end();
}
