//! Lanes opened within one process, by duplicated descriptors.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::bus::*;

pub(super) const SMALL: Geometry = Geometry {
    rings: 2,
    slots: 8,
    request_capacity: 4096,
    response_capacity: 8192,
};

pub(super) fn duplicates(lane: &EngineLane) -> Vec<OwnedFd> {
    let fds = lane.fds();
    fds.iter()
        .map(|fd| fd.try_clone_to_owned().unwrap())
        .collect()
}

pub(super) fn lane_of(geometry: Geometry) -> (StatusPage, EngineLane, ConsumerLane) {
    let status = StatusPage::create(geometry.rings, 7).unwrap();
    let engine = EngineLane::create(42, &geometry, &status).unwrap();
    let consumer = ConsumerLane::open(duplicates(&engine)).unwrap();
    (status, engine, consumer)
}

pub(super) fn record(kind: Kind, owner: u16, slot: u16) -> RecordHeader {
    RecordHeader {
        kind: kind as u8,
        owner,
        slot,
        generation: 1,
        ..RecordHeader::default()
    }
}

fn drain(reader: &mut Reader) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    reader.refresh().unwrap();
    while let Some(header) = reader.peek().unwrap() {
        let mut payload = Vec::new();
        reader.read(&mut payload);
        assert_eq!(payload.len(), header.len as usize);
        records.push(payload);
    }
    reader.release();
    records
}

#[test]
fn a_lane_is_opened_by_its_descriptors() {
    let (_status, engine, mut consumer) = lane_of(SMALL);
    assert_eq!((engine.id(), consumer.id()), (42, 42));
    assert_eq!((engine.geometry(), consumer.geometry()), (&SMALL, &SMALL));
    assert_eq!(consumer.rings(), 2);
    assert_eq!(consumer.state(), LaneState::Active);
    engine.set_state(LaneState::Draining);
    assert_eq!(consumer.state(), LaneState::Draining);
    engine.set_state(LaneState::Closed);
    assert_eq!(consumer.state(), LaneState::Closed);
    let ends = engine.ends(1);
    let before = ends.slots.tick();
    consumer.tick();
    assert_ne!(ends.slots.tick(), before);
}

#[test]
fn records_go_both_ways_on_their_own_rings() {
    let (_status, engine, mut consumer) = lane_of(SMALL);
    let (mut first, mut second) = (engine.ends(0), engine.ends(1));
    let header = RecordHeader {
        flags: flags::END,
        aux: 9,
        ..record(Kind::RequestHead, 1, 3)
    };
    assert!(second.requests.push(header, &[b"GET ", b"", b"/index"]));
    assert_eq!(consumer.ring(1).requests.refresh(), Ok(false));
    assert!(second.requests.publish());
    assert!(!second.requests.publish());

    assert_eq!(consumer.ring(0).requests.refresh(), Ok(false));
    let requests = &mut consumer.ring(1).requests;
    assert_eq!(requests.refresh(), Ok(true));
    let seen = requests.peek().unwrap().unwrap();
    assert_eq!(seen, RecordHeader { len: 10, ..header });
    assert_eq!(requests.peek(), Ok(Some(seen)));
    let mut payload = b"kept ".to_vec();
    requests.read(&mut payload);
    assert_eq!(payload, b"kept GET /index");
    assert_eq!(requests.peek(), Ok(None));
    assert!(requests.release());
    assert!(!requests.release());

    let responses = &mut consumer.ring(0).responses;
    assert!(responses.push(record(Kind::ResponseHead, 0, 7), &[b"200"]));
    assert!(responses.push(record(Kind::ResponseBody, 0, 7), &[]));
    assert!(responses.publish());
    assert_eq!(drain(&mut first.responses), [b"200".to_vec(), vec![]]);
    assert_eq!(second.responses.refresh(), Ok(false));
}

#[test]
fn every_length_survives_every_position() {
    let (_status, engine, mut consumer) = lane_of(SMALL);
    let mut ends = engine.ends(0);
    let most = ends.requests.max_payload();
    assert_eq!(most, 2048 - HEADER);
    for round in 0..3 {
        for len in (0..600).chain(most - 20..=most) {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len + round) as u8).collect();
            let (one, two) = bytes.split_at(len / 3);
            assert!(
                ends.requests
                    .push(record(Kind::RequestBody, 0, 0), &[one, two])
            );
            ends.requests.publish();
            assert_eq!(drain(&mut consumer.ring(0).requests), [bytes]);
        }
    }
}

#[test]
fn skipping_frees_as_reading_does() {
    let (_status, engine, mut consumer) = lane_of(SMALL);
    let mut ends = engine.ends(0);
    for _ in 0..100 {
        assert!(
            ends.requests
                .push(record(Kind::RequestBody, 0, 0), &[&[1; 900]])
        );
        ends.requests.publish();
        let requests = &mut consumer.ring(0).requests;
        assert_eq!(requests.refresh(), Ok(true));
        assert!(requests.peek().unwrap().is_some());
        requests.skip();
        requests.skip();
        assert_eq!(requests.peek(), Ok(None));
        requests.release();
    }
}

