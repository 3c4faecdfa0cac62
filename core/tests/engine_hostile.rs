//! A consumer that writes what it likes into its rings: its lane is given up, or the record counts for
//! nothing; its client gets exactly one answer all the same, and the lane beside it does not notice.
#![forbid(unsafe_code)]

mod support;

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use support::http::{Connection, connect, receive};
use support::{Fate, Server, Stuck};
use toolb_core::bus::{self, ConsumerLane, Kind, RecordHeader, flags::*};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::ConsumerOptions;
use toolb_core::engine::{ControlEvent, LaneHandle};
use toolb_core::message::{Request, encode_response_head};

/// Nothing takes this long unless it hangs.
const LOST: Duration = Duration::from_secs(30);
const CLIENTS_PATH: &str = "/c";

/// A consumer by hand.
struct Peer {
    lane: ConsumerLane,
    handle: Arc<LaneHandle>,
}

impl Peer {
    fn attach(server: &Server) -> Self {
        let handle = server.engine.new_lane(16, 16, 16).unwrap();
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let fds = handle.fds().into_iter().map(copy).collect();
        let lane = ConsumerLane::open(fds).unwrap();
        server.engine.lane_up(&handle);
        Self { lane, handle }
    }

    /// The next record of a kind, and what it carries; others are passed over.
    fn next(&mut self, kind: Kind) -> (RecordHeader, Vec<u8>) {
        loop {
            if self.lane.arm() {
                let rung = self.lane.doorbell().wait(Some(LOST)).unwrap();
                assert!(rung, "no {kind:?} comes");
                self.lane.doorbell().drain();
            }
            self.lane.sleeper().disarm();
            let ring = self.lane.ring(0);
            ring.notice.changed();
            ring.requests.refresh().unwrap();
            while let Some(header) = ring.requests.peek().unwrap() {
                let mut payload = Vec::new();
                ring.requests.read(&mut payload);
                ring.requests.release();
                if header.kind == kind as u8 {
                    return (header, payload);
                }
            }
        }
    }

    fn request(&mut self) -> RecordHeader {
        let (header, payload) = self.next(Kind::RequestHead);
        Request::decode(payload).unwrap();
        header
    }

    fn start(&mut self, it: RecordHeader) -> bool {
        self.lane.start(it.slot, it.generation)
    }

    /// Writes a record that the engine does not see yet.
    fn write(&mut self, it: RecordHeader, kind: u8, flags: u8, payload: &[u8]) {
        let header = RecordHeader { kind, flags, ..it };
        assert!(self.lane.ring(0).responses.push(header, &[payload]));
    }

    fn publish(&mut self) {
        let ring = self.lane.ring(0);
        ring.responses.publish();
        bus::fence();
        ring.waker.kick().unwrap();
    }

    /// Writes a record and shows it.
    fn say(&mut self, it: RecordHeader, kind: Kind, flags: u8, payload: &[u8]) {
        self.write(it, kind as u8, flags, payload);
        self.publish();
    }
}

/// The payload of a response's head.
fn head(length: i64, fields: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_response_head(&mut payload, 200, length, fields.iter().copied(), body).unwrap();
    payload
}

fn plain(body: &[u8]) -> Vec<u8> {
    head(body.len() as i64, &[], body)
}

/// What the client got. That nothing else came has been seen to.
#[derive(Debug, Eq, PartialEq)]
enum Got {
    Answer(u16, String),
    /// The answer of the lane beside.
    Elsewhere,
    Cut,
}

