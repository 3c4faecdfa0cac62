//! Answers by token, from other threads, behind real sockets.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use toolb_core::config::EngineConfig;
use toolb_core::engine::{
    Context, ControlEvent, Engine, Handler, Listen, Request, Response, Routes, Step, Token,
    WithContext, WriteError,
};

/// A request that waits for its answer.
struct Waiting {
    token: Token,
    body: Vec<u8>,
    /// The thread of its loop.
    thread: ThreadId,
}

/// Tells of a cancel: the path, and the thread it was told on.
type Cancels = Receiver<(String, ThreadId)>;

struct Server {
    engine: Engine,
    address: String,
    waiting: Receiver<Waiting>,
    cancels: Cancels,
}

impl Server {
    fn start(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let (tokens, waiting) = channel();
        let (cancels, cancelled) = channel();
        let mut routes = Routes::default();
        let later = later(tokens, cancels);
        for method in ["GET", "POST"] {
            let pattern = "/later/{*what}";
            routes
                .inline
                .insert(method, pattern, later.clone())
                .unwrap();
        }
        let plain = |_: &Request<'_>, response: &mut Response| {
            response.write(b"plain");
            Step::Done
        };
        routes
            .inline
            .insert("GET", "/plain", Arc::new(plain))
            .unwrap();
        let (engine, address) = start(routes, change);
        Self {
            engine,
            address,
            waiting,
            cancels: cancelled,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }

    /// Sends a request, and gives the connection and the token.
    fn ask(&self, request: &str) -> (TcpStream, Waiting) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        (stream, self.waiting.recv().unwrap())
    }
}

fn start(routes: Routes, change: impl FnOnce(&mut EngineConfig)) -> (Engine, String) {
    let listen = Listen::Tcp {
        host: "127.0.0.1".into(),
        port: 0,
    };
    let mut config = EngineConfig {
        loops: Some(2),
        date_header: false,
        server_header: None,
        ..EngineConfig::default()
    };
    change(&mut config);
    let mut engine = Engine::bind(config, routes, &[listen]).unwrap();
    engine.start().unwrap();
    let address = engine.addresses()[0].replace("http://", "");
    (engine, address)
}

/// Hands the tokens of its requests over.
fn later(tokens: Sender<Waiting>, cancels: Sender<(String, ThreadId)>) -> Arc<dyn Handler> {
    Arc::new(move |request: &Request<'_>, response: &mut Response| {
        let path = String::from_utf8(request.path().to_vec()).unwrap();
        if path == "/later/begun" {
            response.status(202);
            response.field(b"x-begun", b"here");
            response.write(b"begun, ");
        }
        let token = response.later();
        response.write(b"lost");
        let cancels = cancels.clone();
        let on_cancel = move |_: &mut Context<'_>| {
            cancels.send((path, std::thread::current().id())).unwrap();
        };
        token.on_cancel(on_cancel).unwrap();
        let waiting = Waiting {
            token,
            body: request.body().to_vec(),
            thread: std::thread::current().id(),
        };
        tokens.send(waiting).unwrap();
        Step::Later
    })
}

fn get(what: &str) -> String {
    format!("GET /later/{what} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn last(what: &str) -> String {
    format!("GET /later/{what} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// All that comes until the connection ends, and how it ends.
fn rest(mut stream: TcpStream) -> (String, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    let end = end.map(|_| ()).map_err(|error| error.kind());
    (String::from_utf8(bytes).unwrap(), end)
}

#[test]
fn an_answer_comes_from_another_thread() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    waiting.token.status(201).unwrap();
    waiting.token.field(b"x-a", b"b").unwrap();
    let thread = std::thread::spawn(move || waiting.token.answer(b"at last"));
    assert_eq!(thread.join().unwrap(), Ok(()));
    let expected =
        "HTTP/1.1 201 Created\r\nx-a: b\r\ncontent-length: 7\r\nconnection: close\r\n\r\nat last";
    assert_eq!(rest(stream), (expected.to_owned(), Ok(())));
    assert_eq!(server.engine.stats().responses_2xx, 1);
}

#[test]
fn what_the_handler_began_the_token_goes_on_with() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("begun"));
    waiting.token.answer(b"ended").unwrap();
    let expected = "HTTP/1.1 202 Accepted\r\nx-begun: here\r\ncontent-length: 12\r\nconnection: close\r\n\r\nbegun, ended";
    assert_eq!(rest(stream).0, expected);
}

