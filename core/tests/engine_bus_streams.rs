//! Raw connections that consumers serve, from socket to socket through the rings.
#![forbid(unsafe_code)]

mod hostile;
mod support;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use toolb_core::bus::{Kind, flags::*};
use toolb_core::config::{EngineConfig, Timeouts};
use toolb_core::consumer::{Consumer, ConsumerOptions, ExchangeId, RespondError, Sent};
use toolb_core::engine::{ControlEvent, Snapshot};
use toolb_core::message::Request;
use toolb_core::sys::socket::Socket;

use hostile::{Peer, by_file, plain, until};
use support::{Echo, Handle, Server, Worker, dial, read_response};

/// Answers requests as `Echo` does, and echoes streams at the pace at which they are read.
struct Streams {
    requests: Echo,
    /// By stream: bytes that are not taken as read before their echo has found room.
    held: HashMap<ExchangeId, usize>,
    events: Sender<String>,
}

impl Streams {
    fn new() -> (Self, Receiver<String>) {
        let (events, told) = channel();
        let streams = Self {
            requests: Echo::default(),
            held: HashMap::new(),
            events,
        };
        (streams, told)
    }

    fn tell(&self, event: &str) {
        // The test may be over.
        let _ = self.events.send(event.to_owned());
    }
}

impl Handle for Streams {
    fn request(&mut self, consumer: &mut Consumer, id: ExchangeId, request: Request, more: bool) {
        if !request.is_stream() {
            return self.requests.request(consumer, id, request, more);
        }
        assert!(more && request.method().is_empty() && request.field_count() == 0);
        let (peer, server) = (request.peer().unwrap(), request.server());
        assert_eq!((peer.0, server.0), (&b"127.0.0.1"[..], &b"127.0.0.1"[..]));
        let head = consumer.respond_head(id, 200, -1, std::iter::empty(), b"", false, false);
        assert_eq!(head, Err(RespondError::HeadAlreadySent));
        self.held.insert(id, 0);
        self.tell("open");
    }

    fn body(&mut self, consumer: &mut Consumer, id: ExchangeId, data: Vec<u8>, end: bool) {
        let Some(held) = self.held.get_mut(&id) else {
            return self.requests.body(consumer, id, data, end);
        };
        match &data[..] {
            b"abort" => return consumer.abort(id),
            b"close" => {
                consumer.respond_body(id, b"bye", true, true).unwrap();
                return;
            }
            _ => {}
        }
        *held += data.len();
        // Never more than the window, whatever the client sends.
        assert!(*held <= 64 * 1024);
        if consumer.respond_body(id, &data, end, end) == Ok(Sent::Below) && !end {
            consumer.consumed(id, std::mem::take(held));
        }
        if end {
            self.held.remove(&id);
            self.tell("end");
        }
    }

    fn writable(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        match self.held.get_mut(&id) {
            Some(held) => consumer.consumed(id, std::mem::take(held)),
            None => self.requests.writable(consumer, id),
        }
    }

    fn disconnected(&mut self, consumer: &mut Consumer, id: ExchangeId) {
        if self.held.remove(&id).is_some() {
            self.tell("gone");
        }
        consumer.done(id);
    }
}

fn config() -> EngineConfig {
    EngineConfig {
        loops: Some(2),
        ..EngineConfig::default()
    }
}

fn attach(server: &Server) -> (Worker, Receiver<String>) {
    let (handler, told) = Streams::new();
    let options = ConsumerOptions {
        streams: 100,
        ..ConsumerOptions::default()
    };
    (server.attach(options, handler), told)
}

fn ping(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; 4];
    stream.write_all(b"ping")?;
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

#[test]
fn streams_and_requests_are_served_by_one_consumer() {
    let (server, raw) = Server::with_streams(config());
    let (mut worker, told) = attach(&server);
    let mut streams: Vec<_> = (0..20).map(|_| dial(&raw)).collect();
    for stream in &mut streams {
        ping(stream).unwrap();
        ping(stream).unwrap();
    }
    let mut web = server.connect();
    web.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert_eq!(read_response(&mut web), (200, b"GET /x? ".into()));
    for mut stream in streams {
        // The echo of what came last comes before the end.
        stream.write_all(b"last").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"last");
    }
    let told: Vec<_> = (0..40).map(|_| told.recv().unwrap()).collect();
    assert_eq!(told.iter().filter(|event| *event == "end").count(), 20);
    let stats = server.engine.stats();
    assert_eq!((stats.responses_2xx, stats.responses_5xx), (1, 0));
    worker.kill(&server.engine);
}

