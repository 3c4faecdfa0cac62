//! Bounds: readers that are slower than writers.

use super::*;

/// The body that came in chunks.
fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole += &rest[..size];
        body = &rest[size + 2..];
    }
}

/// A slow reader holds the writer up, and in the end has everything.
fn slow_reader(blocking: bool) {
    const PART: usize = 16 * 1024;
    const PARTS: usize = 1000;
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    let (room, has_room) = channel();
    let thread = waiting.thread;
    let on_writable = move |_: Option<&mut Context<'_>>| {
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
    let mut sizes = [0; 26];
    for byte in dechunked(body).bytes() {
        sizes[usize::from(byte - b'a')] += 1;
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
fn a_token_may_be_used_by_several_threads() {
    fn shared<T: Send + Sync>(value: T) -> T {
        value
    }
    let server = Server::start(|_| ());
    let (stream, waiting) = server.ask(&last("x"));
    let token = Arc::new(shared(waiting.token));
    let writers: Vec<_> = [b"a", b"b", b"c"]
        .into_iter()
        .map(|byte| {
            let token = token.clone();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    while token.write(byte).is_err() {
                        wait(&token).unwrap();
                    }
                }
            })
        })
        .collect();
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
    Arc::into_inner(token).unwrap().end().unwrap();
    let answer = rest(stream).0;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    // How they are cut into chunks depends on when the loop came to look.
    let sent = dechunked(body);
    for byte in ['a', 'b', 'c'] {
        assert_eq!(sent.matches(byte).count(), 1000);
    }
}
