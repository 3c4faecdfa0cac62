//! Requests that the engine refuses by itself: what the access log says of them, and what comes after.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Engine, Listen, Request, Response, Routes, Step};
use crate::config::{EngineConfig, Limits};
use crate::log::access::AccessLog;

macro_rules! dots {
    () => {
        "................................................................"
    };
}

/// A request: its line, fields, what comes behind its head, and the status it gets.
type Case = (&'static str, &'static str, &'static [u8], u16);

const REFUSED: [Case; 22] = [
    ("GET / HTTP/1.1", "", b"", 400),
    ("GET / HTTP/1.1", "host: x\r\nhost: x\r\n", b"", 400),
    ("GET / HTTP/1.1", "host: x\r\nno field\r\n", b"", 400),
    ("GET / HTTP/1.1", "host: x\r\nlf: x\n", b"", 400),
    ("GET /%FF HTTP/1.1", "host: x\r\n", b"", 400),
    (
        "POST / HTTP/1.1",
        "host: x\r\ncontent-length: x\r\n",
        b"",
        400,
    ),
    (
        "POST / HTTP/1.1",
        "host: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
        b"",
        400,
    ),
    ("POST / HTTP/1.1", CHUNKED, b"no chunk\r\n", 400),
    ("GET /none HTTP/1.1", "host: x\r\n", b"", 404),
    ("HEAD /none HTTP/1.1", "host: x\r\n", b"", 404),
    (
        "POST /none HTTP/1.1",
        "host: x\r\ncontent-length: 9\r\n",
        b"",
        404,
    ),
    ("PUT / HTTP/1.1", "host: x\r\n", b"", 405),
    ("PUT / HTTP/1.1", CHUNKED, b"", 405),
    (
        "POST / HTTP/1.1",
        "host: x\r\ncontent-length: 11\r\n",
        b"",
        413,
    ),
    ("POST / HTTP/1.1", CHUNKED, b"b\r\n", 413),
    (LONG_LINE, "host: x\r\n", b"", 414),
    ("GET / HTTP/1.1", "host: x\r\nexpect: much\r\n", b"", 417),
    (
        "GET / HTTP/1.1",
        "a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\ne: 5\r\n",
        b"",
        431,
    ),
    ("GET / HTTP/1.1", LONG_FIELD, b"", 431),
    ("GET /fails HTTP/1.1", "host: x\r\n", b"", 500),
    (
        "POST / HTTP/1.1",
        "host: x\r\ntransfer-encoding: gzip, chunked\r\n",
        b"",
        501,
    ),
    ("GET / HTTP/2.0", "host: x\r\n", b"", 505),
];
const CHUNKED: &str = "host: x\r\ntransfer-encoding: chunked\r\n";

const LONG_LINE: &str = concat!("GET /", dots!(), " HTTP/1.1");
const LONG_FIELD: &str = concat!("long: ", dots!(), dots!(), dots!(), dots!(), "\r\n");

/// Starts an engine of its own on a free port, with this access log; tells its address.
fn start(config: EngineConfig, routes: Routes, log: Option<AccessLog>) -> (Engine, String) {
    let listen = Listen::Tcp {
        host: "127.0.0.1".into(),
        port: 0,
    };
    let mut engine = Engine::bind(config, routes, &[listen]).unwrap();
    Arc::get_mut(&mut engine.shared).unwrap().access = log;
    engine.start().unwrap();
    let address = engine.addresses()[0].replace("http://", "");
    (engine, address)
}

/// Has each of these sent on a connection of its own, and compares what the log says.
fn compare(config: EngineConfig, routes: Routes, cases: &[Case]) {
    let (log, memory) = AccessLog::to_memory();
    let (engine, address) = start(config, routes, Some(log));
    for (number, (line, fields, rest, _)) in cases.iter().enumerate() {
        let from = format!("referer: http://from/{number}\r\nUser-Agent:\tagent {number} \r\n");
        let mut request = format!("{line}\r\n{fields}connection: close\r\n{from}\r\n").into_bytes();
        request.extend_from_slice(rest);
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all(&request).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    }
    engine.stop();
    // The log writes what waits.
    drop(engine);
    let text = String::from_utf8(memory.lock().unwrap().clone()).unwrap();
    let said: Vec<_> = text.lines().collect();
    assert_eq!(said.len(), cases.len(), "{text}");
    for (number, ((line, _, _, status), said)) in cases.iter().zip(said).enumerate() {
        let begin = format!("] \"{line}\" {status} ");
        let end = format!(" \"http://from/{number}\" \"agent {number}\" ");
        assert!(
            said.contains(&begin) && said.contains(&end),
            "{begin} {end}: {said}"
        );
    }
}

#[test]
fn who_was_refused_is_in_the_access_log_with_what_he_said_of_himself() {
    let config = EngineConfig {
        limits: Limits {
            request_line: 64,
            head: 300,
            fields: 7,
            body: 10,
        },
        ..EngineConfig::default()
    };
    let mut routes = Routes::default();
    let answers = |_: &Request<'_>, _: &mut Response| Step::Done;
    let fails = |_: &Request<'_>, _: &mut Response| Step::Later;
    routes.inline.insert("GET", "/", Arc::new(answers)).unwrap();
    routes
        .inline
        .insert("POST", "/", Arc::new(answers))
        .unwrap();
    routes
        .inline
        .insert("GET", "/fails", Arc::new(fails))
        .unwrap();
    compare(config, routes, &REFUSED);
}

#[test]
fn who_finds_no_consumer_is_in_the_access_log_with_what_he_said_of_himself() {
    let cases = [
        ("GET / HTTP/1.1", "host: x\r\n", &b""[..], 503),
        ("POST / HTTP/1.1", CHUNKED, b"", 503),
        (
            "POST / HTTP/1.1",
            "host: x\r\ncontent-length: 2000000000\r\n",
            b"",
            413,
        ),
        ("POST / HTTP/1.1", CHUNKED, b"no chunk\r\n", 400),
    ];
    let config = EngineConfig {
        queue_size: 0,
        ..EngineConfig::default()
    };
    let routes = Routes {
        pool: true,
        ..Routes::default()
    };
    compare(config, routes, &cases);
}

#[test]
fn a_connection_is_idle_after_a_refusal_of_a_request_without_a_body() {
    let mut config = EngineConfig::default();
    config.timeouts.keep_alive = Duration::from_millis(1);
    config.timeouts.request_body = Duration::from_secs(3600);
    let routed = || {
        let mut routes = Routes::default();
        let answers = |_: &Request<'_>, _: &mut Response| Step::Done;
        routes.inline.insert("GET", "/", Arc::new(answers)).unwrap();
        routes
    };
    for routes in [Routes::default(), routed()] {
        let (engine, address) = start(config.clone(), routes, None);
        let mut client = TcpStream::connect(address).unwrap();
        client
            .write_all(b"GET /none HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains("connection: close"));
        engine.stop();
    }
}