#[test]
fn a_streamed_answer_is_chunked_unless_its_length_is_told() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    waiting.token.write(b"").unwrap();
    let mut stream = expect(
        stream,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(waiting.token.status(500), Err(WriteError::Begun));
    waiting.token.write(b"one").unwrap();
    stream = expect(stream, "3\r\none\r\n");
    waiting.token.end().unwrap();
    assert_eq!(rest(stream).0, "0\r\n\r\n");

    let (stream, waiting) = server.ask(&last("x"));
    waiting.token.field(b"content-length", b"6").unwrap();
    waiting.token.write(b"one").unwrap();
    let stream = expect(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\none",
    );
    waiting.token.answer(b"two").unwrap();
    assert_eq!(rest(stream), ("two".to_owned(), Ok(())));
}

/// Reads exactly `text`.
fn expect(mut stream: TcpStream, text: &str) -> TcpStream {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
    stream
}

#[test]
fn an_answer_without_a_body_has_none_on_the_wire() {
    let server = Server::start(|_| ());
    let head = last("x").replace("GET", "HEAD");
    let (stream, waiting) = server.ask(&head);
    waiting.token.answer(b"twelve bytes").unwrap();
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\n";
    assert_eq!(rest(stream), (expected.to_owned(), Ok(())));

    // Nothing of it goes to the client, so it never fills the window.
    let (stream, waiting) = server.ask(&head);
    for _ in 0..100 {
        assert_eq!(
            waiting
                .token
                .write(&[b'x'; 10_000])
                .or_else(|_| wait(&waiting.token)),
            Ok(())
        );
    }
    waiting.token.end().unwrap();
    assert_eq!(
        rest(stream).0,
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    );

    let (stream, waiting) = server.ask(&last("x"));
    waiting.token.status(204).unwrap();
    waiting.token.answer(b"nothing to see").unwrap();
    assert_eq!(
        rest(stream).0,
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
    );
}

fn wait(token: &Token) -> Result<(), WriteError> {
    token.wait_writable(None).map(|room| assert!(room))
}

#[test]
fn a_body_that_disagrees_with_its_length_ends_the_connection() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&get("long"));
    waiting.token.field(b"content-length", b"3").unwrap();
    waiting.token.answer(b"three and more").unwrap();
    assert_eq!(
        rest(stream),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nthr".to_owned(),
            Ok(())
        )
    );

    // While it goes on writing it learns that nobody listens any more.
    let (stream, waiting) = server.ask(&get("long"));
    waiting.token.field(b"content-length", b"3").unwrap();
    waiting.token.write(b"three and more").unwrap();
    assert_eq!(server.cancels.recv().unwrap().0, "/later/long");
    assert_eq!(waiting.token.write(b"and more"), Err(WriteError::Gone));
    assert!(rest(stream).0.ends_with("\r\n\r\nthr"));

    let (stream, waiting) = server.ask(&get("short"));
    waiting.token.field(b"content-length", b"30").unwrap();
    waiting.token.answer(b"three").unwrap();
    let (_, end) = rest(stream);
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_head_that_cannot_be_sent_is_a_500() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    waiting.token.field(b"a b", b"c\r\nd").unwrap();
    waiting.token.write(b"x").unwrap();
    assert!(rest(stream).0.starts_with("HTTP/1.1 500 "));
    assert_eq!(server.cancels.recv().unwrap().0, "/later/x");
    assert_eq!(waiting.token.end(), Err(WriteError::Gone));
}

#[test]
fn requests_behind_a_token_wait_for_it() {
    let server = Server::start(|_| ());
    let mut stream = server.connect();
    let plain = "GET /plain HTTP/1.1\r\nhost: x\r\n\r\n";
    let requests = format!("{}{plain}{}{plain}{}", get("1"), get("2"), last("3"));
    stream.write_all(requests.as_bytes()).unwrap();
    let mut expected = String::new();
    for number in 1..=3 {
        let waiting = server.waiting.recv().unwrap();
        assert!(server.waiting.try_recv().is_err(), "one at a time");
        let body = format!("answer {number}");
        waiting.token.answer(body.as_bytes()).unwrap();
        let close = if number == 3 {
            "connection: close\r\n"
        } else {
            ""
        };
        expected += &format!("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n{close}\r\n{body}");
        if number < 3 {
            expected += "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain";
        }
    }
    assert_eq!(rest(stream), (expected, Ok(())));
}