#[test]
fn large_streams_flow_both_ways_under_their_windows() {
    const TOTAL: usize = 6 << 20;
    let (server, raw) = Server::with_streams(config());
    let (mut worker, _told) = attach(&server);
    let mut stream = dial(&raw);
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let bytes: Vec<_> = (0..TOTAL).map(|at| (at / 3) as u8).collect();
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        bytes
    });
    // Nothing is read before the windows are used up: then the other side has to wait.
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).unwrap();
    assert!(echoed == sender.join().unwrap());
    worker.kill(&server.engine);
}

#[test]
fn each_side_may_end_a_stream_and_the_other_is_told() {
    let (server, raw) = Server::with_streams(EngineConfig {
        timeouts: Timeouts {
            send_idle: Duration::from_millis(50),
            ..Timeouts::default()
        },
        ..config()
    });
    let (mut worker, told) = attach(&server);
    let mut rest = Vec::new();

    let mut stream = dial(&raw);
    stream.write_all(b"close").unwrap();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    assert_eq!(told.recv().unwrap(), "open");

    let mut stream = dial(&raw);
    stream.write_all(b"abort").unwrap();
    let error = stream.read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(told.recv().unwrap(), "open");

    let (socket, _) = Socket::connect_tcp(raw.parse().unwrap()).unwrap();
    assert_eq!(told.recv().unwrap(), "open");
    socket.reset_on_close();
    drop(socket);
    assert_eq!(told.recv().unwrap(), "gone");

    // One that sends and does not read is cut off.
    let mut stream = dial(&raw);
    assert_eq!(told.recv().unwrap(), "open");
    while stream.write_all(&[7; 100_000]).is_ok() {}
    assert_eq!(told.recv().unwrap(), "gone");
    worker.kill(&server.engine);
}

#[test]
fn streams_beyond_the_limit_and_those_of_a_dead_consumer_are_reset() {
    let (server, raw) = Server::with_streams(EngineConfig {
        limit_streams: 2,
        ..config()
    });
    let (mut worker, _told) = attach(&server);
    let mut streams = [dial(&raw), dial(&raw)];
    streams.iter_mut().for_each(|stream| ping(stream).unwrap());
    assert!(ping(&mut dial(&raw)).is_err());
    drop(streams);
    // Their places come free when the loops have seen that they have gone.
    let mut stream = loop {
        let mut stream = dial(&raw);
        if ping(&mut stream).is_ok() {
            break stream;
        }
    };
    worker.kill(&server.engine);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // One that comes now waits for another consumer.
    let mut stream = dial(&raw);
    let (mut other, told) = attach(&server);
    ping(&mut stream).unwrap();
    assert_eq!(told.recv().unwrap(), "open");
    other.kill(&server.engine);
}

