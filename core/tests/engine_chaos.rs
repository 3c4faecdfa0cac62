//! Clients that ask anything and leave at any time, consumers that do anything and die at any time, and
//! an engine that is cut off now and then: each request has one end, and nothing is held at the last.
#![forbid(unsafe_code)]

mod support;

use std::env;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use support::http::{Answer, receive};
use support::{Handle, Random, Server, Worker};
use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId};
use toolb_core::engine::Engine;
use toolb_core::message::Request;

const CLIENTS: u64 = 10;
const ROUNDS: usize = 60;
/// As many requests may be in the pool.
const LIMIT: usize = 6;
/// So much of a file is sent.
const FILE: usize = 4000;
/// What a consumer is asked to do.
const KINDS: [&str; 16] = [
    "quick", "quick", "quick", "late", "parts", "half", "endless", "short", "bad", "file", "file",
    "upload", "upload", "abort", "die", "hold",
];

/// Does what the path says; the query is a request's name.
struct Anything {
    file: Arc<OwnedFd>,
    random: Random,
    uploads: Vec<(ExchangeId, Vec<u8>)>,
    lives: bool,
}

impl Handle for Anything {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, more: bool) {
        let none = std::iter::empty();
        let name = request.query();
        // Who has left is met everywhere: what is said to nobody is refused.
        let _ = match request.path() {
            b"/quick" => consumer.respond_head(id, 200, -1, none, name, true, true),
            b"/late" => {
                let said = consumer.respond_head(id, 200, -1, none, name, true, false);
                consumer.flush(false);
                consumer.done(id);
                said
            }
            b"/parts" => consumer
                .respond_head(id, 200, -1, none, name, false, false)
                .and_then(|_| consumer.respond_body(id, &[b'p'; 40_000], true, true)),
            b"/half" => {
                let said = consumer.respond_head(id, 200, 4000, none, name, false, false);
                consumer.flush(false);
                consumer.abort(id);
                said
            }
            b"/endless" => consumer.respond_head(id, 200, -1, none, name, false, false),
            b"/short" => consumer.respond_head(id, 200, 4000, none, name, true, true),
            b"/bad" => {
                let bad = [(&b"x\n"[..], &b"y"[..])].into_iter();
                consumer.respond_head(id, 200, -1, bad, name, true, true)
            }
            b"/file" => {
                let file = self.file.as_fd();
                let _ = consumer.respond_file(id, 200, none, file, 0, Some(FILE as u64), true);
                return;
            }
            b"/upload" if more && self.random.below(3) > 0 => {
                consumer.want_body(id);
                consumer.consumed(id, request.body().len());
                self.uploads.push((id, name.to_vec()));
                return;
            }
            b"/upload" => consumer.respond_head(id, 200, -1, none, name, true, true),
            b"/abort" => {
                consumer.abort(id);
                return;
            }
            b"/die" => {
                self.lives = self.random.below(4) > 0;
                return;
            }
            _ => return,
        };
    }

    fn body(&mut self, consumer: &mut Consumer, id: ExchangeId, data: Vec<u8>, end: bool) {
        consumer.consumed(id, data.len());
        let place = self.uploads.iter().position(|(upload, _)| *upload == id);
        if let Some(place) = place.filter(|_| end) {
            let (id, name) = self.uploads.swap_remove(place);
            let none = std::iter::empty();
            let _ = consumer.respond_head(id, 200, -1, none, &name, true, true);
        }
    }

    fn lives(&self) -> bool {
        self.lives
    }
}

/// A request, and what a client has to know of it.
struct Asked {
    name: String,
    kind: &'static str,
    bytes: Vec<u8>,
    /// What comes in answer cannot be told apart from what comes behind it, as far as a client of this
    /// test goes.
    is_odd: bool,
}