#[test]
fn a_full_ring_refuses_until_the_reader_frees() {
    let (_status, engine, mut consumer) = lane_of(SMALL);
    let mut ends = engine.ends(0);
    let header = record(Kind::RequestBody, 0, 0);
    let part: &[u8] = &[5; 496];
    let pushed = (0..)
        .take_while(|_| ends.requests.push(header, &[part]))
        .count();
    assert_eq!(pushed, 8);
    assert!(!ends.requests.has_room(0));
    ends.requests.publish();
    ends.requests.want_space();
    assert!(!ends.requests.push(header, &[part]) && !ends.requests.space_came());

    let ring = consumer.ring(0);
    assert!(!ring.requests.peer_wants_space());
    assert_eq!(ring.requests.refresh(), Ok(true));
    let mut payload = Vec::new();
    for _ in 0..2 {
        ring.requests.peek().unwrap();
        ring.requests.read(&mut payload);
    }
    // Two of eight records are a quarter of the ring, given back along the way.
    assert!(!ring.requests.release());
    fence();
    assert!(ring.requests.peer_wants_space());
    assert!(!ring.requests.peer_wants_space());

    assert!(ends.has_news() && ends.requests.space_came());
    assert!(ends.requests.push(header, &[part]));
    assert!(!ends.requests.space_came());
    assert!(ends.requests.has_room(part.len()) && !ends.requests.has_room(2 * part.len()));
    assert!(!ends.requests.has_room(ends.requests.max_payload() + 1));
    let ring = consumer.ring(0);
    ring.requests.peek().unwrap();
    ring.requests.skip();
    assert!(ring.requests.release());
    assert!(!ring.requests.peer_wants_space());
}

#[test]
#[should_panic(expected = "record too large")]
fn a_record_beyond_the_limit_is_a_bug_of_the_caller() {
    let (_status, engine, _consumer) = lane_of(SMALL);
    let mut ends = engine.ends(0);
    let part = vec![0; ends.requests.max_payload() + 1];
    ends.requests
        .push(record(Kind::RequestBody, 0, 0), &[&part]);
}

#[test]
#[should_panic(expected = "taken twice")]
fn ends_are_taken_once() {
    let (_status, engine, _consumer) = lane_of(SMALL);
    engine.ends(1);
    engine.ends(1);
}

#[test]
fn a_sleeper_is_rung_for_once() {
    let (status, engine, mut consumer) = lane_of(SMALL);
    let mut ends = engine.ends(0);
    let rang = |bell: &crate::sys::eventfd::EventFd| {
        let rang = bell.wait(Some(Duration::ZERO)).unwrap();
        bell.drain();
        rang
    };
    assert!(!ends.waker.kick().unwrap() && !ends.waker.is_asleep());
    assert!(consumer.arm());
    assert!(ends.waker.is_asleep() && ends.waker.kick().unwrap());
    assert!(!ends.waker.kick().unwrap());
    assert!(rang(consumer.doorbell()));
    consumer.sleeper().disarm();
    consumer.sleeper().disarm();
    assert!(!ends.waker.is_asleep() && !ends.waker.kick().unwrap());
    consumer.sleeper().arm();
    assert!(ends.waker.kick().unwrap());
    consumer.sleeper().disarm();

    let mut sleeper = status.sleeper(1);
    sleeper.arm();
    assert!(!consumer.ring(0).waker.kick().unwrap());
    assert!(consumer.ring(1).waker.kick().unwrap());
    assert!(rang(engine.doorbell_of_loop(1)) && !rang(engine.doorbell_of_loop(0)));
    sleeper.disarm();
}

#[test]
fn nobody_falls_asleep_over_news() {
    let (status, engine, mut consumer) = lane_of(SMALL);
    let mut ends = engine.ends(1);
    ends.requests.push(record(Kind::Ping, 1, 0), &[]);
    ends.requests.publish();
    assert!(!consumer.arm() && !ends.waker.is_asleep());
    drain(&mut consumer.ring(1).requests);
    assert!(consumer.arm());
    consumer.sleeper().disarm();

    ends.slots.cancel(2, 1);
    ends.notice.bump();
    assert!(!consumer.arm());
    assert!(consumer.ring(1).notice.changed() && !consumer.ring(1).notice.changed());
    assert!(!consumer.ring(0).notice.changed());
    assert!(consumer.cancelled(2, 1) && !consumer.cancelled(2, 2));
    assert!(consumer.arm());

    let mut sleeper = status.sleeper(1);
    assert!(sleeper.arm_unless(|| ends.has_news()));
    consumer.ring(1).notice.bump();
    assert!(!sleeper.arm_unless(|| ends.has_news()));
    assert!(ends.notice.changed() && !ends.notice.is_pending());
}

