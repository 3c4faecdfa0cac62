//! The consumer against a mini engine: the engine's ends of a lane in the same thread.

mod cost;
mod files;
mod flow;
mod link;
mod random;
mod streams;

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

fn is_send<T: Send>() {}

#[test]
fn a_small_response_is_one_record() {
    is_send::<Consumer>();
    let (mut engine, mut consumer) = pair();
    let id = engine.get(3);
    let events = poll(&mut consumer);
    let [
        Event::Request {
            id: got,
            request,
            more_body: false,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(*got, id);
    assert_eq!(request.method(), b"GET");
    assert_eq!(request.field(b"host"), Some(&b"example.org"[..]));
    assert_eq!(consumer.in_flight(), 1);
    assert!(consumer.start(id));
    assert!(!consumer.start(id), "started twice");
    assert_eq!(engine.loops[0].slots.started(3), id.generation);
    let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain")];
    let sent = consumer.respond_head(id, 201, 5, fields.into_iter(), b"hello", true, true);
    assert_eq!(sent, Ok(Sent::Below));
    assert_eq!(consumer.in_flight(), 0);
    let got = engine.only();
    assert_eq!(got.kind(), Kind::ResponseHead);
    assert_eq!(got.header.flags, flags::END | flags::DONE);
    assert_eq!((got.header.slot, got.header.generation), (3, id.generation));
    let response = ResponseHead::decode(&got.payload).unwrap();
    assert_eq!((response.status(), response.content_length()), (201, 5));
    assert_eq!(response.fields().collect::<Vec<_>>(), fields);
    assert_eq!(response.body(), b"hello");
    let late = consumer.respond_body(id, b"x", true, true);
    assert_eq!(late, Err(RespondError::Unknown));
    consumer.done(id);
    consumer.abort(id);
    assert!(engine.drain().is_empty());
    // The slot serves again.
    engine.get(3);
    take(&mut consumer);
}

#[test]
fn end_and_done_may_be_apart() {
    let (mut engine, mut consumer) = pair();
    engine.get(0);
    let id = take(&mut consumer);
    head(&mut consumer, id, b"", false, false);
    consumer.respond_body(id, b"abc", false, false).unwrap();
    consumer.respond_body(id, b"", true, false).unwrap();
    let again = consumer.respond_body(id, b"", true, false);
    assert_eq!(again, Err(RespondError::AlreadyEnded));
    assert_eq!(consumer.in_flight(), 1);
    consumer.done(id);
    assert_eq!(consumer.in_flight(), 0);
    let flags: Vec<_> = engine.drain().iter().map(|got| got.header.flags).collect();
    assert_eq!(flags, [0, 0, flags::END, flags::DONE]);
}

#[test]
fn misuse_is_refused() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(0);
    poll(&mut consumer);
    let respond = |consumer: &mut Consumer, body: &[u8]| {
        consumer.respond_head(id, 200, -1, NO_FIELDS.into_iter(), body, false, false)
    };
    assert_eq!(respond(&mut consumer, b""), Err(RespondError::Unknown));
    assert!(consumer.start(id));
    let early = consumer.respond_body(id, b"", false, false);
    assert_eq!(early, Err(RespondError::HeadNotSent));
    let long = vec![b'x'; 70_000];
    let fields: [(&[u8], &[u8]); 1] = [(b"long", &long)];
    let refused = consumer.respond_head(id, 200, -1, fields.into_iter(), b"", true, true);
    assert_eq!(refused, Err(RespondError::HeadTooLong));
    respond(&mut consumer, b"").unwrap();
    let twice = respond(&mut consumer, b"");
    assert_eq!(twice, Err(RespondError::HeadAlreadySent));
    consumer.done(id);
    let got = engine.drain();
    assert_eq!(got.len(), 2);
    assert_eq!(got[1].kind(), Kind::ResponseAbort);
    assert_eq!(got[1].header.flags, flags::DONE);
    assert!(!consumer.start(ExchangeId {
        slot: 999,
        generation: 1
    }));
    assert!(!consumer.start(ExchangeId {
        slot: 1,
        generation: 0
    }));
}

#[test]
fn a_recalled_request_never_starts() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(0);
    assert!(engine.cancel(id), "not started");
    let events = poll(&mut consumer);
    assert!(matches!(events[..], [Event::Request { .. }]));
    assert!(!consumer.start(id));
    let got = engine.only();
    assert_eq!(got.kind(), Kind::Cancelled);
    assert_eq!((got.header.flags, got.header.aux), (flags::DONE, 0));
    assert_eq!(consumer.in_flight(), 0);
    consumer.done(id);
    assert!(engine.drain().is_empty());
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn a_cancelled_exchange_is_reported_once_and_ends_once() {
    let (mut engine, mut consumer) = pair();
    for way in 0..4 {
        let id = engine.get(0);
        take(&mut consumer);
        assert!(!engine.cancel(id), "started");
        let events = poll(&mut consumer);
        assert!(matches!(events[..], [Event::Disconnected { id: got }] if got == id));
        engine.loops[0].notice.bump();
        assert!(poll(&mut consumer).is_empty());
        let late = consumer.respond_head(id, 200, -1, NO_FIELDS.into_iter(), b"", true, way == 0);
        assert_eq!(late, Err(RespondError::Disconnected));
        match way {
            0 => {}
            1 => consumer.done(id),
            2 => consumer.abort(id),
            _ => {
                let late = consumer.respond_body(id, b"", true, true);
                assert_eq!(late, Err(RespondError::Disconnected));
            }
        }
        consumer.done(id);
        let got = engine.only();
        assert_eq!(got.kind(), Kind::Cancelled);
        assert_eq!((got.header.flags, got.header.aux), (flags::DONE, 1));
        assert_eq!(consumer.in_flight(), 0);
    }
}

#[test]
fn a_cancel_drops_what_was_kept() {
    let (mut engine, mut consumer) = pair();
    let id = engine.get(0);
    take(&mut consumer);
    head(&mut consumer, id, &[1; 200_000], true, true);
    assert_eq!(consumer.in_flight(), 1);
    engine.drain();
    engine.cancel(id);
    assert!(poll(&mut consumer).is_empty(), "the application was done");
    assert_eq!(engine.only().kind(), Kind::Cancelled);
    assert_eq!(consumer.in_flight(), 0);

    let id = engine.get(0);
    take(&mut consumer);
    head(&mut consumer, id, b"", true, false);
    engine.drain();
    engine.cancel(id);
    assert!(matches!(
        poll(&mut consumer)[..],
        [Event::Disconnected { .. }]
    ));
    consumer.done(id);
    let got = engine.only();
    assert_eq!(
        (got.kind(), got.header.flags),
        (Kind::ResponseBody, flags::DONE)
    );
}

#[test]
fn arming_rechecks() {
    let (mut engine, mut consumer) = pair();
    assert!(consumer.arm());
    engine.get(0);
    assert!(consumer.lane.doorbell().wait(Some(Duration::ZERO)).unwrap());
    consumer.clear_doorbell();
    consumer.disarm();
    assert!(!consumer.arm(), "a request waits");
    assert!(!engine.loops[0].waker.is_asleep());
    let id = take(&mut consumer);
    assert!(consumer.arm());
    engine.cancel(id);
    assert!(!consumer.arm(), "a notice waits");
    assert_eq!(poll(&mut consumer).len(), 1);
    assert!(consumer.arm());
    assert!(engine.loops[0].waker.is_asleep());
    poll(&mut consumer);
    assert!(!engine.loops[0].waker.is_asleep());
}

#[test]
fn the_budget_leaves_the_rest_for_later() {
    let (mut engine, mut consumer) = pair();
    for slot in 0..5 {
        engine.get(slot);
    }
    let mut events = Vec::new();
    assert_eq!(consumer.poll(2, &mut events), Ok(2));
    assert!(!consumer.arm());
    assert_eq!(consumer.poll(2, &mut events), Ok(2));
    assert_eq!(consumer.poll(2, &mut events), Ok(1));
    assert_eq!(consumer.poll(2, &mut events), Ok(0));
    assert!(consumer.arm());
}

#[test]
fn a_sleeping_loop_is_kicked_for_half_of_what_is_in_flight() {
    let (mut engine, mut consumer) = pair();
    let mut sleeper = engine.status.sleeper(0);
    for slot in 0..8 {
        engine.get(slot);
    }
    let ids: Vec<_> = poll(&mut consumer)
        .into_iter()
        .map(|event| match event {
            Event::Request { id, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    for id in &ids {
        assert!(consumer.start(*id));
    }
    sleeper.arm();
    // The clock may make it ring earlier: only the upper bound is certain.
    let mut rang_at = 0;
    for (count, id) in ids.iter().enumerate() {
        head(&mut consumer, *id, b"", true, true);
        let rang = engine.lane.doorbell_of_loop(0);
        if rang_at == 0 && rang.wait(Some(Duration::ZERO)).unwrap() {
            rang_at = count + 1;
        }
    }
    assert!((1..=4).contains(&rang_at), "{rang_at}");
    assert_eq!(engine.drain().len(), 8);
    engine.lane.doorbell_of_loop(0).drain();
    sleeper.disarm();

    // One response of two is not kicked for, except before idling.
    engine.get(0);
    engine.get(1);
    engine.get(2);
    let events = poll(&mut consumer);
    sleeper.arm();
    for event in events {
        let Event::Request { id, .. } = event else {
            panic!()
        };
        assert!(consumer.start(id));
        if id.slot == 0 {
            head(&mut consumer, id, b"", true, true);
        }
    }
    assert!(consumer.arm());
    let bell = engine.lane.doorbell_of_loop(0);
    assert!(bell.wait(Some(Duration::ZERO)).unwrap());
}

#[test]
fn starts_are_told_if_the_engine_asks() {
    let (mut engine, mut consumer) = pair();
    let mut sleeper = engine.status.sleeper(0);
    engine.loops[0].requests.want_starts(true);
    engine.get(0);
    sleeper.arm();
    take(&mut consumer);
    consumer.flush(false);
    let bell = engine.lane.doorbell_of_loop(0);
    assert!(bell.wait(Some(Duration::ZERO)).unwrap());
    assert!(engine.loops[0].notice.changed());
}

#[test]
fn every_loop_has_its_own_rings() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 3,
        slots: 16,
        ..Geometry::default()
    });
    for slot in 0..9 {
        engine.request_on(slot % 3, slot, &get(), flags::END);
    }
    for event in poll(&mut consumer) {
        let Event::Request { id, .. } = event else {
            panic!()
        };
        assert!(consumer.start(id));
        head(&mut consumer, id, b"x", true, true);
    }
    for owner in 0..3 {
        let slots: Vec<_> = engine
            .drain_on(owner)
            .iter()
            .map(|got| got.header.slot)
            .collect();
        let owner = owner as u16;
        assert_eq!(slots, [owner, owner + 3, owner + 6]);
    }
}
