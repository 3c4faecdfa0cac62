//! A consumer by hand, and what its client and the lane beside it get to see.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use toolb_core::bus::{self, ConsumerLane, Kind, RecordHeader};
use toolb_core::config::EngineConfig;
use toolb_core::consumer::ConsumerOptions;
use toolb_core::engine::{ControlEvent, LaneHandle};
use toolb_core::message::{Request, encode_file_head, encode_response_head};

use crate::support::http::{Connection, connect, receive};
use crate::support::{Fate, Server, Stuck};

/// Nothing takes this long unless it hangs.
pub(crate) const LOST: Duration = Duration::from_secs(30);
pub(crate) const CLIENTS_PATH: &str = "/c";

/// A consumer by hand.
pub(crate) struct Peer {
    pub(crate) lane: ConsumerLane,
    pub(crate) handle: Arc<LaneHandle>,
}

impl Peer {
    pub(crate) fn attach(server: &Server) -> Self {
        Self::with_window(server, 16)
    }

    /// One that understands the records about the time of streams, and takes so many of them: the
    /// next goes elsewhere.
    pub(crate) fn with_time(server: &Server, streams: u16) -> Self {
        Self::up(server, 16, streams, LaneHandle::tell_time)
    }

    pub(crate) fn with_window(server: &Server, window: u16) -> Self {
        Self::up(server, window, 16, |_| {})
    }

    fn up(server: &Server, window: u16, streams: u16, prepare: impl FnOnce(&LaneHandle)) -> Self {
        let handle = server.engine.new_lane(16, 16, window, streams).unwrap();
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let fds = handle.fds().into_iter().map(copy).collect();
        let lane = ConsumerLane::open(fds).unwrap();
        prepare(&handle);
        server.engine.lane_up(&handle);
        Self { lane, handle }
    }

    /// The next record of a kind, and what it carries; others are passed over.
    pub(crate) fn next(&mut self, kind: Kind) -> (RecordHeader, Vec<u8>) {
        let since = Instant::now();
        loop {
            // Others may come for ever.
            assert!(since.elapsed() < LOST, "no {kind:?} comes");
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

    pub(crate) fn request(&mut self) -> RecordHeader {
        let (header, payload) = self.next(Kind::RequestHead);
        Request::decode(payload).unwrap();
        header
    }

    pub(crate) fn start(&mut self, it: RecordHeader) -> bool {
        self.lane.start(it.slot, it.generation)
    }

    /// Writes a record that the engine does not see yet.
    pub(crate) fn write(&mut self, it: RecordHeader, kind: u8, flags: u8, payload: &[u8]) {
        let header = RecordHeader { kind, flags, ..it };
        assert!(self.lane.ring(0).responses.push(header, &[payload]));
    }

    pub(crate) fn publish(&mut self) {
        let ring = self.lane.ring(0);
        ring.responses.publish();
        bus::fence();
        ring.waker.kick().unwrap();
    }

    /// Writes a record and shows it.
    pub(crate) fn say(&mut self, it: RecordHeader, kind: Kind, flags: u8, payload: &[u8]) {
        self.write(it, kind as u8, flags, payload);
        self.publish();
    }
}

/// The payload of a response's head.
pub(crate) fn head(length: i64, fields: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_response_head(&mut payload, 200, length, fields.iter().copied(), body).unwrap();
    payload
}

pub(crate) fn plain(body: &[u8]) -> Vec<u8> {
    head(body.len() as i64, &[], body)
}

/// The payload of a response by file.
pub(crate) fn by_file(offset: u64, length: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_file_head(&mut payload, 200, std::iter::empty(), offset, length).unwrap();
    payload
}

/// What the client got. That nothing else came has been seen to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Got {
    Answer(u16, String),
    /// The answer of the lane beside.
    Elsewhere,
    Cut,
}

/// What the engine is to think of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lane {
    /// It is given up, with these words.
    Poisoned(&'static str),
    /// It goes on.
    Kept,
}

/// A server with two lanes, one of which has taken a request and does not notice what happens; a
/// client whose request is on the other; and what that does with it.
pub(crate) fn act(expected: Lane, misbehave: impl FnOnce(&mut Peer, RecordHeader)) -> Got {
    act_on(expected, "GET /c HTTP/1.1\r\nhost: x\r\n\r\n", misbehave)
}

pub(crate) fn act_on(
    expected: Lane,
    request: &str,
    misbehave: impl FnOnce(&mut Peer, RecordHeader),
) -> Got {
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

pub(crate) fn ask(connection: &mut Connection, path: &str) {
    try_asking(connection, path).unwrap();
}

pub(crate) fn try_asking(connection: &mut Connection, path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes())
}

pub(crate) fn until<T>(server: &Server, mut look: impl FnMut(ControlEvent) -> ControlFlow<T>) -> T {
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
pub(crate) fn hear(client: &mut Connection) -> Got {
    let answer = match receive(client) {
        Ok(answer) => answer,
        Err(cut) if cut.begun => return Got::Cut,
        Err(cut) => panic!("silence: {}", cut.error),
    };
    // It is closed, or good for another request; nothing else comes on it.
    let next = match answer.closes {
        true => Ok(()),
        false => try_asking(client, "/next"),
    };
    match next.map(|()| receive(client)) {
        Ok(Ok(next)) if !answer.closes => assert_eq!(next.body, b"GET /next? "),
        Ok(Err(cut)) if !cut.begun => {}
        Err(_) => assert_eq!(client.buffer(), b""),
        Ok(other) => panic!("more than one answer: {other:?}"),
    }
    match String::from_utf8(answer.body).unwrap() {
        body if body.starts_with(&format!("GET {CLIENTS_PATH}?")) => Got::Elsewhere,
        body => Got::Answer(answer.status, body),
    }
}

pub(crate) fn right(body: &str) -> Got {
    Got::Answer(200, body.to_owned())
}

pub(crate) fn died() -> Got {
    Got::Answer(502, "the application's worker died\n".to_owned())
}

pub(crate) fn failed() -> Got {
    Got::Answer(500, "Internal Server Error\n".to_owned())
}
