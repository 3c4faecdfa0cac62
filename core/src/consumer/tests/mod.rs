//! The consumer against a mini engine: the engine's ends of a lane in the same thread.

mod random;

use std::{os::fd::AsRawFd, time::Duration};

use super::*;
use crate::{
    bus::{ABI, EngineLane, Geometry, Kind, LoopEnds, RecordHeader, StatusPage, fence, flags},
    consumer::exchange::LOW_WATER,
    message::{Hello, RequestHeadParts, ResponseHead, Welcome, choose_abi, encode_request_head},
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
        features: 0,
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
fn a_stream_is_bounded_by_window_and_ring() {
    let (mut engine, mut consumer) = pair();
    engine.get(5);
    let id = take(&mut consumer);
    let total = 5 << 20;
    let data: Vec<u8> = (0..total).map(|at: usize| (at / 7) as u8).collect();
    let mut sent = 0;
    let mut received = Vec::new();
    let mut may_send = head(&mut consumer, id, b"", false, false) == Sent::Below;
    let mut ended = 0;
    let mut waits = 0;
    while ended == 0 {
        while may_send && sent < total {
            let end = total.min(sent + 50_000);
            let last = end == total;
            let answer = consumer
                .respond_body(id, &data[sent..end], last, last)
                .unwrap();
            may_send = answer == Sent::Below;
            sent = end;
        }
        for got in engine.drain() {
            received.extend_from_slice(got.body());
            ended += usize::from(got.header.flags & flags::END != 0);
            assert_eq!(
                got.header.flags & flags::END != 0,
                got.header.flags & flags::DONE != 0
            );
        }
        engine.grant(id, received.len() as u64 + u64::from(WINDOW));
        assert!(received.len() + LOW_WATER + 50_000 + (WINDOW as usize) >= sent);
        for event in poll(&mut consumer) {
            assert!(matches!(event, Event::Writable { .. }));
            waits += 1;
            may_send = true;
        }
    }
    assert!(received == data);
    assert!(waits > 10);
    assert_eq!((ended, consumer.in_flight()), (1, 0));
}

#[test]
fn one_large_response_goes_out_piece_by_piece() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 4,
        request_capacity: 65536,
        response_capacity: 8192,
    });
    let mut ids = Vec::new();
    for slot in 0..4 {
        engine.get(slot);
        let id = take(&mut consumer);
        let body = vec![slot as u8; 100_000];
        assert_eq!(head(&mut consumer, id, &body, true, true), Sent::Above);
        ids.push(id);
    }
    let mut received = [0; 4];
    let mut done = 0;
    while done < 4 {
        let got = engine.drain();
        assert!(!got.is_empty(), "stuck at {received:?}");
        for got in got {
            let slot = usize::from(got.header.slot);
            assert!(got.body().iter().all(|byte| usize::from(*byte) == slot));
            received[slot] += got.body().len();
            done += usize::from(got.header.flags & flags::DONE != 0);
        }
        assert!(
            poll(&mut consumer).is_empty(),
            "nobody sends on after the end"
        );
    }
    assert_eq!(received, [100_000; 4]);
    assert_eq!(consumer.in_flight(), 0);
}

#[test]
fn the_window_stops_a_response_until_it_opens() {
    let (mut engine, mut consumer) = pair();
    let parts = RequestHeadParts {
        response_window: 10,
        ..get()
    };
    engine.request(1, &parts, flags::END);
    let id = take(&mut consumer);
    let body = vec![7; 10 + LOW_WATER + 5];
    assert_eq!(head(&mut consumer, id, &body, false, false), Sent::Above);
    assert_eq!(engine.only().body().len(), 10);
    assert!(consumer.arm(), "only the window can move");
    engine.grant(id, 14);
    assert!(consumer.lane.doorbell().wait(Some(Duration::ZERO)).unwrap());
    assert!(poll(&mut consumer).is_empty(), "still above");
    assert_eq!(engine.only().body().len(), 4);
    engine.grant(id, 15);
    let events = poll(&mut consumer);
    assert!(matches!(events[..], [Event::Writable { id: got }] if got == id));
    assert_eq!(engine.only().body().len(), 1);
    assert!(poll(&mut consumer).is_empty(), "reported once");
    engine.grant(id, 1 << 20);
    consumer.respond_body(id, b"end", true, true).unwrap();
    poll(&mut consumer);
    let got = engine.drain();
    let len: usize = got.iter().map(|got| got.body().len()).sum();
    assert_eq!(len, LOW_WATER + 3);
    assert_eq!(got.last().unwrap().header.flags, flags::END | flags::DONE);
    assert_eq!(consumer.in_flight(), 0);
}