#[test]
fn a_handler_with_a_body_answers_later_too() {
    let server = Server::start(|_| ());
    let body = "0123456789".repeat(50_000);
    let mut stream = server.connect();
    let head = format!(
        "POST /later/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let waiting = server.waiting.recv().unwrap();
    assert!(waiting.body == body.as_bytes());
    // The whole body at once, though it is larger than the window.
    waiting.token.answer(&waiting.body).unwrap();
    assert!(rest(stream).0.ends_with(&body));
}

#[test]
fn a_client_that_leaves_is_told_of_once_and_on_the_loop() {
    let server = Server::start(|_| ());
    for begun in [false, true] {
        let (stream, waiting) = server.ask(&get("x"));
        if begun {
            waiting.token.write(b"some").unwrap();
        }
        drop(stream);
        assert_eq!(
            server.cancels.recv().unwrap(),
            ("/later/x".to_owned(), waiting.thread)
        );
        assert_eq!(waiting.token.write(b"late"), Err(WriteError::Gone));
        assert_eq!(waiting.token.wait_writable(None), Err(WriteError::Gone));
        assert_eq!(
            waiting.token.on_cancel(|_| panic!("told twice")),
            Err(WriteError::Gone)
        );
        assert_eq!(waiting.token.end(), Err(WriteError::Gone));
    }
    assert!(server.cancels.try_recv().is_err());
}

#[test]
fn an_answer_that_takes_too_long_is_a_504() {
    let server = Server::start(|config| config.timeouts.response = Duration::from_millis(20));
    let mut stream = server.connect();
    let plain = "GET /plain HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let requests = format!("{}{plain}", get("slow"));
    stream.write_all(requests.as_bytes()).unwrap();
    let slow = server.waiting.recv().unwrap();
    let told = server.cancels.recv().unwrap();
    assert_eq!(told, ("/later/slow".to_owned(), slow.thread));
    assert_eq!(slow.token.answer(b"late"), Err(WriteError::Gone));
    // Its connection goes on.
    let answer = rest(stream).0;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nplain"), "{answer}");
    assert_eq!(server.engine.stats().timed_out, 1);
}

#[test]
fn the_deadline_is_for_the_head_only() {
    let server = Server::start(|config| config.timeouts.response = Duration::from_millis(50));
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\nconnection: close\r\n\r\n";
    loop {
        let (mut stream, begun) = server.ask(&last("x"));
        let length = begun.token.field(b"content-length", b"13");
        if length.and_then(|()| begun.token.write(b"begun, ")).is_err() {
            continue;
        }
        let mut bytes = vec![0; head.len()];
        stream.read_exact(&mut bytes).unwrap();
        if bytes != head.as_bytes() {
            // The machine stood still for so long that the time was over.
            continue;
        }
        // Another that came later is overdue, so this one has been for long.
        let (other, waiting) = server.ask(&last("y"));
        assert!(rest(other).0.starts_with("HTTP/1.1 504 "));
        drop(waiting);
        begun.token.answer(b"ended\n").unwrap();
        assert_eq!(rest(stream), ("begun, ended\n".to_owned(), Ok(())));
        return;
    }
}

#[test]
fn a_stop_tells_whoever_still_holds_a_token() {
    let mut server = Server::start(|_| ());
    let (_stream, waiting) = server.ask(&get("x"));
    let (_stream_too, other) = server.ask(&get("y"));
    server.engine.stop();
    // Told on their loops, and before the stop was over; the loops end in any order.
    let mut told: Vec<_> = server.cancels.try_iter().collect();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("/later/x", waiting.thread), ("/later/y", other.thread)];
    assert_eq!(
        told,
        expected.map(|(path, thread)| (path.to_owned(), thread))
    );
    assert_eq!(waiting.token.write(b"late"), Err(WriteError::Gone));
    drop(server);
    assert_eq!(waiting.token.answer(b"later still"), Err(WriteError::Gone));
    drop(other);
}