/// What the engine is to think of it.
#[derive(Clone, Copy, Debug)]
enum Lane {
    /// It is given up, with these words.
    Poisoned(&'static str),
    /// It goes on.
    Kept,
}

/// A server with two lanes, one of which has taken a request and does not notice what happens; a
/// client whose request is on the other; and what that does with it.
fn act(expected: Lane, misbehave: impl FnOnce(&mut Peer, RecordHeader)) -> Got {
    act_on(expected, "GET /c HTTP/1.1\r\nhost: x\r\n\r\n", misbehave)
}

fn act_on(expected: Lane, request: &str, misbehave: impl FnOnce(&mut Peer, RecordHeader)) -> Got {
    let server = Server::start(EngineConfig::default());
    let (stuck, begun, fate) = Stuck::new();
    let one = ConsumerOptions {
        concurrency: 1,
        ..ConsumerOptions::default()
    };
    let mut beside = server.attach(one, stuck);
    let mut bystander = connect(&server.address);
    ask(&mut bystander, "/stuck");
    begun.recv().unwrap();
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    client.get_mut().write_all(request.as_bytes()).unwrap();
    let it = peer.request();

    misbehave(&mut peer, it);
    let mut poisoned = None;
    if let Lane::Poisoned(_) = expected {
        poisoned = Some(until(&server, |event| match event {
            ControlEvent::Poisoned { lane_id, reason } => {
                assert_eq!(lane_id, peer.handle.lane_id());
                ControlFlow::Break(reason)
            }
            other => panic!("{other:?}"),
        }));
    }
    // As if it had been killed: what it published counts, if it counts at all.
    server.engine.lane_down(&peer.handle);
    until(&server, |event| match event {
        ControlEvent::Released { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
    match (expected, poisoned) {
        (Lane::Poisoned(expected), Some(said)) => assert!(said.contains(expected), "{said}"),
        _ => assert_eq!(server.engine.stats().poisoned, 0),
    }

    fate.send(Fate::Answer).unwrap();
    let got = hear(&mut client);
    assert_eq!(receive(&mut bystander).unwrap().body, b"GET /stuck? ");
    for number in 0..20 {
        ask(&mut bystander, &format!("/{number}"));
        let answer = receive(&mut bystander).unwrap();
        assert_eq!(answer.body, format!("GET /{number}? ").into_bytes());
    }
    beside.kill(&server.engine);
    got
}

fn ask(connection: &mut Connection, path: &str) {
    let stream = connection.get_mut();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
}

fn until<T>(server: &Server, mut look: impl FnMut(ControlEvent) -> ControlFlow<T>) -> T {
    loop {
        server.engine.control_events().drain();
        while let Some(event) = server.engine.next_control_event() {
            if let ControlFlow::Break(found) = look(event) {
                return found;
            }
        }
        let rung = server.engine.control_events().wait(Some(LOST)).unwrap();
        assert!(rung, "the engine does not tell");
    }
}

/// The one outcome of the client's request.
fn hear(client: &mut Connection) -> Got {
    let answer = match receive(client) {
        Ok(answer) => answer,
        Err(cut) if cut.begun => return Got::Cut,
        Err(cut) => panic!("silence: {}", cut.error),
    };
    match answer.closes {
        true => {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"", "more than one answer");
        }
        false => {
            ask(client, "/next");
            match receive(client) {
                Ok(next) => assert_eq!(next.body, b"GET /next? ", "more than one answer"),
                // It was closed after its answer.
                Err(cut) => assert!(!cut.begun, "more than one answer"),
            }
        }
    }
    match String::from_utf8(answer.body).unwrap() {
        body if body.starts_with(&format!("GET {CLIENTS_PATH}?")) => Got::Elsewhere,
        body => Got::Answer(answer.status, body),
    }
}

fn right(body: &str) -> Got {
    Got::Answer(200, body.to_owned())
}

fn died() -> Got {
    Got::Answer(502, "the application's worker died\n".to_owned())
}

fn failed() -> Got {
    Got::Answer(500, "Internal Server Error\n".to_owned())
}

const NOT_CANCELLED: Lane = Lane::Poisoned("nobody called back");
const NOT_IN_FLIGHT: Lane = Lane::Poisoned("not in flight");

// Cancelled.

#[test]
fn cancelled_without_having_been_called_back() {
    let got = act(NOT_CANCELLED, |peer, it| {
        peer.say(it, Kind::Cancelled, DONE, b"");
    });
    assert_eq!(got, Got::Elsewhere);
}

#[test]
fn cancelled_after_its_start() {
    for aux in [0, 1] {
        let got = act(NOT_CANCELLED, |peer, it| {
            assert!(peer.start(it));
            peer.say(RecordHeader { aux, ..it }, Kind::Cancelled, DONE, b"");
        });
        assert_eq!(got, died());
    }
}

#[test]
fn cancelled_in_the_middle_of_its_response() {
    for aux in [0, 1] {
        let got = act(NOT_CANCELLED, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
            peer.say(RecordHeader { aux, ..it }, Kind::Cancelled, DONE, b"");
        });
        assert_eq!(got, Got::Cut);
    }
}

#[test]
fn cancelled_twice() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut leaver = connect(&server.address);
    ask(&mut leaver, "/");
    let it = peer.request();
    drop(leaver);
    while !peer.lane.cancelled(it.slot, it.generation) {
        std::thread::yield_now();
    }
    peer.say(it, Kind::Cancelled, DONE, b"");
    peer.say(it, Kind::Cancelled, DONE, b"");
    until(&server, |event| match event {
        ControlEvent::Poisoned { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
}

/// A server that has called a request back from one lane and had it answered by the other; what the
/// first says to that.
fn act_when_called_back(misbehave: impl FnOnce(&mut Peer, RecordHeader)) {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    ask(&mut client, CLIENTS_PATH);
    let it = peer.request();
    let mut beside = server.attach(ConsumerOptions::default(), support::Echo::default());
    assert_eq!(receive(&mut client).unwrap().body, b"GET /c? ");
    misbehave(&mut peer, it);
    server.engine.lane_down(&peer.handle);
    until(&server, |event| match event {
        ControlEvent::Released { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
    assert_eq!(server.engine.stats().poisoned, 0);
    ask(&mut client, "/next");
    assert_eq!(receive(&mut client).unwrap().body, b"GET /next? ");
    beside.kill(&server.engine);
}

#[test]
fn called_back_and_answered_all_the_same() {
    act_when_called_back(|peer, it| {
        assert!(!peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"too late"));
    });
    act_when_called_back(|peer, it| {
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"too"));
        peer.say(it, Kind::ResponseBody, END, b"late");
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
}

#[test]
fn called_back_and_aborted_or_cancelled_as_if_it_had_run() {
    act_when_called_back(|peer, it| peer.say(it, Kind::ResponseAbort, DONE, b""));
    act_when_called_back(|peer, it| {
        peer.say(RecordHeader { aux: 1, ..it }, Kind::Cancelled, DONE, b"");
    });
}

// The end.

#[test]
fn done_without_an_end() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::Ping, DONE, b"");
    });
    assert_eq!(got, failed());
    let got = act(Lane::Poisoned("without a head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
    assert_eq!(got, died());
}

#[test]
fn done_without_an_end_after_a_head() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, DONE, &head(100, &[], b"some"));
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn an_end_after_done() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, END, b"");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn a_response_after_done() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"again"));
    });
    assert_eq!(got, right("right"));
}

