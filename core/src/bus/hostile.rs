//! A peer that writes anything, anywhere, at any time. What it must not get: a panic, an access out
//! of bounds, a record that is not well-formed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::bus::tests::{duplicates, record};
use crate::bus::*;
use crate::sys::memory::{Mapping, Seals, create, seal};

const GEOMETRY: Geometry = Geometry {
    rings: 1,
    slots: 4,
    request_capacity: 4096,
    response_capacity: 4096,
};
const RING: usize = 0x100;
const HEAD: usize = RING + 128;
const DATA: usize = 0x1000;
const LEN: usize = 0x2000;

/// What a peer does, or the side under test.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64),
    Tail(u64),
    Head(u64),
    Record(u64, RecordHeader, u32),
    /// A record where one is due, and the tail behind it.
    Deliver(RecordHeader, u32),
    /// The head moves to the tail.
    Consume,
    Refresh,
    Peek,
    Read,
    Skip,
    Release,
    Push(usize),
    Publish,
    WantSpace,
    Words(u16),
}

/// Positions near those that matter: small ones, and those around the capacity and the largest.
fn position() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0u64..1024).prop_map(|at| at * 16),
        2 => any::<u64>(),
        1 => Just(u64::MAX - 15),
        1 => 0u64..10_000,
    ]
}

fn header() -> impl Strategy<Value = RecordHeader> {
    let owner = prop_oneof![100 => Just(0u16), 1 => any::<u16>()];
    let slot = prop_oneof![100 => 0u16..4, 1 => 4u16..6];
    let kind = prop_oneof![100 => 1u8..17, 1 => Just(0u8)];
    let fields = (kind, any::<u8>(), owner, slot, any::<u32>());
    fields.prop_map(|(kind, flags, owner, slot, generation)| RecordHeader {
        kind,
        flags,
        owner,
        slot,
        generation,
        ..RecordHeader::default()
    })
}

/// What stands in the length field.
fn len() -> impl Strategy<Value = u32> {
    prop_oneof![
        60 => 16u32..300,
        20 => 1500u32..2048,
        1 => 4000u32..4100,
        1 => 0u32..16,
        1 => any::<u32>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..LEN / 8, any::<u64>()).prop_map(|(at, value)| Step::Write(at * 8, value)),
        1 => (0..0x300usize / 8, 0u64..4).prop_map(|(at, value)| Step::Write(at * 8, value)),
        1 => position().prop_map(Step::Tail),
        1 => position().prop_map(Step::Head),
        24 => (position(), header(), len()).prop_map(|(at, header, len)| Step::Record(at, header, len)),
        72 => (header(), len()).prop_map(|(header, len)| Step::Deliver(header, len)),
        18 => Just(Step::Consume),
        24 => Just(Step::Refresh),
        24 => Just(Step::Peek),
        12 => Just(Step::Read),
        12 => Just(Step::Skip),
        6 => Just(Step::Release),
        18 => (0usize..2032).prop_map(Step::Push),
        6 => Just(Step::Publish),
        6 => Just(Step::WantSpace),
        6 => (0u16..4).prop_map(Step::Words),
    ]
}

/// The memory that the peer writes.
struct Attacked {
    memory: Mapping,
    /// Where the next record is due.
    tail: u64,
    /// What the victim writes.
    victim: Mapping,
}

fn word(memory: &Mapping, offset: usize) -> &AtomicU64 {
    assert!(offset.is_multiple_of(8) && offset < LEN);
    // SAFETY: within the mapping, aligned, and accessed atomically only.
    unsafe { AtomicU64::from_ptr(memory.as_ptr().add(offset).cast()) }
}

impl Attacked {
    fn new(memory: Mapping, victim: Mapping) -> Self {
        Self {
            memory,
            tail: 0,
            victim,
        }
    }

    fn write(&self, offset: usize, value: u64) {
        word(&self.memory, offset).store(value, Ordering::Relaxed);
    }