impl Asked {
    fn any(random: &mut Random) -> Self {
        let kind = KINDS[random.below(KINDS.len() as u64) as usize];
        let name = format!("{:x}", random.below(u64::MAX));
        let mut one_in = |number| random.below(number) == 0;
        let has_body = kind == "upload" || one_in(8);
        let (method, expect) = match has_body {
            true if one_in(6) => ("POST", "expect: 100-continue\r\n"),
            true => ("POST", ""),
            false if one_in(8) => ("HEAD", ""),
            false => ("GET", ""),
        };
        let close = if one_in(6) {
            "connection: close\r\n"
        } else {
            ""
        };
        let is_chunked = one_in(2);
        let body = "b".repeat([0, 10, 20_000, 120_000][random.below(4) as usize]);
        let size = body.len();
        let rest = match (has_body, is_chunked, size) {
            (false, ..) => "\r\n".to_owned(),
            (true, false, _) => format!("content-length: {size}\r\n\r\n{body}"),
            (true, true, 0) => "transfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            (true, true, _) => {
                format!("transfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n")
            }
        };
        let head = format!("{method} /{kind}?{name} HTTP/1.1\r\nhost: x\r\n{close}{expect}");
        Self {
            name,
            kind,
            bytes: (head + &rest).into_bytes(),
            is_odd: method == "HEAD" || !expect.is_empty(),
        }
    }

    fn check(&self, answer: &Answer) {
        let (name, body) = (self.name.as_bytes(), &answer.body);
        let is_right = match (answer.status, self.kind) {
            (200, "file") => body.len() == FILE,
            (200, _) => body.starts_with(name),
            (400 | 408 | 500 | 502 | 503 | 504, _) => true,
            _ => false,
        };
        assert!(is_right, "{}: {}: {:.80?}", self.name, answer.status, body);
    }
}

/// Asks a few things on one connection, and perhaps waits for the answers.
fn visit(address: &str, random: &mut Random) {
    let Ok(mut stream) = TcpStream::connect(address) else {
        // The engine has ended.
        return;
    };
    // No client waits for longer than this.
    let patience = Some(Duration::from_millis(300));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    let asked: Vec<_> = (0..1 + random.below(4))
        .map(|_| Asked::any(random))
        .collect();
    let mut bytes: Vec<u8> = asked.iter().flat_map(|one| one.bytes.clone()).collect();
    match random.below(8) {
        0 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        1 => bytes.extend_from_slice(b"nonsense\r\n\r\n"),
        _ => {}
    }
    // Who has said too much may be cut off, and may have an answer all the same.
    let _ = stream.write_all(&bytes);
    match random.below(6) {
        0 => return,
        1 => {
            let _ = stream.read(&mut [0; 10]);
            return;
        }
        2 => {
            let _ = stream.shutdown(Shutdown::Write);
        }
        _ => {}
    }
    let mut connection = BufReader::new(stream);
    for one in &asked {
        if one.is_odd {
            let _ = connection.read(&mut [0; 1000]);
            return;
        }
        let Ok(answer) = receive(&mut connection) else {
            return;
        };
        one.check(&answer);
        if answer.closes {
            return;
        }
    }
}

/// Answers as soon as it has so many requests at once.
#[derive(Default)]
struct All(Vec<ExchangeId>);

impl Handle for All {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, _: Request, _: bool) {
        self.0.push(id);
        if self.0.len() == LIMIT {
            for id in self.0.drain(..) {
                let none = std::iter::empty();
                let _ = consumer.respond_head(id, 200, -1, none, b"", true, true);
            }
        }
    }

    fn disconnected(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        self.0.retain(|held| *held != id);
        consumer.done(id);
    }
}

struct Chaos {
    server: Server,
    file: Arc<OwnedFd>,
    random: Random,
}

impl Chaos {
    fn start() -> Self {
        let seed = env::var("TOOLB_SEED").map_or(1, |seed| seed.parse().unwrap());
        let server = Server::start(EngineConfig {
            loops: Some(2),
            limit_concurrency: Some(LIMIT),
            queue_size: 3,
            queue_timeout: Duration::from_millis(40),
            request_window: 16 * 1024,
            response_window: 16 * 1024,
            timeouts: Timeouts {
                request_header: Duration::from_millis(200),
                request_body: Duration::from_millis(200),
                response: Duration::from_millis(80),
                keep_alive: Duration::from_millis(200),
                send_idle: Duration::from_millis(300),
                ..Timeouts::default()
            },
            ..EngineConfig::default()
        });
        Self {
            server,
            file: Arc::new(File::open("/proc/self/exe").unwrap().into()),
            random: Random(seed),
        }
    }