#[test]
fn starts_cancels_and_grants() {
    let (_status, engine, mut consumer) = lane_of(SMALL);
    let mut ends = engine.ends(0);
    assert_eq!(ends.slots.started(5), 0);
    consumer.grant_request(5, 65536);
    assert!(consumer.start(5, 1));
    assert_eq!(ends.slots.started(5), 1);
    assert_eq!(ends.slots.request_granted(5), 65536);
    ends.slots.grant_response(5, 1 << 40);
    assert_eq!(consumer.response_granted(5), 1 << 40);
    ends.slots.cancel(5, 2);
    assert!(consumer.cancelled(5, 2) && !consumer.start(5, 2));
    assert!(consumer.start(5, 3));

    assert!(!consumer.ring(0).requests.peer_wants_starts());
    ends.requests.want_starts(true);
    assert!(consumer.ring(0).requests.peer_wants_starts());
    assert!(!consumer.ring(0).requests.peer_wants_space());
    ends.requests.want_starts(false);
    assert!(!consumer.ring(0).requests.peer_wants_starts());
}

#[test]
fn what_is_no_lane_is_refused() {
    let (_status, engine, _consumer) = lane_of(SMALL);
    let text = |fds| ConsumerLane::open(fds).unwrap_err().to_string();
    assert!(text(Vec::new()).contains("more descriptors"));
    let mut fds = duplicates(&engine);
    fds.pop();
    assert!(text(fds).contains("one doorbell per ring"));
    let mut fds = duplicates(&engine);
    fds.swap(0, 1);
    assert!(text(fds).contains("magic"));
    let mut fds = duplicates(&engine);
    fds.swap(1, 2);
    assert!(text(fds).contains("not sealed"));
    let mut fds = duplicates(&engine);
    fds.swap(1, 3);
    assert!(matches!(ConsumerLane::open(fds), Err(OpenError::Io(_))));
    let mut fds = duplicates(&engine);
    fds[2] = fds[1].try_clone().unwrap();
    assert!(text(fds).contains("sealed as it should"));
    let (_other_status, other, _other_consumer) = lane_of(Geometry::default());
    let mut fds = duplicates(&engine);
    fds[2] = other.fds()[2].try_clone_to_owned().unwrap();
    assert!(text(fds).contains("another length"));
}

#[test]
fn the_engines_memory_cannot_be_written_by_the_consumer() {
    use crate::sys::memory::{Mapping, Seals, seals};

    let (status, engine, _consumer) = lane_of(SMALL);
    let fds = engine.fds();
    for fd in [status.fd(), fds[0], fds[1]] {
        assert!(seals(fd).unwrap().contains(Seals::ONE_WRITER));
        assert!(Mapping::writable(fd, 4096).is_err());
        assert!(Mapping::read_only(fd, 4096).is_ok());
    }
    assert!(seals(fds[2]).unwrap().contains(Seals::FIXED_SIZE));
    assert!(Mapping::writable(fds[2].as_fd(), 4096).is_ok());
}

#[test]
fn impossible_lanes_are_refused() {
    assert!(StatusPage::create(0, 1).is_err() && StatusPage::create(33, 1).is_err());
    let status = StatusPage::create(1, 1).unwrap();
    assert!(EngineLane::create(1, &SMALL, &status).is_err());
    let bad = Geometry {
        rings: 1,
        slots: 0,
        ..SMALL
    };
    assert!(EngineLane::create(1, &bad, &status).is_err());
}

#[test]
fn the_header_on_the_wire() {
    use crate::sys::memory::Mapping;

    let (_status, engine, _consumer) = lane_of(SMALL);
    let dump = |fd| {
        let mapping = Mapping::read_only(fd, 0x88).unwrap();
        // SAFETY: 136 bytes are mapped, and nobody writes to them now.
        let bytes: Vec<u8> = (0..0x88)
            .map(|at| unsafe { mapping.as_ptr().add(at).read_volatile() })
            .collect();
        bytes
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    let fds = engine.fds();
    let status = dump(fds[0]);
    assert_eq!(status[..2], [0x0000_0001_5353_5542, 7]);
    let mut expected = [0; 17];
    expected[0] = 0x0000_0001_4553_5542;
    expected[1] = 42;
    expected[2] = 0x1000 + 2 * 4096;
    expected[3] = 0x1000 + 2 * 8192;
    expected[4] = 0x0000_0100_0008_0002;
    expected[5] = 0x0000_1000_0000_0300;
    expected[6] = 8192;
    expected[16] = 1;
    assert_eq!(dump(fds[1]), expected);
    assert_eq!(dump(fds[2])[0], 0x0000_0001_4353_5542);
}

#[test]
fn both_sides_may_live_on_other_threads() {
    fn sendable<T: Send>() {}
    fn shareable<T: Send + Sync>() {}
    shareable::<EngineLane>();
    shareable::<StatusPage>();
    sendable::<ConsumerLane>();
    sendable::<LoopEnds>();
    sendable::<Sleeper>();
}