#[test]
fn a_drain_waits_for_tokens() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&get("x"));
    server.engine.drain();
    waiting.token.answer(b"still served").unwrap();
    let expected = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\nstill served";
    assert_eq!(rest(stream), (expected.to_owned(), Ok(())));
    server.engine.control_events().wait(None).unwrap();
    assert_eq!(server.engine.next_control_event(), Some(ControlEvent::Idle));
    assert!(server.cancels.try_recv().is_err());
}

#[test]
fn an_abort_is_a_500_or_a_reset() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    waiting.token.abort().unwrap();
    let (answer, end) = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert_eq!(end, Ok(()));

    let (stream, waiting) = server.ask(&last("x"));
    drop(waiting.token);
    assert!(rest(stream).0.starts_with("HTTP/1.1 500 "));

    let (stream, waiting) = server.ask(&last("x"));
    waiting.token.write(b"half").unwrap();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let stream = expect(stream, head);
    drop(waiting.token);
    let (_, end) = rest(stream);
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert!(
        server.cancels.try_recv().is_err(),
        "whoever ends a token is not told"
    );
}

/// A slow reader holds the writer up, and in the end has everything.
fn slow_reader(blocking: bool) {
    const PART: usize = 16 * 1024;
    const PARTS: usize = 1000;
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    let (room, has_room) = channel();
    let thread = waiting.thread;
    let on_writable = move |_: &mut Context<'_>| {
        assert_eq!(std::thread::current().id(), thread);
        // The writer may have ended meanwhile.
        let _ = room.send(());
    };
    waiting.token.on_writable(on_writable).unwrap();
    let (full, is_full) = channel();
    let writer = std::thread::spawn(move || {
        let mut refused = 0;
        for number in 0..PARTS {
            let part = [b'a' + (number % 26) as u8; PART];
            while let Err(error) = waiting.token.write(&part) {
                assert_eq!(error, WriteError::Full);
                refused += 1;
                if refused == 1 {
                    full.send(()).unwrap();
                }
                match blocking {
                    true => wait(&waiting.token).unwrap(),
                    false => has_room.recv().unwrap(),
                }
            }
        }
        waiting.token.end().unwrap();
    });
    // Nothing is read before the writer has come to a halt.
    is_full.recv().unwrap();
    let (answer, end) = rest(stream);
    assert_eq!(end, Ok(()));
    writer.join().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut sizes: Vec<usize> = vec![0; 26];
    let mut left = body;
    loop {
        let (size, tail) = left.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        for byte in tail.as_bytes()[..size].iter() {
            sizes[usize::from(byte - b'a')] += 1;
        }
        left = &tail[size + 2..];
    }
    assert_eq!(sizes.iter().sum::<usize>(), PART * PARTS);
    assert_eq!(sizes[0], PART * PARTS.div_ceil(26));
}

#[test]
fn a_slow_reader_holds_a_writer_that_waits() {
    slow_reader(true);
}

#[test]
fn a_slow_reader_holds_a_writer_that_is_called() {
    slow_reader(false);
}

#[test]
fn a_token_and_what_the_handler_returns_must_agree() {
    let mut routes = Routes::default();
    let none = |_: &Request<'_>, _: &mut Response| Step::Later;
    routes
        .inline
        .insert("GET", "/none", Arc::new(none))
        .unwrap();
    let (cancels, cancelled) = channel();
    let kept = Mutex::new(Vec::new());
    let unsaid = move |_: &Request<'_>, response: &mut Response| {
        assert!(response.can_answer_later());
        let token = response.later();
        assert!(!response.can_answer_later());
        let cancels = cancels.clone();
        token.on_cancel(move |_| cancels.send(()).unwrap()).unwrap();
        // A second one is good for nothing.
        assert_eq!(response.later().end(), Err(WriteError::Gone));
        kept.lock().unwrap().push(token);
        Step::Done
    };
    routes
        .inline
        .insert("GET", "/unsaid", Arc::new(unsaid))
        .unwrap();
    let (_engine, address) = start(routes, |_| ());
    for path in ["/none", "/unsaid"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        assert!(rest(stream).0.starts_with("HTTP/1.1 500 "));
    }
    cancelled.recv().unwrap();
}