#[test]
fn a_body_after_the_end() {
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, 0, b"more");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn an_end_after_the_end() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseBody, END, b"");
        peer.say(it, Kind::ResponseBody, END | DONE, b"");
    });
    assert_eq!(got, right("right"));
}

#[test]
fn an_end_that_comes_too_soon() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(100, &[], b"some"));
        peer.say(it, Kind::ResponseBody, END | DONE, b"more");
    });
    assert_eq!(got, Got::Cut);
}

// Heads and bodies.

#[test]
fn a_second_head() {
    let got = act(Lane::Poisoned("second response head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"one"));
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"two"));
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn a_body_without_a_head() {
    let got = act(Lane::Poisoned("without a head"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseBody, END | DONE, b"body");
    });
    assert_eq!(got, died());
}

#[test]
fn a_body_longer_than_its_content_length() {
    for flags in [0, END, END | DONE] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, 0, &head(5, &[], b"fi"));
            peer.say(it, Kind::ResponseBody, flags, b"ve and more");
            if flags == 0 {
                peer.say(it, Kind::ResponseBody, END | DONE, b"and more");
            }
        });
        assert_eq!(got, right("five "));
    }
}

#[test]
fn a_body_beyond_its_window() {
    let got = act(Lane::Poisoned("window"), |peer, it| {
        assert!(peer.start(it));
        peer.write(it, Kind::ResponseHead as u8, 0, &head(-1, &[], b""));
        for _ in 0..3 {
            peer.write(it, Kind::ResponseBody as u8, 0, &[b'x'; 60_000]);
        }
        peer.publish();
    });
    assert_eq!(got, Got::Cut);
}

#[test]
fn a_head_that_is_none() {
    for payload in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", &[0xFF; 300]] {
        let got = act(Lane::Poisoned("a bad response head"), |peer, it| {
            assert!(peer.start(it));
            peer.say(it, Kind::ResponseHead, END | DONE, payload);
        });
        assert_eq!(got, died());
    }
}

#[test]
fn a_head_that_would_be_two_responses() {
    let fields: [(&[u8], &[u8]); 4] = [
        (b"a", b"b\r\nc: d"),
        (b"a\r\n\r\nHTTP/1.1 200 OK", b"b"),
        (b"a: b", b"c"),
        (b"content-length", b"7"),
    ];
    for field in fields {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            let payload = head(1, &[field, (b"content-length", b"1")], b"x");
            peer.say(it, Kind::ResponseHead, END | DONE, &payload);
        });
        assert_eq!(got, failed(), "{field:?}");
    }
}

#[test]
fn a_status_that_is_none_or_only_announces_one() {
    for status in [0, 42, 100, 101, 199, 1000, u16::MAX] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            let mut payload = Vec::new();
            let none = std::iter::empty();
            encode_response_head(&mut payload, status, 1, none, b"x").unwrap();
            peer.say(it, Kind::ResponseHead, END | DONE, &payload);
        });
        assert_eq!(got, failed(), "{status}");
    }
}

// Abort.

