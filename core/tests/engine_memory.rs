//! What one large answer took is given back: a loop and a connection that go on keep little of it.
//! In a process of its own, whose memory it looks at.
#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use support::read_head;
use toolb_core::config::EngineConfig;
use toolb_core::engine::{Engine, Handler, Listen, Request, Response, Routes, Step};

const LARGE: usize = 200 << 20;
static PART: [u8; 1 << 20] = [b'x'; 1 << 20];

#[test]
fn the_memory_of_a_large_answer_is_given_back() {
    let engine = engine();
    let address = engine.addresses()[0].replace("http://", "");
    let mut client = TcpStream::connect(&address).unwrap();
    ask_many(&mut client);
    let before = resident();
    for path in ["/large", "/refused", "/later"] {
        let length = ask(&mut client, path);
        assert_eq!(length, if path == "/refused" { 22 } else { LARGE });
        // The connection stays, and so does the loop, which uses one response for all of these.
        ask_many(&mut client);
        let kept = resident().saturating_sub(before);
        assert!(kept < LARGE / 10, "{kept} bytes are kept after {path}");
    }
}

fn engine() -> Engine {
    let mut routes = Routes::default();
    let mut add = |pattern, handler: Arc<dyn Handler>| {
        routes.inline.insert("GET", pattern, handler).unwrap();
    };
    let small = |_: &Request<'_>, response: &mut Response| {
        response.write(b"hello");
        Step::Done
    };
    let large = |_: &Request<'_>, response: &mut Response| {
        write_large(response);
        Step::Done
    };
    let refused = |_: &Request<'_>, response: &mut Response| {
        write_large(response);
        response.field(b"not a name", b"");
        Step::Done
    };
    let later = |_: &Request<'_>, response: &mut Response| {
        write_large(response);
        let token = response.later();
        thread::spawn(move || token.end());
        Step::Later
    };
    add("/", Arc::new(small));
    add("/large", Arc::new(large));
    add("/refused", Arc::new(refused));
    add("/later", Arc::new(later));
    let listen = Listen::Tcp {
        host: "127.0.0.1".into(),
        port: 0,
    };
    let config = EngineConfig {
        loops: Some(1),
        ..EngineConfig::default()
    };
    let mut engine = Engine::bind(config, routes, &[listen]).unwrap();
    engine.start().unwrap();
    engine
}

fn write_large(response: &mut Response) {
    for _ in 0..LARGE / PART.len() {
        response.write(&PART);
    }
}

fn ask_many(client: &mut TcpStream) {
    for _ in 0..100 {
        assert_eq!(ask(client, "/"), 5);
    }
}

/// Reads an answer and keeps nothing of it; the length of its body.
fn ask(client: &mut TcpStream, path: &str) -> usize {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let (_, length) = read_head(client);
    let (mut left, mut room) = (length, vec![0; 1 << 16]);
    while left > 0 {
        let most = room.len().min(left);
        let got = client.read(&mut room[..most]).unwrap();
        assert!(got > 0, "{left} bytes did not come");
        left -= got;
    }
    length
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<usize>().unwrap() << 10
}