    /// Lets clients and consumers loose; `goes_on` is asked now and then with how many clients are left.
    fn run(&mut self, mut goes_on: impl FnMut(&Engine, u64, &mut Random) -> bool) {
        let (server, random) = (&self.server, &mut self.random);
        let busy = AtomicU64::new(CLIENTS);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let (leaves, mut random) = (Leaves(&busy), Random(random.below(u64::MAX)));
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        visit(&server.address, &mut random);
                    }
                    drop(leaves);
                });
            }
            let mut workers: Vec<Worker> = Vec::new();
            while goes_on(&server.engine, busy.load(Ordering::Relaxed), random) {
                if workers.len() < 3 {
                    let handler = Anything {
                        file: self.file.clone(),
                        random: Random(random.below(u64::MAX)),
                        uploads: Vec::new(),
                        lives: true,
                    };
                    workers.push(server.attach(options(), handler));
                }
                for worker in &workers {
                    worker.give_files(&server.engine, random.below(8) > 0);
                }
                if random.below(40) == 0 {
                    let place = random.below(workers.len() as u64) as usize;
                    workers.swap_remove(place).kill(&server.engine);
                }
                // not-sync: chaos, too, has a pace
                thread::sleep(Duration::from_millis(2));
            }
            for mut worker in workers {
                worker.kill(&server.engine);
            }
        });
    }

    /// Once all connections are closed: each request was answered or broken off.
    fn settle(&self) {
        let stats = loop {
            let stats = self.server.engine.stats();
            if stats.accepted == stats.closed {
                break stats;
            }
            thread::yield_now();
        };
        assert_eq!(stats.requests, stats.answered + stats.broken, "{stats:?}");
        assert!(stats.failed <= stats.answered, "{stats:?}");
        assert!(stats.unmissed <= stats.broken, "{stats:?}");
    }
}

/// Counts one client less at its end, however it comes to it.
struct Leaves<'a>(&'a AtomicU64);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn options() -> ConsumerOptions {
    ConsumerOptions {
        slots: 8,
        concurrency: 2,
        window: 3,
        ..ConsumerOptions::default()
    }
}

#[test]
fn each_request_has_one_end_and_holds_nothing_after_it() {
    let mut chaos = Chaos::start();
    chaos.run(|engine, clients, random| {
        if random.below(40) == 0 {
            engine.cut_off();
        }
        clients > 0
    });
    chaos.settle();
    let server = &chaos.server;
    assert_eq!(server.engine.waiting(), 0);
    // There is all the room again that the limit allows: so many are in the pool at once.
    let options = ConsumerOptions {
        concurrency: 8,
        window: 8,
        ..options()
    };
    let mut worker = server.attach(options, All::default());
    let is_all_there = || {
        let mut streams = [(); LIMIT].map(|()| BufReader::new(server.connect()));
        for stream in &mut streams {
            // Whoever has said nothing for a while may have been sent away.
            let _ = stream
                .get_mut()
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        }
        let answers = streams.iter_mut().map(receive);
        answers.flatten().filter(|it| it.status == 200).count() == LIMIT
    };
    // Where the machine is slow they may come too far apart.
    assert!((0..100).any(|_| is_all_there()));
    worker.kill(&server.engine);
}

#[test]
fn each_request_has_one_end_even_if_the_engine_ends_meanwhile() {
    let mut chaos = Chaos::start();
    let mut turns = 0;
    chaos.run(|engine, _, random| {
        turns += 1;
        match turns {
            100 if random.below(2) == 0 => engine.drain(),
            110 => engine.cut_off(),
            111 => engine.stop(),
            _ => {}
        }
        turns < 111
    });
    chaos.settle();
}
