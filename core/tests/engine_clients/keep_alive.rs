//! How long a connection lasts: what counts as idle, and which answer is the last.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, Request};

use super::support::{Echo, Handle, Server, read_response};

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
    // Nothing if the connection was idle between the two, as this thread stood still for so long.
    let rest_after_two = |pieces: [&[u8]; 2]| {
        let mut stream = server.connect();
        for _ in 0..2 {
            stream.write_all(pieces[0]).ok()?;
            stream.peek(&mut [0]).ok().filter(|count| *count > 0)?;
            assert_eq!(read_response(&mut stream).1, b"POST /? ab");
            stream.write_all(pieces[1]).ok()?;
        }
        let mut rest = String::new();
        stream.read_to_string(&mut rest).ok().map(|_| rest)
    };
    for pieces in [[&post[..], b""], post.split_at(post.len() - 2).into()] {
        let rest = std::iter::repeat_with(|| rest_after_two(pieces))
            .flatten()
            .next();
        assert_eq!(rest.unwrap(), "");
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
    let mut stream = loop {
        let mut stream = server.connect();
        write!(
            stream,
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {LENGTH}\r\n\r\n"
        )
        .unwrap();
        match read_response(&mut stream) {
            // The consumer had no turn within the time for the body.
            (408, _) => {}
            (_, body) => {
                assert_eq!(body, b"hasty");
                break stream;
            }
        }
    };
    let sent = (0..LENGTH).take_while(|_| {
        // not-sync: the client is slow on purpose.
        std::thread::sleep(Duration::from_millis(1));
        stream.write_all(b"x").is_ok()
    });
    assert!(sent.count() < LENGTH, "the client is never cut off");
    worker.kill(&server.engine);
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
