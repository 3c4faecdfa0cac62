//! What an answer by token looks like on the wire.

use super::*;

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
fn an_old_client_reads_a_stream_to_the_end_of_its_connection() {
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask("GET /later/x HTTP/1.0\r\n\r\n");
    waiting.token.write(b"one, ").unwrap();
    waiting.token.answer(b"two").unwrap();
    let expected = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none, two";
    assert_eq!(rest(stream), (expected.to_owned(), Ok(())));
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
