//! Consumers that answer with open files, from socket to socket.
#![forbid(unsafe_code)]

mod arrivals;
mod contents;
mod room;
#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Seek, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use support::{Handle, Server, Worker, read_response};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, FileError};
use toolb_core::message::{Control, Request};

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
