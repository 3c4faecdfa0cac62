//! Inline handlers behind real sockets.
#![forbid(unsafe_code)]

mod loopback;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use toolb_core::config::EngineConfig;
use toolb_core::engine::{Engine, Handler, Request, Response, Routes, Step};

use loopback::{address_of, any_port};

fn routes() -> Routes {
    let mut routes = Routes::default();
    let mut add = |method, pattern, handler: Arc<dyn Handler>| {
        routes.inline.insert(method, pattern, handler).unwrap();
    };
    add(
        "GET",
        "/",
        Arc::new(|_: &Request<'_>, response: &mut Response| {
            response.write(b"hello");
            Step::Done
        }),
    );
    add(
        "GET",
        "/user/{id}",
        Arc::new(|request: &Request<'_>, response: &mut Response| {
            response.write(request.param("id").unwrap().as_bytes());
            Step::Done
        }),
    );
    add(
        "POST",
        "/echo",
        Arc::new(|request: &Request<'_>, response: &mut Response| {
            response.status(201);
            response.field(b"x-length", request.body().len().to_string().as_bytes());
            response.write(request.body());
            Step::Done
        }),
    );
    add(
        "GET",
        "/close",
        Arc::new(|_: &Request<'_>, response: &mut Response| {
            response.write(b"bye");
            Step::Close
        }),
    );
    routes
}

struct Server {
    engine: Engine,
    address: String,
}

impl Server {
    fn start() -> Self {
        let config = EngineConfig {
            loops: Some(2),
            date_header: false,
            server_header: None,
            ..EngineConfig::default()
        };
        let mut engine = Engine::bind(config, routes(), &[any_port()]).unwrap();
        engine.start().unwrap();
        let address = address_of(&engine);
        Self { engine, address }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    /// Sends `parts` one after the other and reads to the end of the connection.
    fn talk(&self, parts: &[&str]) -> String {
        let mut stream = self.connect();
        for part in parts {
            stream.write_all(part.as_bytes()).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut requests = String::new();
    for id in 0..40 {
        requests += &format!("GET /user/{id} HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    requests += "GET /close HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = server.talk(&[&requests]);
    let mut expected = String::new();
    for id in 0..40 {
        let id = id.to_string();
        expected += &format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{id}",
            id.len()
        );
    }
    expected += "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbye";
    assert_eq!(answer, expected);
}

#[test]
fn who_has_asked_its_last_with_a_body_is_not_waited_for() {
    let server = Server::start();
    let mut stream = server.connect();
    let request =
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nab"), "{answer}");
    // Where nobody reads any more, this is refused, as soon as the kernel has said so.
    let mut refused = (0..1000).map(|_| stream.write_all(b"?").is_err());
    assert!(refused.any(|refused| refused));
}

#[test]
fn what_browsers_send_is_one_request_and_the_next_is_another() {
    let server = Server::start();
    let filler = "x".repeat(340 - "GET /user/7 HTTP/1.1\r\nhost: x\r\ncookie: \r\n\r\n".len());
    let long = format!("GET /user/7 HTTP/1.1\r\nhost: x\r\ncookie: {filler}\r\n\r\n");
    assert_eq!(long.len(), 340);
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n7";
    let mut stream = server.connect();
    for _ in 0..3 {
        stream.write_all(long.as_bytes()).unwrap();
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, expected.as_bytes());
    }
    // 200 bytes of path, too.
    let id = "y".repeat(200);
    let request = format!("GET /user/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(server.talk(&[&request]).ends_with(&id));
}

#[test]
fn who_does_not_read_holds_up_nobody_else() {
    let server = Server::start();
    let body = "z".repeat(1 << 20);
    let request = format!(
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // More than the kernel keeps for a connection, asked for and not read.
    let mut slow: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let senders: Vec<_> = slow
        .iter()
        .map(|stream| {
            let (mut stream, request) = (stream.try_clone().unwrap(), request.clone());
            // Sends as the server reads, and ends when the connection does.
            std::thread::spawn(move || {
                (0..32).all(|_| stream.write_all(request.as_bytes()).is_ok())
            })
        })
        .collect();
    for id in 0..100 {
        let request = format!("GET /user/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert!(server.talk(&[&request]).ends_with(&format!("\r\n\r\n{id}")));
    }
    // What was not read yet is all there.
    let mut first = slow.remove(0);
    let mut answers = vec![0; 32 * body.len()];
    first.read_exact(&mut answers).unwrap();
    for stream in slow {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let sent = senders.into_iter().map(|sender| sender.join().unwrap());
    assert!(sent.take(1).all(|whole| whole));
}

#[test]
fn a_request_in_pieces_is_one_request() {
    let server = Server::start();
    let request = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nx-t: 1\r\n\r\n";
    let expected = "HTTP/1.1 201 Created\r\nx-length: 11\r\ncontent-length: 11\r\nconnection: close\r\n\r\nhello world";
    for at in 1..request.len() {
        let (first, second) = request.split_at(at);
        assert_eq!(server.talk(&[first, second]), expected, "split at {at}");
    }
}

#[test]
fn what_no_route_matches_is_refused() {
    let server = Server::start();
    let with = |line: &str| {
        server.talk(&[&format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )])
    };
    assert!(with("GET /none").starts_with("HTTP/1.1 404 "));
    let refused = with("PUT /user/1");
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert!(refused.contains("\r\nallow: GET, HEAD\r\n"), "{refused}");
    let head = with("HEAD /user/77");
    assert!(
        head.contains("content-length: 2\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[test]
fn what_no_route_matches_is_refused_before_its_body_has_come() {
    let server = Server::start();
    for (line, status) in [("POST /none", "404"), ("POST /user/1", "405")] {
        // The client keeps its body back, and gets its answer all the same.
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n");
        let answer = server.talk(&[&head, "a little"]);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[test]
fn a_malformed_request_is_answered_400_and_closed() {
    let server = Server::start();
    let answer = server.talk(&["GET / HTTP/1.1\nhost: x\n\n"]);
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[test]
fn a_head_request_whose_body_is_malformed_gets_no_body() {
    let server = Server::start();
    let answer =
        server.talk(&["HEAD /user/1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nz"]);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_body_larger_than_every_buffer_arrives_whole() {
    let server = Server::start();
    let body = "0123456789abcdef".repeat(256 * 1024);
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = server.talk(&[&head, &body]);
    let (head, echoed) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains(&format!("x-length: {}", body.len())),
        "{head}"
    );
    assert!(echoed == body);
}

#[test]
fn a_drained_engine_tells_when_it_is_idle() {
    let server = Server::start();
    let mut stream = server.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    server.engine.drain();
    drop(stream);
    server.engine.control_events().wait(None).unwrap();
    let event = server.engine.next_control_event();
    assert_eq!(event, Some(toolb_core::engine::ControlEvent::Idle));
}
