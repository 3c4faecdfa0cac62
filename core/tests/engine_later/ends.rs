//! Ends that are not answers: clients, clocks, stops, mistakes.

use super::*;

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
    let server = Server::start(|_| ());
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
fn what_was_no_request_is_not_one_that_was_cut_off() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    let then = server.engine.stats();
    assert_eq!(then.open(), 1);
    let mut other = server.connect();
    other.write_all(b"CONNECT x:1 HTTP/1.1\r\n").unwrap();
    assert!(rest(other).0.starts_with("HTTP/1.1 501 "));
    waiting.token.answer(b"ended").unwrap();
    assert!(rest(stream).0.ends_with("\r\n\r\nended"));
    assert_eq!(server.engine.stats().cut_since(&then), 0);
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

#[test]
fn a_reader_that_takes_nothing_is_cut_off_and_told_of() {
    let server = Server::start(|config| config.timeouts.send_idle = Duration::from_millis(50));
    let (stream, waiting) = server.ask(&last("x"));
    let error = loop {
        let written = waiting.token.write(&[b'x'; 16 * 1024]);
        if let Err(error) = written.or_else(|_| wait(&waiting.token)) {
            break error;
        }
    };
    assert_eq!(error, WriteError::Gone);
    let told = server.cancels.recv().unwrap();
    assert_eq!(told, ("/later/x".to_owned(), waiting.thread));
    let mut rest = Vec::new();
    let end = (&stream).read_to_end(&mut rest);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_response_away_from_a_loop_cannot_come_later() {
    let mut response = Response::default();
    assert!(!response.can_answer_later());
    assert_eq!(response.later().answer(b"x"), Err(WriteError::Gone));
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
    let engine = server.engine;
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