#[test]
fn records_after_an_abort() {
    let got = act(Lane::Kept, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseAbort, 0, b"");
        peer.say(it, Kind::ResponseHead, 0, &head(-1, &[], b"never"));
        peer.say(it, Kind::ResponseBody, END, b"mind");
        peer.say(it, Kind::ResponseBody, DONE, b"");
    });
    assert_eq!(got, failed());
}

#[test]
fn records_after_an_abort_that_was_the_last_word() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseAbort, DONE, b"");
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
    });
    assert_eq!(got, failed());
}

#[test]
fn an_abort_after_the_end() {
    let got = act(Lane::Poisoned("goes on after its end"), |peer, it| {
        assert!(peer.start(it));
        peer.say(it, Kind::ResponseHead, END, &plain(b"right"));
        peer.say(it, Kind::ResponseAbort, DONE, b"");
    });
    assert_eq!(got, right("right"));
}

// Other exchanges.

#[test]
fn a_response_for_a_slot_that_is_free() {
    let got = act(NOT_IN_FLIGHT, |peer, it| {
        let other = RecordHeader {
            slot: (it.slot + 1) % 16,
            ..it
        };
        peer.say(other, Kind::ResponseHead, END | DONE, &plain(b"whose?"));
    });
    assert_eq!(got, Got::Elsewhere);
}

#[test]
fn a_response_for_another_generation() {
    for generation in [0, u32::MAX] {
        let got = act(NOT_IN_FLIGHT, |peer, it| {
            let other = RecordHeader { generation, ..it };
            peer.say(other, Kind::ResponseHead, END | DONE, &plain(b"whose?"));
        });
        assert_eq!(got, Got::Elsewhere);
    }
}

#[test]
fn a_response_for_the_exchange_before() {
    let server = Server::start(EngineConfig::default());
    let mut peer = Peer::attach(&server);
    let mut client = connect(&server.address);
    let mut last: Option<RecordHeader> = None;
    loop {
        ask(&mut client, CLIENTS_PATH);
        let it = peer.request();
        if let Some(last) = last.filter(|last| last.slot == it.slot) {
            assert_ne!(last.generation, it.generation);
            peer.say(last, Kind::ResponseHead, END | DONE, &plain(b"before"));
            break;
        }
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        assert_eq!(receive(&mut client).unwrap().body, b"right");
        last = last.or(Some(it));
    }
    until(&server, |event| match event {
        ControlEvent::Poisoned { .. } => ControlFlow::Break(()),
        other => panic!("{other:?}"),
    });
    server.engine.lane_down(&peer.handle);
    let mut second = server.attach(ConsumerOptions::default(), support::Echo::default());
    assert_eq!(hear(&mut client), Got::Elsewhere);
    second.kill(&server.engine);
}

#[test]
fn a_response_of_another_loop_or_for_no_slot() {
    let wrong: [fn(&mut RecordHeader); 2] = [|it| it.owner = 1, |it| it.slot = 16];
    for change in wrong {
        let got = act(Lane::Poisoned(""), |peer, it| {
            let mut other = it;
            change(&mut other);
            peer.say(other, Kind::ResponseHead, END | DONE, &plain(b"whose?"));
        });
        assert_eq!(got, Got::Elsewhere);
    }
}

// Kinds.

#[test]
fn kinds_that_nobody_knows_or_only_the_engine_says() {
    for kind in [
        200,
        Kind::RequestHead as u8,
        Kind::RequestBody as u8,
        Kind::Open as u8,
    ] {
        let got = act(Lane::Kept, |peer, it| {
            assert!(peer.start(it));
            peer.write(it, kind, 0, b"what is this?");
            peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        });
        assert_eq!(got, right("right"));
        let got = act(Lane::Poisoned("must be understood"), |peer, it| {
            assert!(peer.start(it));
            peer.write(it, kind, MUST_UNDERSTAND, b"what is this?");
            peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
        });
        assert_eq!(got, died());
    }
}

// Words.

#[test]
fn grants_of_a_request_that_make_no_sense() {
    let upload = format!(
        "POST /c HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n{}",
        "x".repeat(300_000)
    );
    let got = act_on(Lane::Kept, &upload, |peer, it| {
        let mut taken = 0;
        for total in [u64::MAX, 0, 1, u64::MAX - 1, 1 << 63] {
            peer.lane.grant_request(it.slot, total);
            let first = taken == 0;
            if first {
                assert!(peer.start(it));
            }
            peer.lane.ring(0).notice.bump();
            bus::fence();
            peer.lane.ring(0).waker.kick().unwrap();
            if first {
                taken += peer.next(Kind::RequestBody).1.len();
            }
        }
        while taken < 200_000 {
            taken += peer.next(Kind::RequestBody).1.len();
        }
        peer.say(it, Kind::ResponseHead, END | DONE, &plain(b"right"));
    });
    assert_eq!(got, right("right"));
}