    fn record(&self, position: u64, header: RecordHeader, len: u32) {
        let at = DATA + position as usize % 4096 / 16 * 16;
        let [first, second] = header.to_words(0);
        let first = first & !u64::from(u32::MAX) | u64::from(len);
        self.write(at, first);
        self.write(at + 8, second);
    }

    /// Fills the end of the ring, if a record would not fit there.
    fn pad(&mut self, len: u32) {
        let to_end = 4096 - self.tail % 4096;
        if u64::from(len) > to_end {
            self.record(self.tail, RecordHeader::default(), to_end as u32);
            self.tail += to_end;
        }
    }

    /// What the peer does in a step, if it is its turn.
    fn act(&mut self, step: &Step) {
        match *step {
            Step::Write(offset, value) => self.write(offset, value),
            Step::Tail(position) => self.write(RING, position),
            Step::Head(position) => self.write(HEAD, position),
            Step::Record(position, header, len) => self.record(position, header, len),
            Step::Deliver(header, len) => {
                self.pad(len);
                self.record(self.tail, header, len);
                self.tail += u64::from(len.min(2048).next_multiple_of(16));
                self.write(RING, self.tail);
            }
            Step::Consume => {
                let tail = word(&self.victim, RING).load(Ordering::Relaxed);
                self.write(HEAD, tail);
            }
            _ => {}
        }
    }
}

fn attacked_engine() -> (EngineLane, LoopEnds, Attacked) {
    let status = StatusPage::create(1, 1).unwrap();
    let lane = EngineLane::create(1, &GEOMETRY, &status).unwrap();
    let ends = lane.ends(0);
    let fds = lane.fds();
    let victim = Mapping::read_only(fds[1], LEN).unwrap();
    let memory = Attacked::new(Mapping::writable(fds[2], LEN).unwrap(), victim);
    (lane, ends, memory)
}

/// Descriptors of a lane whose E is writable here, with the honest header in it.
fn forged_fds() -> (Attacked, Vec<OwnedFd>) {
    let status = StatusPage::create(1, 1).unwrap();
    let lane = EngineLane::create(1, &GEOMETRY, &status).unwrap();
    let mut fds = duplicates(&lane);
    let honest = Mapping::read_only(fds[1].as_fd(), LEN).unwrap();
    let forged = create(c"forged", LEN).unwrap();
    let victim = Mapping::read_only(fds[2].as_fd(), LEN).unwrap();
    let memory = Attacked::new(Mapping::writable(forged.as_fd(), LEN).unwrap(), victim);
    seal(forged.as_fd(), Seals::ONE_WRITER).unwrap();
    for offset in (0..RING).step_by(8) {
        // SAFETY: within the mapping, aligned.
        memory.write(offset, unsafe {
            honest.as_ptr().add(offset).cast::<u64>().read_volatile()
        });
    }
    fds[1] = forged;
    (memory, fds)
}

/// One end of each kind, under attack.
struct Victim<'a> {
    reader: &'a mut Reader,
    producer: &'a mut Producer,
}