#[test]
fn a_token_can_be_answered_by_a_timer_of_its_loop() {
    let mut routes = Routes::default();
    let handler = WithContext(
        |context: &mut Context<'_>, _: &Request<'_>, response: &mut Response| {
            let token = response.later();
            context.timer(Duration::from_millis(1), move |context| {
                let text = format!("from loop {}", context.loop_index());
                token.answer(text.as_bytes()).unwrap();
            });
            Step::Later
        },
    );
    routes.inline.insert("GET", "/", Arc::new(handler)).unwrap();
    let (_engine, address) = start(routes, |config| config.loops = Some(1));
    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    assert!(rest(stream).0.ends_with("\r\n\r\nfrom loop 0"));
}

#[test]
fn clients_that_leave_race_with_answers_and_nobody_is_forgotten() {
    const CLIENTS: usize = 400;
    let server = Server::start(|_| ());
    let waiting = Arc::new(Mutex::new(server.waiting));
    let answered = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (waiting, answered) = (waiting.clone(), answered.clone());
            std::thread::spawn(move || {
                loop {
                    let next = waiting.lock().unwrap().recv();
                    let Ok(waiting) = next else {
                        return;
                    };
                    if waiting.token.answer(b"x").is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for number in 0..CLIENTS {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(last("x").as_bytes()).unwrap();
        match number % 2 {
            0 => drop(stream),
            _ => assert!(rest(stream).0.ends_with("\r\n\r\nx")),
        }
    }
    let mut engine = server.engine;
    engine.drain();
    engine.control_events().wait(None).unwrap();
    engine.stop();
    // With the engine go its handlers, and with them the senders of tokens.
    drop(engine);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    // A client may have left before its request was read; whoever came to a handler is accounted
    // for: by an answer that was taken or by a cancel, never by both.
    let cancelled = server.cancels.iter().count();
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered >= CLIENTS / 2);
    assert!(answered + cancelled <= CLIENTS, "{answered} + {cancelled}");
}

#[test]
fn a_handler_keeps_a_state_on_each_loop() {
    struct Counting(Sender<(u16, &'static str, ThreadId)>);
    struct Count {
        served: Cell<u32>,
        loop_index: u16,
        thread: ThreadId,
        events: Sender<(u16, &'static str, ThreadId)>,
    }
    impl Handler for Counting {
        fn handle(
            &self,
            context: &mut Context<'_>,
            request: &Request<'_>,
            response: &mut Response,
        ) -> Step {
            let count = request.state::<Count>().unwrap();
            assert!(request.state::<u32>().is_none());
            assert_eq!(count.thread, std::thread::current().id());
            assert_eq!(count.loop_index, context.loop_index());
            count.served.set(count.served.get() + 1);
            response.write(format!("{}:{}", count.loop_index, count.served.get()).as_bytes());
            Step::Done
        }

        fn make_state(&self, context: &mut Context<'_>) -> Option<Box<dyn Any>> {
            let loop_index = context.loop_index();
            let thread = std::thread::current().id();
            self.0.send((loop_index, "made", thread)).unwrap();
            Some(Box::new(Count {
                served: Cell::new(0),
                loop_index,
                thread,
                events: self.0.clone(),
            }))
        }
    }
    impl Drop for Count {
        fn drop(&mut self) {
            let thread = std::thread::current().id();
            self.events
                .send((self.loop_index, "dropped", thread))
                .unwrap();
        }
    }
    let (events, told) = channel();
    let handler = Arc::new(Counting(events));
    let mut routes = Routes::default();
    // Two routes of one handler share its state.
    routes.inline.insert("GET", "/a", handler.clone()).unwrap();
    routes.inline.insert("GET", "/b", handler).unwrap();
    let (mut engine, address) = start(routes, |_| ());
    let mut served = [0; 2];
    for number in 0..20 {
        let path = if number % 2 == 0 { "a" } else { "b" };
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let answer = rest(stream).0;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let (index, count) = body.split_once(':').unwrap();
        let index: usize = index.parse().unwrap();
        served[index] += 1;
        assert_eq!(count.parse(), Ok(served[index]));
    }
    engine.stop();
    let events: Vec<_> = told.try_iter().collect();
    for index in 0..2 {
        let of_loop: Vec<_> = events.iter().filter(|event| event.0 == index).collect();
        assert_eq!(
            of_loop.iter().map(|event| event.1).collect::<Vec<_>>(),
            ["made", "dropped"]
        );
        assert_eq!(of_loop[0].2, of_loop[1].2);
    }
}
