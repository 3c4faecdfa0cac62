//! Clients that read slowly, not at all, or leave before they are served.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, Request};

use super::support::{Echo, Handle, Server, read_response};

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