impl Victim<'_> {
    fn act(&mut self, step: &Step) {
        match *step {
            Step::Refresh => drop(self.reader.refresh()),
            Step::Peek => self.peek(),
            Step::Read => self.read(),
            Step::Skip => self.reader.skip(),
            Step::Release => drop(self.reader.release()),
            Step::Push(len) => self.push(len),
            Step::Publish => drop(self.producer.publish()),
            Step::WantSpace => self.producer.want_space(),
            _ => {}
        }
        let _ = self.reader.peer_wants_space();
        let _ = self.producer.space_came();
    }

    fn peek(&mut self) {
        if let Ok(Some(header)) = self.reader.peek() {
            assert_ne!(header.kind, Kind::Pad as u8);
            assert!(header.owner == 0 && header.slot < GEOMETRY.slots);
            assert!(header.len as usize <= GEOMETRY.max_request_payload());
            assert_eq!(self.reader.peek(), Ok(Some(header)));
        }
    }

    fn read(&mut self) {
        let mut bytes = vec![1];
        let peeked = self.reader.peek();
        self.reader.read(&mut bytes);
        let len = peeked
            .ok()
            .flatten()
            .map_or(0, |header| header.len as usize);
        assert_eq!(bytes.len(), 1 + len);
    }

    fn push(&mut self, len: usize) {
        let bytes = [7; 2032];
        self.producer
            .push(record(Kind::Data, 0, 0), &[&bytes[..len]]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_engine_survives_any_consumer(steps in vec(step(), 1..300)) {
        let (_lane, mut ends, mut memory) = attacked_engine();
        for step in &steps {
            memory.act(step);
            let (reader, producer) = (&mut ends.responses, &mut ends.requests);
            Victim { reader, producer }.act(step);
            if let Step::Words(slot) = *step {
                ends.slots.cancel(slot, 1);
                let _ = (ends.slots.started(slot), ends.slots.request_granted(slot));
                let _ = (ends.slots.tick(), ends.notice.changed(), ends.has_news());
                ends.waker.kick().unwrap();
            }
        }
    }

    #[test]
    fn the_consumer_survives_any_engine(steps in vec(step(), 1..300)) {
        let (mut memory, fds) = forged_fds();
        let mut lane = ConsumerLane::open(fds).unwrap();
        for step in &steps {
            memory.act(step);
            let ring = lane.ring(0);
            let (reader, producer) = (&mut ring.requests, &mut ring.responses);
            Victim { reader, producer }.act(step);
            if let Step::Words(slot) = *step {
                let _ = (lane.start(slot, 1), lane.response_granted(slot), lane.state());
                let _ = (lane.ring(0).notice.changed(), lane.arm());
                lane.sleeper().disarm();
                lane.ring(0).waker.kick().unwrap();
            }
        }
    }

    #[test]
    fn any_header_opens_or_is_refused(words in vec((0..17usize, 0..64u32, any::<u16>()), 1..4)) {
        let (memory, fds) = forged_fds();
        for (at, shift, bits) in words {
            let honest = word(&memory.memory, at * 8).load(Ordering::Relaxed);
            memory.write(at * 8, honest ^ u64::from(bits).rotate_left(shift));
        }
        if let Ok(mut lane) = ConsumerLane::open(fds) {
            lane.start(lane.geometry().slots - 1, 1);
            prop_assert_eq!(lane.ring(lane.rings() - 1).requests.refresh(), Ok(false));
        }
    }
}

#[test]
fn every_rule_has_its_violation() {
    let text = |tail: u64, header: RecordHeader, len: u32| {
        let (_lane, mut ends, memory) = attacked_engine();
        memory.record(0, header, len);
        memory.write(RING, tail);
        let looked = ends.responses.refresh();
        looked
            .and_then(|_| ends.responses.peek())
            .map_or_else(|violation| violation.0, |_| "fine")
    };
    let good = record(Kind::Data, 0, 3);
    assert_eq!(text(32, good, 32), "fine");
    assert_eq!(text(4096, good, 2048), "fine");
    for tail in [8, 31, 4096 + 16, u64::MAX - 15] {
        assert!(text(tail, good, 32).starts_with("the tail of a ring"));
    }
    for len in [0, 15, 2049, u32::MAX] {
        assert!(text(4096, good, len).ends_with("an impossible length"));
    }
    assert!(text(16, good, 17).starts_with("a record goes beyond the tail"));
    assert!(text(32, record(Kind::Data, 1, 0), 32).contains("is not of this ring"));
    assert!(text(32, record(Kind::Data, 0, 4), 32).contains("is not of this ring"));
    let pad = RecordHeader::default();
    assert_eq!(text(4096, pad, 4096), "fine");
    for (tail, len) in [(4096, 4080), (4080, 4096), (16, 16), (4096, 0)] {
        assert!(text(tail, pad, len).starts_with("padding does not end"));
    }

    let (_lane, mut ends, memory) = attacked_engine();
    ends.requests.push(good, &[]);
    ends.requests.publish();
    for head in [8, 32, u64::MAX - 15] {
        memory.write(HEAD, head);
        ends.requests.want_space();
        let violation = ends.requests.violation().unwrap();
        assert!(violation.to_string().starts_with("the head of a ring"));
        assert!(!ends.requests.space_came());
    }
}

/// A record may not cross the end of the ring, even if the tail is beyond it.
#[test]
fn records_end_where_the_ring_ends() {
    let (_lane, mut ends, memory) = attacked_engine();
    let header = record(Kind::Data, 0, 0);
    memory.record(0, header, 2048);
    memory.record(2048, header, 2032);
    memory.record(4080, header, 32);
    memory.write(RING, 4096);
    assert_eq!(ends.responses.refresh(), Ok(true));
    for _ in 0..2 {
        assert!(ends.responses.peek().unwrap().is_some());
        ends.responses.skip();
    }
    ends.responses.release();
    memory.write(RING, 4096 + 16);
    assert_eq!(ends.responses.refresh(), Ok(true));
    let violation = ends.responses.peek().unwrap_err();
    assert!(violation.0.ends_with("the end of its ring"));
}

/// The peer changes everything while the engine drains: headers between their check and the copy,
/// tails between two looks.
#[test]
fn the_engine_survives_memory_that_flips() {
    const RECORDS: usize = 3_000;
    const VIOLATIONS: usize = 3_000;
    const MOST_DRAINS: usize = 2_000_000;
    let (_lane, mut ends, memory) = attacked_engine();
    let over = AtomicBool::new(false);
    let (mut records, mut violations) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| flip(memory, &over));
        let _stop = Stop(&over);
        let mut bytes = Vec::new();
        for drain in 0..MOST_DRAINS {
            if records >= RECORDS && violations >= VIOLATIONS {
                break;
            }
            if drain % 256 == 0 {
                thread::yield_now();
            }
            violations += usize::from(ends.responses.refresh().is_err());
            loop {
                match ends.responses.peek() {
                    Ok(None) => break,
                    Ok(Some(header)) => {
                        assert!(header.slot < GEOMETRY.slots && header.owner == 0);
                        bytes.clear();
                        ends.responses.read(&mut bytes);
                        assert_eq!(bytes.len(), header.len as usize);
                        records += 1;
                    }
                    Err(_) => {
                        violations += 1;
                        break;
                    }
                }
            }
            ends.responses.release();
            fence();
            let _ = (ends.responses.peer_wants_space(), ends.has_news());
            ends.requests.push(record(Kind::Data, 0, 0), &[&[3; 100]]);
            ends.requests.publish();
        }
    });
    assert!(
        records > 0 && violations > 0,
        "{records} records, {violations} violations"
    );
}

/// Ends the attack, also if the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes records around the head and moves the tail, mostly so that the reader goes on.
fn flip(memory: Attacked, over: &AtomicBool) {
    let mut bits = 1u64;
    let mut random = |below: u64| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (bits >> 33) % below
    };
    let mut tail = 0;
    while !over.load(Ordering::Relaxed) {
        let head = word(&memory.victim, HEAD).load(Ordering::Relaxed);
        for _ in 0..8 {
            let header = RecordHeader {
                kind: random(15) as u8,
                slot: random(4) as u16 + u16::from(random(200) == 0),
                ..RecordHeader::default()
            };
            let most = if random(8) == 0 { 5000 } else { 64 };
            let near = if random(4) == 0 { 256 } else { 4 };
            memory.record(head + random(near) * 16, header, 16 + random(most) as u32);
        }
        tail = (tail.max(head) + random(64) * 16).min(head + 4096);
        let wrong = match random(50) {
            0 => 8,
            1 => 4096,
            _ => 0,
        };
        memory.write(RING, tail + wrong);
        memory.write(HEAD, random(8) * 16);
        memory.write(RING + 8, random(u64::MAX));
    }
}