#[test]
fn streams_go_to_consumers_that_take_them_and_requests_to_all() {
    let (server, raw) = Server::with_streams(EngineConfig {
        loops: Some(1),
        ..config()
    });
    // Only this one is there, and takes no streams: one that comes has to wait.
    let (handler, plain) = Streams::new();
    let mut first = server.attach(ConsumerOptions::default(), handler);
    let mut stream = dial(&raw);
    stream.write_all(b"ping").unwrap();
    let mut web = server.connect();
    let mut ask = |path: &str| {
        write!(web, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        assert_eq!(read_response(&mut web).0, 200);
    };
    ask("/while-it-waits");
    let (handler, told) = Streams::new();
    let options = ConsumerOptions {
        streams: 2,
        ..ConsumerOptions::default()
    };
    let mut second = server.attach(options, handler);
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    let mut another = dial(&raw);
    ping(&mut another).unwrap();
    // It takes no more, though it has slots; requests go on, and the next stream when one ends.
    let mut third = dial(&raw);
    third.write_all(b"ping").unwrap();
    (0..50).for_each(|_| ask("/full"));
    third.set_nonblocking(true).unwrap();
    let early = third.read(&mut answer).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    third.set_nonblocking(false).unwrap();
    drop(stream);
    third.read_exact(&mut answer).unwrap();
    assert_eq!(
        told.iter().take(4).filter(|event| event == "open").count(),
        3
    );
    assert_eq!(plain.try_iter().count(), 0);
    first.kill(&server.engine);
    second.kill(&server.engine);
}

#[test]
fn a_drain_waits_for_streams() {
    let (server, raw) = Server::with_streams(config());
    let (mut worker, _told) = attach(&server);
    let mut stream = dial(&raw);
    ping(&mut stream).unwrap();
    server.engine.drain();
    ping(&mut stream).unwrap();
    drop(stream);
    server.engine.control_events().wait(None).unwrap();
    assert_eq!(server.engine.next_control_event(), Some(ControlEvent::Idle));
    worker.kill(&server.engine);
}

#[test]
fn a_client_that_leaves_without_a_word_does_not_wait_for_a_consumer() {
    let waits_for_ever = EngineConfig {
        loops: Some(1),
        queue_timeout: Duration::from_secs(3600),
        ..EngineConfig::default()
    };
    let (server, raw) = Server::with_streams(waits_for_ever);
    let wait_until = |has_come: &dyn Fn(&Snapshot) -> bool| {
        while !has_come(&server.engine.stats()) {
            std::thread::yield_now();
        }
    };
    drop(dial(&raw));
    wait_until(&|stats| stats.closed == 1);
    // It may as well leave while it waits in front of one that has not begun it.
    let peer = Peer::with_time(&server, 1);
    let early = dial(&raw);
    let mut talker = dial(&raw);
    talker.write_all(b"ping").unwrap();
    talker.shutdown(Shutdown::Write).unwrap();
    wait_until(&|_| server.engine.waiting() == 1);
    drop(early);
    server.engine.lane_down(&peer.handle);
    wait_until(&|stats| stats.closed == 2);
    // This one has said something, and may wait for the answer.
    let (mut worker, told) = attach(&server);
    let mut answer = Vec::new();
    talker.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"ping");
    assert_eq!(told.recv().unwrap(), "open");
    assert_eq!(told.recv().unwrap(), "end");
    worker.kill(&server.engine);
    drop(dial(&raw));
    server.engine.drain();
    until(&server, |event| match event {
        ControlEvent::Idle => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
}

#[test]
fn what_waits_for_a_consumer_that_will_not_come_is_answered() {
    let (server, raw) = Server::with_streams(EngineConfig {
        queue_timeout: Duration::from_secs(3600),
        ..config()
    });
    let mut stream = dial(&raw);
    stream.write_all(b"ping").unwrap();
    let ask = |web: &mut TcpStream| web.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let (mut early, mut late) = (server.connect(), server.connect());
    ask(&mut early);
    while server.engine.waiting() != 2 {
        std::thread::yield_now();
    }
    server.engine.forgo_consumers();
    assert_eq!(read_response(&mut early).0, 503);
    ask(&mut late);
    assert_eq!(read_response(&mut late).0, 503);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    server.engine.drain();
    until(&server, |event| match event {
        ControlEvent::Idle => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
}

#[test]
fn a_consumer_that_mistakes_streams_loses_its_lane_and_no_other_connection() {
    let large = [b'x'; 60_000];
    // What it says, and which rule that breaks.
    type Record<'a> = (Kind, u8, &'a [u8]);
    let cases: [(&[Record<'_>], &str); 5] = [
        (&[(Kind::ResponseHead, 0, &plain(b"hello"))], "on a stream"),
        (&[(Kind::ResponseBody, 0, b"hello")], "without a head"),
        (
            &[(Kind::ResponseFile, END | DONE, &by_file(0, 1))],
            "second response head",
        ),
        (
            &[
                (Kind::Data, 0, &large),
                (Kind::Data, 0, &large),
                (Kind::Data, 0, &large),
            ],
            "window",
        ),
        (
            &[(Kind::Data, END, b"all"), (Kind::Data, 0, b"more")],
            "after its end",
        ),
    ];
    for (records, rule) in cases {
        let (server, raw) = Server::with_streams(EngineConfig {
            loops: Some(1),
            ..config()
        });
        let mut peer = Peer::attach(&server);
        let mut stream = dial(&raw);
        let (it, _) = peer.next(Kind::Open);
        assert!(peer.start(it));
        for (kind, flags, payload) in records {
            peer.write(it, *kind as u8, *flags, payload);
        }
        peer.publish();
        let reason = until(&server, |event| match event {
            ControlEvent::Poisoned { reason, .. } => ControlFlow::Break(reason),
            _ => ControlFlow::Continue(()),
        });
        assert!(reason.contains(rule), "{reason}");
        let (mut worker, _told) = attach(&server);
        ping(&mut dial(&raw)).unwrap();
        let _ = stream.write_all(b"x");
        worker.kill(&server.engine);
    }
}
