//! The consumer against a mini engine: the engine's ends of a lane in the same thread.

mod cost;
mod exchange;
mod files;
mod flow;
mod link;
mod random;
mod streams;
mod turns;

use std::time::Duration;

use super::*;
use crate::{
    bus::{ABI, EngineLane, Geometry, Kind, LoopEnds, RecordHeader, StatusPage, fence, flags},
    message::{RequestHeadParts, ResponseHead, Welcome, encode_request_head},
};

const WINDOW: u32 = 128 * 1024;

struct Engine {
    lane: EngineLane,
    status: StatusPage,
    loops: Vec<LoopEnds>,
    socket: Seqpacket,
    generations: Vec<u32>,
}

/// A record as the engine got it.
#[derive(Debug)]
struct Got {
    header: RecordHeader,
    payload: Vec<u8>,
}

impl Got {
    fn kind(&self) -> Kind {
        Kind::from_wire(self.header.kind).unwrap()
    }

    fn body(&self) -> &[u8] {
        match self.kind() {
            Kind::ResponseHead => ResponseHead::decode(&self.payload).unwrap().body(),
            _ => &self.payload,
        }
    }
}

fn pair_with(geometry: Geometry) -> (Engine, Consumer) {
    let status = StatusPage::create(geometry.rings, 1).unwrap();
    let lane = EngineLane::create(7, &geometry, &status).unwrap();
    let (ours, theirs) = Seqpacket::pair().unwrap();
    let welcome = Control::Welcome(Welcome {
        abi: ABI,
        features: crate::message::FEATURE_FILES,
        lane_id: 7,
        rings: geometry.rings,
        slots: geometry.slots,
        request_capacity: geometry.request_capacity,
        response_capacity: geometry.response_capacity,
    });
    ours.send(&welcome.encode(), &lane.fds()).unwrap();
    let consumer = Consumer::attach_to(theirs, &ConsumerOptions::default()).unwrap();
    let engine = Engine {
        loops: (0..geometry.rings).map(|index| lane.ends(index)).collect(),
        lane,
        status,
        socket: ours,
        generations: vec![0; usize::from(geometry.slots)],
    };
    assert!(matches!(engine.control(), Control::Hello(_)));
    (engine, consumer)
}

fn pair() -> (Engine, Consumer) {
    pair_with(Geometry {
        rings: 1,
        slots: 16,
        ..Geometry::default()
    })
}

impl Engine {
    fn control(&self) -> Control {
        let mut packet = vec![0; MAX_CONTROL_PACKET];
        let len = self.socket.recv(&mut packet, &mut Vec::new()).unwrap();
        Control::decode(&packet[..len]).unwrap()
    }

    fn request(&mut self, slot: u16, parts: &RequestHeadParts<'_>, flags: u8) -> ExchangeId {
        self.request_on(0, slot, parts, flags)
    }

    fn request_on(
        &mut self,
        owner: u16,
        slot: u16,
        parts: &RequestHeadParts<'_>,
        flags: u8,
    ) -> ExchangeId {
        self.generations[usize::from(slot)] += 1;
        let generation = self.generations[usize::from(slot)];
        let mut payload = Vec::new();
        let fields: [(&[u8], &[u8]); 1] = [(b"Host", b"example.org")];
        encode_request_head(&mut payload, parts, fields.into_iter()).unwrap();
        let ends = &mut self.loops[usize::from(owner)];
        ends.slots
            .grant_response(slot, u64::from(parts.response_window));
        let header = RecordHeader {
            kind: Kind::RequestHead as u8,
            flags,
            owner,
            slot,
            generation,
            ..RecordHeader::default()
        };
        assert!(ends.requests.push(header, &[&payload]));
        ends.requests.publish();
        fence();
        ends.waker.kick().unwrap();
        ExchangeId { slot, generation }
    }

    fn get(&mut self, slot: u16) -> ExchangeId {
        self.request(slot, &get(), flags::END)
    }

    fn body(&mut self, id: ExchangeId, data: &[u8], flags: u8) {
        self.record(id, Kind::RequestBody as u8, data, flags);
    }

    fn record(&mut self, id: ExchangeId, kind: u8, data: &[u8], flags: u8) {
        let header = RecordHeader {
            kind,
            flags,
            slot: id.slot,
            generation: id.generation,
            ..RecordHeader::default()
        };
        assert!(self.loops[0].requests.push(header, &[data]));
        self.loops[0].requests.publish();
    }

    fn cancel(&mut self, id: ExchangeId) -> bool {
        let ends = &mut self.loops[0];
        ends.slots.cancel(id.slot, id.generation);
        ends.notice.bump();
        fence();
        ends.waker.kick().unwrap();
        ends.slots.started(id.slot) != id.generation
    }

    fn grant(&mut self, id: ExchangeId, total: u64) {
        let ends = &mut self.loops[0];
        ends.slots.grant_response(id.slot, total);
        ends.notice.bump();
        fence();
        ends.waker.kick().unwrap();
    }

    /// Reads what has come on a loop, without telling the consumer unless it waits for room.
    fn drain_on(&mut self, owner: usize) -> Vec<Got> {
        let ends = &mut self.loops[owner];
        let mut got = Vec::new();
        ends.responses.refresh().unwrap();
        while let Some(header) = ends.responses.peek().unwrap() {
            let mut payload = Vec::new();
            ends.responses.read(&mut payload);
            got.push(Got { header, payload });
        }
        ends.responses.release();
        fence();
        if ends.responses.peer_wants_space() {
            ends.waker.kick().unwrap();
        }
        got
    }

    fn drain(&mut self) -> Vec<Got> {
        self.drain_on(0)
    }

    fn only(&mut self) -> Got {
        let mut got = self.drain();
        assert_eq!(got.len(), 1, "{got:?}");
        got.remove(0)
    }
}

fn get() -> RequestHeadParts<'static> {
    RequestHeadParts {
        request_window: 64 * 1024,
        response_window: WINDOW,
        version: 11,
        method: b"GET",
        target: b"/",
        raw_path: b"/",
        path: b"/",
        ..RequestHeadParts::default()
    }
}

fn poll(consumer: &mut Consumer) -> Vec<Event> {
    let mut events = Vec::new();
    let count = consumer.poll(100, &mut events).unwrap();
    assert_eq!(count, events.len());
    events
}

/// The one request that has come, started.
fn take(consumer: &mut Consumer) -> ExchangeId {
    let events = poll(consumer);
    let [Event::Request { id, .. }] = events[..] else {
        panic!("one request expected, got {events:?}");
    };
    assert!(consumer.start(id));
    id
}

const NO_FIELDS: [(&[u8], &[u8]); 0] = [];

fn head(consumer: &mut Consumer, id: ExchangeId, body: &[u8], end: bool, done: bool) -> Sent {
    consumer
        .respond_head(id, 200, -1, NO_FIELDS.into_iter(), body, end, done)
        .unwrap()
}
