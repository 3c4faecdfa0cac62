//! Engine and consumers, from socket to socket through the rings.
#![forbid(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::sync::mpsc::{Sender, channel};

use support::{Echo, Handle, Server, read_response};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, Request, Sent};

fn config(loops: usize) -> EngineConfig {
    EngineConfig {
        loops: Some(loops),
        ..EngineConfig::default()
    }
}

#[test]
fn requests_are_answered_with_their_own_id_on_every_loop() {
    let server = Server::start(config(3));
    let mut workers: Vec<_> = (0..2)
        .map(|_| server.attach(ConsumerOptions::default(), Echo::default()))
        .collect();
    std::thread::scope(|scope| {
        for client in 0..24 {
            let server = &server;
            scope.spawn(move || {
                let mut stream = server.connect();
                for turn in 0..50 {
                    let size = turn * turn * 40;
                    let body = vec![b'a' + (client % 26) as u8; size];
                    write!(
                        stream,
                        "POST /a%20b?{client}-{turn} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
                    )
                    .unwrap();
                    stream.write_all(&body).unwrap();
                    let (status, answer) = read_response(&mut stream);
                    let mut expected = format!("POST /a b?{client}-{turn} ").into_bytes();
                    expected.extend_from_slice(&body);
                    assert_eq!(status, 200);
                    assert!(answer == expected, "client {client} turn {turn}");
                }
            });
        }
    });
    for worker in &mut workers {
        worker.kill(&server.engine);
    }
}

#[test]
fn a_long_response_comes_whole_through_its_window() {
    let server = Server::start(config(1));
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut stream = server.connect();
    stream
        .write_all(b"GET /stream?5000000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let bytes = answer.iter().filter(|byte| **byte == b's').count();
    let head_end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let in_head = answer[..head_end]
        .iter()
        .filter(|byte| **byte == b's')
        .count();
    assert_eq!(bytes - in_head, 5_000_000);
    assert!(answer.ends_with(b"0\r\n\r\n"));
    worker.kill(&server.engine);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(config(1));
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    let mut stream = server.connect();
    let mut requests = String::new();
    for id in 0..100 {
        requests += &format!("GET /{id} HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    stream.write_all(requests.as_bytes()).unwrap();
    for id in 0..100 {
        let (status, body) = read_response(&mut stream);
        assert_eq!((status, body), (200, format!("GET /{id}? ").into_bytes()));
    }
    worker.kill(&server.engine);
}

#[test]
fn requests_wait_for_the_first_consumer() {
    let server = Server::start(config(1));
    let mut stream = server.connect();
    stream
        .write_all(b"GET /early HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut worker = server.attach(ConsumerOptions::default(), Echo::default());
    assert_eq!(read_response(&mut stream).1, b"GET /early? ");
    worker.kill(&server.engine);
}

#[test]
fn bodies_of_requests_that_waited_in_the_queue_arrive() {
    let server = Server::start(config(2));
    let options = ConsumerOptions {
        window: 1,
        concurrency: 2,
        ..ConsumerOptions::default()
    };
    let mut worker = server.attach(options, Echo::default());
    std::thread::scope(|scope| {
        for client in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let mut stream = server.connect();
                for turn in 0..20 {
                    let size = 100_000 + client * 1000 + turn;
                    let body = vec![b'x'; size];
                    write!(
                        stream,
                        "POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
                    )
                    .unwrap();
                    stream.write_all(&body).unwrap();
                    let (status, answer) = read_response(&mut stream);
                    assert_eq!((status, answer.len()), (200, size + "POST /b? ".len()));
                }
            });
        }
    });
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
