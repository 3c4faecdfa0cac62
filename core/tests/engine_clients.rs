//! Clients that read slowly, not at all, or only after a while.
#![forbid(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use support::{Echo, Handle, Server, read_response};
use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, Request, Sent};
use toolb_core::engine::{Engine, Listen, Routes, StartError};

#[test]
fn a_client_that_reads_by_fits_and_starts_gets_everything() {
    let server = Server::start(EngineConfig::default());
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    std::thread::scope(|scope| {
        for client in 0..4_u64 {
            let server = &server;
            scope.spawn(move || {
                let mut stream = server.connect();
                stream
                    .write_all(b"GET /stream?20000000 HTTP/1.0\r\nhost: x\r\n\r\n")
                    .unwrap();
                let mut total = 0;
                let mut random = client * 77 + 12345;
                let mut buffer = vec![0; 200_000];
                loop {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let want = 1000 + (random >> 33) as usize % 190_000;
                    match stream.read(&mut buffer[..want]).unwrap() {
                        0 => break,
                        count => total += count,
                    }
                    if random >> 60 < 4 {
                        // not-sync: the pause is what fills the socket's buffers.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                assert!(total > 20_000_000, "{total}");
            });
        }
    });
    assert!(server.engine.stats().bytes_out < 81_000_000);
    worker.kill(&server.engine);
}

#[test]
fn the_end_of_a_long_response_is_not_cut_as_if_the_connection_were_idle() {
    let server = Server::with_timeouts(Timeouts {
        keep_alive: Duration::from_millis(20),
        ..Timeouts::default()
    });
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    // Sizes around what the socket's buffers and the window take, so that some wait in the engine.
    for size in (2_000_000..6_000_000).step_by(200_000) {
        let mut stream = server.connect();
        write!(stream, "GET /stream?{size} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        // not-sync: the pause outlasts the keep-alive timeout.
        std::thread::sleep(Duration::from_millis(60));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(
            answer.ends_with(b"\r\n0\r\n\r\n"),
            "{size}: {}",
            answer.len()
        );
    }
    worker.kill(&server.engine);
}

#[test]
fn a_client_that_asks_and_does_not_read_is_not_served_ahead() {
    const ASKED: usize = 2000;
    let server = Server::start(EngineConfig::default());
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut greedy = server.connect();
    for _ in 0..ASKED {
        greedy
            .write_all(b"GET /stream?100000 HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
    }
    let mut modest = server.connect();
    let mut begun = 0;
    loop {
        for _ in 0..50 {
            modest
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                .unwrap();
            assert_eq!(read_response(&mut modest).0, 200);
        }
        let now = server.engine.stats().requests;
        if now - begun == 50 {
            // Only the modest one's requests were begun meanwhile: the greedy one has come to rest.
            break;
        }
        begun = now;
    }
    assert!(server.engine.stats().requests < ASKED as u64 / 2);
    let mut ends = 0;
    let mut tail = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while ends < ASKED {
        let count = greedy.read(&mut buffer).unwrap();
        assert!(count > 0, "cut after {ends} answers");
        tail.extend_from_slice(&buffer[..count]);
        ends += tail
            .windows(7)
            .filter(|part| part == b"\r\n0\r\n\r\n")
            .count();
        tail.drain(..tail.len().saturating_sub(6));
    }
    worker.kill(&server.engine);
}

#[test]
fn without_keep_alive_every_response_closes() {
    let server = Server::with_timeouts(Timeouts {
        keep_alive: Duration::ZERO,
        ..Timeouts::default()
    });
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut stream = server.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    worker.kill(&server.engine);
}

/// Says ten bytes and sends a million.
struct Liar {
    told: Sender<&'static str>,
    left: usize,
}

impl Liar {
    fn go_on(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        while self.left > 0 {
            self.left -= 1;
            match consumer.respond_body(id, &[b'z'; 20_000], false, false) {
                Ok(Sent::Below) => {}
                Ok(Sent::Above) | Err(_) => return,
            }
        }
    }
}

impl Handle for Liar {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, _: Request, _: bool) {
        let fields = [(&b"content-length"[..], &b"10"[..])];
        consumer
            .respond_head(id, 200, -1, fields.into_iter(), b"", false, false)
            .unwrap();
        self.left = 50;
        self.go_on(consumer, id);
    }

    fn writable(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        self.go_on(consumer, id);
    }

    fn disconnected(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        self.told.send("disconnected").unwrap();
        consumer.done(id);
    }
}

#[test]
fn an_application_that_sends_too_much_is_told_to_stop() {
    let server = Server::start(EngineConfig::default());
    let (told, hears) = channel();
    let mut worker = server.attach(ConsumerOptions::default(), Liar { told, left: 0 });
    let mut stream = server.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nzzzzzzzzzz"), "{answer}");
    assert_eq!(hears.recv(), Ok("disconnected"));
    worker.kill(&server.engine);
}

/// Holds uploads without reading them, and stands still in `/stuck` until it is told to go on.
struct Hoard {
    begun: Sender<()>,
    go_on: Receiver<()>,
}

impl Handle for Hoard {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, _: bool) {
        if request.path() != b"/stuck" {
            return self.begun.send(()).unwrap();
        }
        self.begun.send(()).unwrap();
        self.go_on.recv().unwrap();
        let none = std::iter::empty();
        consumer
            .respond_head(id, 200, -1, none, b"x", true, true)
            .unwrap();
    }
}

#[test]
fn a_request_whose_client_left_before_it_could_be_sent_holds_nothing() {
    let server = Server::start(EngineConfig::default());
    let (begun, has_begun) = channel();
    let (go, go_on) = channel();
    let mut worker = server.attach(ConsumerOptions::default(), Hoard { begun, go_on });
    for _ in 0..3 {
        // Uploads fill the ring of a consumer that stands still ...
        let mut uploads = Vec::new();
        for _ in 0..8 {
            let mut stream = server.connect();
            stream
                .write_all(b"POST /u HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
                .unwrap();
            has_begun.recv().unwrap();
            uploads.push(stream);
        }
        let mut stuck = server.connect();
        stuck
            .write_all(b"GET /stuck HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        has_begun.recv().unwrap();
        for stream in &mut uploads {
            stream.write_all(&[b'x'; 64 * 1024]).unwrap();
        }
        // ... so that these find no room, and leave.
        let before = server.engine.stats();
        let mut leavers = Vec::new();
        for _ in 0..16 {
            let mut stream = server.connect();
            let mut request =
                b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: 16000\r\n\r\n".to_vec();
            request.resize(request.len() + 16_000, b'y');
            stream.write_all(&request).unwrap();
            leavers.push(stream);
        }
        while server.engine.stats().requests < before.requests + 16 {
            std::thread::yield_now();
        }
        drop(leavers);
        drop(uploads);
        while server.engine.stats().closed < before.closed + 24 {
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        assert_eq!(read_response(&mut stuck).0, 200);
        while has_begun.try_recv().is_ok() {}
    }
    worker.kill(&server.engine);
}

/// Answers before it has seen the body.
struct Hasty;

impl Handle for Hasty {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, _: Request, _: bool) {
        let none = std::iter::empty();
        consumer
            .respond_head(id, 200, -1, none, b"hasty", true, true)
            .unwrap();
    }
}

#[test]
fn a_connection_is_idle_once_the_rest_of_a_body_has_come() {
    let server = Server::with_timeouts(Timeouts {
        keep_alive: Duration::from_millis(50),
        request_body: Duration::from_secs(3600),
        ..Timeouts::default()
    });
    let mut worker = server.attach(ConsumerOptions::default(), Hasty);
    let mut stream = server.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n")
        .unwrap();
    assert_eq!(read_response(&mut stream).1, b"hasty");
    stream.write_all(b"tardy").unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    worker.kill(&server.engine);
}

#[test]
fn a_line_end_after_a_body_begins_no_request() {
    let server = Server::with_timeouts(Timeouts {
        keep_alive: Duration::from_millis(50),
        request_header: Duration::from_millis(50),
        ..Timeouts::default()
    });
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let post = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab\r\n";
    for pieces in [[&post[..], b""], post.split_at(post.len() - 2).into()] {
        let mut stream = server.connect();
        for _ in 0..2 {
            stream.write_all(pieces[0]).unwrap();
            assert_eq!(read_response(&mut stream).1, b"POST /? ab");
            stream.write_all(pieces[1]).unwrap();
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8(rest).unwrap(), "");
    }
    worker.kill(&server.engine);
}

#[test]
fn line_ends_keep_no_connection_alive() {
    let server = Server::with_timeouts(Timeouts {
        keep_alive: Duration::from_millis(50),
        ..Timeouts::default()
    });
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut stream = server.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    read_response(&mut stream);
    while stream.write_all(b"\r\n").is_ok() {
        // not-sync: the client is slow on purpose.
        std::thread::sleep(Duration::from_millis(1));
    }
    worker.kill(&server.engine);
}

#[test]
fn the_rest_of_a_body_is_held_to_the_pace_of_bodies() {
    const LENGTH: usize = 20_000;
    let server = Server::with_timeouts(Timeouts {
        request_body: Duration::from_millis(200),
        request_body_min_rate: 1 << 20,
        ..Timeouts::default()
    });
    let mut worker = server.attach(ConsumerOptions::default(), Hasty);
    let mut stream = server.connect();
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {LENGTH}\r\n\r\n"
    )
    .unwrap();
    assert_eq!(read_response(&mut stream).1, b"hasty");
    let sent = (0..LENGTH).take_while(|_| {
        // not-sync: the client is slow on purpose.
        std::thread::sleep(Duration::from_millis(1));
        stream.write_all(b"x").is_ok()
    });
    assert!(sent.count() < LENGTH, "the client is never cut off");
    worker.kill(&server.engine);
}

#[test]
fn a_start_that_fails_leaves_no_socket_file() {
    let path = std::env::temp_dir().join(format!("toolb-failed-{}", std::process::id()));
    let listen = Listen::Uds {
        path: path.clone(),
        permissions: None,
    };
    // The second one finds the first in use.
    let twice = [listen.clone(), listen];
    let outcome = Engine::bind(EngineConfig::default(), Routes::default(), &twice);
    assert!(outcome.is_err());
    assert!(!path.exists());
}

#[test]
fn a_refusal_reaches_a_client_that_has_said_all_it_had_to_say() {
    let path = std::env::temp_dir().join(format!("toolb-refusal-{}", std::process::id()));
    let listen = Listen::Uds {
        path: path.clone(),
        permissions: None,
    };
    let mut config = EngineConfig::default();
    config.limits.body = 1000;
    let mut engine = Engine::bind(config, Routes::default(), &[listen]).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        .unwrap();
    // More than is read at once: what is left unread must not become a reset.
    stream.write_all(&[b'x'; 100_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    engine.start().unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn a_unix_socket_is_its_successors_once_an_engine_drains() {
    let path = std::env::temp_dir().join(format!("toolb-successor-{}", std::process::id()));
    let start = || {
        let listen = Listen::Uds {
            path: path.clone(),
            permissions: None,
        };
        let config = EngineConfig::default();
        let mut engine = Engine::bind(config, Routes::default(), &[listen])?;
        engine.start().unwrap();
        Ok::<_, StartError>(engine)
    };
    let first = start().unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    assert!(start().is_err());
    first.drain();
    while UnixStream::connect(&path).is_ok() {}
    let second = start().unwrap();
    first.stop();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    second.stop();
    assert!(!path.exists());
}

#[test]
fn only_who_may_go_on_is_waited_for_after_the_last_answer() {
    let server = Server::start(EngineConfig::default());
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let said = [
        (
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", false),
        // It has not kept its word already.
        ("GET / HTTP/1.0\r\n\r\nand more", true),
        // Nothing was said: it is the server that cannot go on.
        ("GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", true),
    ];
    for (request, waits) in said {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        // Where nobody reads any more, this is refused, as soon as the kernel has said so.
        let mut refused = (0..1000).map(|_| stream.write_all(b"?").is_err());
        assert_eq!(refused.any(|refused| refused), !waits, "{request}");
    }
    worker.kill(&server.engine);
}

/// Begins its answer, and ends it when it is told to.
struct Halfway {
    begun: Sender<()>,
    go_on: Receiver<()>,
}

impl Handle for Halfway {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, _: bool) {
        let (none, ends) = (std::iter::empty(), request.path() == b"/");
        consumer
            .respond_head(id, 200, 7, none, b"half", false, false)
            .unwrap();
        if !ends {
            consumer.flush(false);
            self.begun.send(()).unwrap();
            self.go_on.recv().unwrap();
        }
        consumer.respond_body(id, b"way", true, true).unwrap();
    }
}

#[test]
fn an_answer_that_ends_after_the_last_call_is_the_last_on_its_connection() {
    let server = Server::with_timeouts(Timeouts {
        keep_alive: Duration::from_secs(3600),
        ..Timeouts::default()
    });
    let (begun, has_begun) = channel();
    let (go_on, told) = channel();
    let handler = Halfway { begun, go_on: told };
    let mut worker = server.attach(ConsumerOptions::default(), handler);
    let (mut idle, mut busy) = (server.connect(), server.connect());
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert_eq!(read_response(&mut idle).1, b"halfway");
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    has_begun.recv().unwrap();
    // The head says that the connection stays.
    let mut head = [0; 12];
    busy.read_exact(&mut head).unwrap();
    server.engine.drain();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    go_on.send(()).unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nhalfway"), "{answer}");
    worker.kill(&server.engine);
}