#[test]
fn a_full_ring_is_waited_for() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 8,
        request_capacity: 65536,
        response_capacity: 4096,
    });
    let mut answer = |engine: &mut Engine, slot| {
        engine.get(slot);
        let id = take(&mut consumer);
        head(&mut consumer, id, &[9; 1500], true, true);
    };
    for slot in 0..4 {
        answer(&mut engine, slot);
    }
    while !consumer.arm() {
        assert!(poll(&mut consumer).is_empty(), "small parts may still fit");
    }
    assert!(!engine.drain().is_empty());
    assert!(consumer.lane.doorbell().wait(Some(Duration::ZERO)).unwrap());
    let mut rest = 0;
    while consumer.in_flight() > 0 {
        consumer.clear_doorbell();
        poll(&mut consumer);
        rest += engine.drain().len();
    }
    assert!(rest >= 2);
    assert!(consumer.arm());
}

#[test]
fn an_upload_comes_as_fast_as_it_is_taken() {
    let (mut engine, mut consumer) = pair();
    let parts = RequestHeadParts {
        body: &[1; 1000],
        ..get()
    };
    let id = engine.request(2, &parts, 0);
    engine.loops[0].notice.changed();
    let events = poll(&mut consumer);
    assert!(matches!(
        events[..],
        [Event::Request {
            more_body: true,
            ..
        }]
    ));
    assert!(consumer.start(id));
    assert!(engine.loops[0].notice.changed(), "body may come: told so");
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536);

    engine.body(id, &[2; 40_000], 0);
    engine.body(id, &[3; 24_536], 0);
    let events = poll(&mut consumer);
    let lens: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Body {
                data, end: false, ..
            } => data.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lens, [40_000, 24_536]);

    consumer.consumed(id, 1000);
    assert!(!engine.loops[0].notice.changed(), "not for a few bytes");
    consumer.consumed(id, 40_000);
    assert!(engine.loops[0].notice.changed());
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536 + 41_000);

    engine.body(id, &[], flags::END);
    let events = poll(&mut consumer);
    assert!(matches!(&events[..], [Event::Body { data, end: true, .. }] if data.is_empty()));
    consumer.consumed(id, 24_536);
    assert!(!engine.loops[0].notice.changed(), "nothing more to grant");
    head(&mut consumer, id, b"thanks", true, true);
    // The engine had sent more before it saw the end.
    engine.body(id, b"late", 0);
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn expect_continue_opens_on_demand() {
    let (mut engine, mut consumer) = pair();
    let parts = RequestHeadParts {
        expect_continue: true,
        ..get()
    };
    let id = engine.request(2, &parts, 0);
    take(&mut consumer);
    assert_eq!(engine.loops[0].slots.request_granted(2), 0);
    engine.loops[0].notice.changed();
    consumer.want_body(id);
    assert!(engine.loops[0].notice.changed());
    assert_eq!(engine.loops[0].slots.request_granted(2), 65536);
    consumer.want_body(id);
    assert!(!engine.loops[0].notice.changed(), "once");
    engine.record(id, Kind::Cancelled as u8, b"", 0);
    assert!(matches!(
        poll(&mut consumer)[..],
        [Event::RequestAborted { .. }]
    ));
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
    let bell = engine.lane.doorbell_of_loop(0).as_raw_fd();
    assert!(bell >= 0);
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

#[test]
fn an_engine_that_breaks_the_rules_is_left_with_a_clear_text() {
    let broken = |act: &dyn Fn(&mut Engine, &mut Consumer)| {
        let (mut engine, mut consumer) = pair();
        act(&mut engine, &mut consumer);
        let error = consumer.poll(10, &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(engine.control(), Control::Error(error.clone()));
        error
    };
    let unknown = ExchangeId {
        slot: 4,
        generation: 9,
    };
    let text = broken(&|engine, _| engine.body(unknown, b"x", 0));
    assert!(
        text.contains("a body for the unknown exchange 4:9"),
        "{text}"
    );
    let text = broken(&|engine, consumer| {
        engine.get(4);
        take(consumer);
        engine.get(4);
    });
    assert!(text.contains("still holds"), "{text}");
    let text = broken(&|engine, consumer| {
        engine.get(4);
        let id = take(consumer);
        head(consumer, id, b"", true, true);
        engine.generations[4] -= 1;
        engine.get(4);
    });
    assert!(text.contains("after exchange"), "{text}");
    let text = broken(&|engine, consumer| {
        engine.get(4);
        let id = take(consumer);
        engine.body(id, b"x", 0);
    });
    assert!(text.contains("after the body's end"), "{text}");
    let text = broken(&|engine, consumer| {
        let id = engine.request(4, &get(), 0);
        poll(consumer);
        engine.body(id, b"x", 0);
    });
    assert!(text.contains("before its start"), "{text}");
    let text = broken(&|engine, _| engine.record(unknown, 77, b"", flags::MUST_UNDERSTAND));
    assert!(text.contains("kind 77"), "{text}");
    let text = broken(&|engine, _| {
        engine.record(unknown, Kind::RequestHead as u8, b"short", 0);
    });
    assert!(text.contains("request 4:9"), "{text}");

    let (mut engine, mut consumer) = pair();
    engine.record(unknown, 77, b"from a later version", 0);
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn control_packets_and_the_hang_up() {
    let (mut engine, mut consumer) = pair();
    assert_eq!(consumer.control(), Ok(ControlEvent::None));
    consumer.ready();
    assert_eq!(engine.control(), Control::Ready);
    consumer.fail("no such module", true);
    assert!(matches!(
        engine.control(),
        Control::Failed {
            permanent: true,
            ..
        }
    ));
    engine.socket.send(&Control::Drain.encode(), &[]).unwrap();
    assert_eq!(consumer.control(), Ok(ControlEvent::Drain));
    assert_eq!(engine.control(), Control::Draining);
    consumer.drained();
    assert_eq!(engine.control(), Control::Drained);

    engine.get(0);
    let running = take(&mut consumer);
    engine.get(1);
    let kept = take(&mut consumer);
    head(&mut consumer, kept, &[0; 300_000], true, true);
    engine.get(2);
    let half = take(&mut consumer);
    head(&mut consumer, half, &[0; 300_000], false, false);
    let waiting = engine.get(3);
    poll(&mut consumer);
    drop(engine);
    assert_eq!(consumer.control(), Ok(ControlEvent::HangUp));
    assert!(!consumer.arm());
    let events = poll(&mut consumer);
    assert!(matches!(
        events[..],
        [Event::Disconnected { id: first }, Event::Disconnected { id: second }]
            if first == half && second == running
    ));
    assert!(!consumer.start(waiting));
    consumer.done(running);
    consumer.done(half);
    assert_eq!(consumer.in_flight(), 0);
    assert_eq!(consumer.control(), Ok(ControlEvent::HangUp));
    assert!(poll(&mut consumer).is_empty());
}

#[test]
fn attaching_fails_with_a_clear_text() {
    let options = ConsumerOptions {
        timeout: Duration::from_millis(20),
        ..ConsumerOptions::default()
    };
    for bad in ["", "fd:", "fd:-1", "fd:x", "unix:/x"] {
        let error = Consumer::attach(bad, &options).unwrap_err();
        assert!(error.to_string().contains("expected fd:N"), "{error}");
    }
    let error = Consumer::attach("fd:987654", &options).unwrap_err();
    assert!(error.to_string().contains("names no inherited"), "{error}");

    let attach = |packet: Option<Control>| {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        match packet {
            Some(packet) => ours.send(&packet.encode(), &[]).unwrap(),
            None => drop(ours),
        }
        Consumer::attach_to(theirs, &options)
            .unwrap_err()
            .to_string()
    };
    assert!(attach(None).contains("hung up"));
    let hello = Hello {
        abi_min: 9,
        abi_max: 9,
        ..Hello::default()
    };
    let refusal = choose_abi(&hello).unwrap_err();
    assert!(attach(Some(Control::Error(refusal.clone()))).contains(&refusal));
    let later = Welcome {
        abi: (2, 0),
        ..Welcome::default()
    };
    let text = attach(Some(Control::Welcome(later)));
    assert!(
        text.contains("bus ABI 2") && text.contains("bus ABI 1"),
        "{text}"
    );
    assert!(text.contains("upgrade toolb in the worker's environment"));
    let bare = Welcome {
        abi: ABI,
        ..Welcome::default()
    };
    assert!(attach(Some(Control::Welcome(bare))).contains("descriptors"));
    assert!(attach(Some(Control::Drain)).contains("neither WELCOME nor ERROR"));
    let (_ours, theirs) = Seqpacket::pair().unwrap();
    let error = Consumer::attach_to(theirs, &options).unwrap_err();
    assert!(
        error.to_string().contains("did not answer within 20ms"),
        "{error}"
    );
}

/// `cargo test --release -p toolb-core -- --ignored --nocapture cost_per_request`
#[test]
#[ignore = "a measurement"]
fn cost_per_request() {
    let (mut engine, mut consumer) = pair_with(Geometry {
        rings: 1,
        slots: 64,
        ..Geometry::default()
    });
    let fields: [(&[u8], &[u8]); 4] = [
        (b"Host", b"127.0.0.1:8000"),
        (b"User-Agent", b"curl/8.5.0 (x86_64-pc-linux-gnu)"),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"gzip, deflate, br"),
    ];
    let answer: [(&[u8], &[u8]); 2] =
        [(b"content-type", b"text/plain"), (b"content-length", b"13")];
    let (mut encoding, mut spent, mut count) = (0, 0, 0);
    let mut payload = Vec::new();
    let mut events = Vec::new();
    let mut scratch = Vec::new();
    for turn in 0..100_000u32 {
        let begin = crate::sys::clock::now();
        for slot in 0..16 {
            payload.clear();
            let parts = RequestHeadParts {
                peer: b"127.0.0.1",
                server: b"127.0.0.1",
                authority: b"127.0.0.1:8000",
                ..get()
            };
            encode_request_head(&mut payload, &parts, fields.into_iter()).unwrap();
            let header = RecordHeader {
                kind: Kind::RequestHead as u8,
                flags: flags::END,
                slot,
                generation: turn + 1,
                ..RecordHeader::default()
            };
            assert!(engine.loops[0].requests.push(header, &[&payload]));
        }
        engine.loops[0].requests.publish();
        let middle = crate::sys::clock::now();
        consumer.poll(64, &mut events).unwrap();
        for event in events.drain(..) {
            let Event::Request { id, request, .. } = event else {
                panic!()
            };
            consumer.start(id);
            consumer.recycle(request.into_bytes());
            consumer
                .respond_head(
                    id,
                    200,
                    13,
                    answer.into_iter(),
                    b"Hello, World!",
                    true,
                    true,
                )
                .unwrap();
            count += 1;
        }
        consumer.flush(false);
        encoding += middle - begin;
        spent += crate::sys::clock::now() - middle;
        let ends = &mut engine.loops[0];
        ends.responses.refresh().unwrap();
        while ends.responses.peek().unwrap().is_some() {
            scratch.clear();
            ends.responses.read(&mut scratch);
        }
        ends.responses.release();
    }
    println!(
        "per request: encoded and pushed in {} ns, polled, started and answered in {} ns",
        encoding / count,
        spent / count
    );
}
