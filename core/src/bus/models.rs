//! Loom models of the bus: every interleaving and every reordering that the memory model allows, up
//! to a few preemptions. They run the source that ships; `core/tests/loom.sh` also runs them against
//! that source with one line taken out at a time, and wants each of those to fail.
#![forbid(unsafe_code)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32};
use loom::thread;

use crate::bus::slots::ConsumerSlots;
use crate::bus::sync::{Bell, Memory, Ordering};
use crate::bus::*;

/// The smallest ring in which records of one payload word wrap and need padding.
const CAPACITY: usize = 64;

const TAIL: usize = 0;
const WANT: usize = 8;
const HEAD: usize = 128;
const WAKE: usize = 256;
const NOTICE: usize = 260;
const PEER_NOTICE: usize = 264;
const DATA: usize = 4096;
const ENGINE_SLOTS: usize = 8192;
const CONSUMER_SLOTS: usize = 12288;

fn ring(memory: &Memory) -> (Producer, Reader) {
    let data = || memory.bytes(DATA, CAPACITY);
    let (tail, head) = (memory.word64(TAIL), memory.word64(HEAD));
    let want = memory.word32(WANT);
    (
        Producer::new(data(), tail.clone(), want.clone(), head.clone()),
        Reader::new(data(), tail, want, head, 0, 2),
    )
}

fn wake(memory: &Memory) -> (Sleeper, Waker, Bell) {
    let bell = Bell::new();
    let word = memory.word32(WAKE);
    let waker = Waker::new(word.clone(), bell.clone());
    (Sleeper::new(word), waker, bell)
}

fn slots(memory: &Memory) -> (EngineSlots, ConsumerSlots) {
    let engine = memory.table(ENGINE_SLOTS, 64, 2);
    let consumer = memory.table(CONSUMER_SLOTS, 64, 2);
    let tick = memory.word32(CONSUMER_SLOTS + 1024);
    (
        EngineSlots::new(engine.clone(), consumer.clone(), tick),
        ConsumerSlots::new(consumer, engine),
    )
}

fn header(slot: u16) -> RecordHeader {
    RecordHeader {
        kind: Kind::Data as u8,
        slot,
        generation: 1,
        ..RecordHeader::default()
    }
}

fn payload(number: u64, words: usize) -> Vec<u8> {
    (0..words as u64)
        .flat_map(|word| (number * 1000 + word).to_le_bytes())
        .collect()
}

/// Reads all that is there; every record must be what was pushed.
fn drain(reader: &mut Reader, sizes: &[usize], read: &mut usize) {
    reader.refresh().unwrap();
    while reader.peek().unwrap().is_some() {
        let mut bytes = Vec::new();
        reader.read(&mut bytes);
        assert_eq!(
            bytes,
            payload(*read as u64, sizes[*read]),
            "a record changed on its way"
        );
        *read += 1;
    }
}

/// Records arrive whole, in order, around the end of the ring and past padding, and none is
/// overwritten before it was read.
#[test]
fn ring_carries_records() {
    const SIZES: [usize; 5] = [0, 1, 2, 2, 1];
    loom::model(|| {
        let memory = Memory::default();
        let (mut producer, mut reader) = ring(&memory);
        let pushing = thread::spawn(move || {
            let mut pushed = 0;
            for _ in 0..SIZES.len() + 1 {
                let Some(&size) = SIZES.get(pushed) else {
                    break;
                };
                if producer.push(header(0), &[&payload(pushed as u64, size)]) {
                    pushed += 1;
                    producer.publish();
                } else {
                    thread::yield_now();
                }
            }
            assert_eq!(producer.violation(), None);
            pushed
        });
        let mut read = 0;
        for _ in 0..3 {
            drain(&mut reader, &SIZES, &mut read);
            reader.release();
            thread::yield_now();
        }
        let pushed = pushing.join().unwrap();
        drain(&mut reader, &SIZES, &mut read);
        assert_eq!(read, pushed, "a record was lost");
    });
}

/// A reader that finds nothing goes to sleep and is woken, once per sleep.
#[test]
fn wake_reaches_the_sleeper() {
    const RECORDS: u64 = 3;
    loom::model(|| {
        let memory = Memory::default();
        let (mut producer, mut reader) = ring(&memory);
        let (mut sleeper, mut waker, bell) = wake(&memory);
        let pushing = thread::spawn(move || {
            let mut rang = 0;
            for number in 0..RECORDS {
                assert!(producer.push(header(0), &[&payload(number, 0)]));
                assert!(producer.publish());
                fence();
                rang += u32::from(waker.kick().unwrap());
            }
            rang
        });
        let (mut read, mut arms) = (0, 0);
        loop {
            drain(&mut reader, &[0; RECORDS as usize], &mut read);
            if read == RECORDS as usize {
                break;
            }
            arms += 1;
            if sleeper.arm_unless(|| reader.refresh() != Ok(false)) {
                bell.wait();
            }
            sleeper.disarm();
        }
        let rang = pushing.join().unwrap();
        assert!(rang <= arms, "rung for twice in one sleep");
    });
}

/// A producer that finds no room sleeps and is woken when the reader has made some.
#[test]
fn space_reaches_the_sleeping_producer() {
    loom::model(|| {
        let memory = Memory::default();
        let (mut producer, mut reader) = ring(&memory);
        let (mut sleeper, mut waker, bell) = wake(&memory);
        for number in 0..2 {
            assert!(producer.push(header(0), &[&payload(number, 2)]));
        }
        producer.publish();
        let reading = thread::spawn(move || {
            assert_eq!(reader.refresh(), Ok(true));
            for _ in 0..2 {
                reader.peek().unwrap();
                reader.skip();
                reader.release();
                fence();
                if reader.peer_wants_space() {
                    waker.kick().unwrap();
                }
            }
            reader
        });
        while !producer.push(header(0), &[&payload(2, 2)]) {
            producer.want_space();
            if producer.push(header(0), &[&payload(2, 2)]) {
                break;
            }
            if sleeper.arm_unless(|| producer.space_came()) {
                bell.wait();
            }
            sleeper.disarm();
        }
        producer.publish();
        let mut reader = reading.join().unwrap();
        drain(&mut reader, &[2; 3], &mut 2);
    });
}

/// The want word alone, without a wake word: a producer that asked for space and still found none
/// is told, whatever it does meanwhile.
#[test]
fn space_wanted_is_seen() {
    loom::model(|| {
        let memory = Memory::default();
        let (mut producer, mut reader) = ring(&memory);
        let bell = Bell::new();
        for number in 0..2 {
            assert!(producer.push(header(0), &[&payload(number, 2)]));
        }
        producer.publish();
        let told = bell.clone();
        let reading = thread::spawn(move || {
            assert_eq!(reader.refresh(), Ok(true));
            for _ in 0..2 {
                reader.peek().unwrap();
                reader.skip();
                reader.release();
                fence();
                if reader.peer_wants_space() {
                    told.ring().unwrap();
                }
            }
        });
        while !producer.push(header(0), &[&payload(2, 2)]) {
            producer.want_space();
            if producer.push(header(0), &[&payload(2, 2)]) {
                break;
            }
            bell.wait();
        }
        reading.join().unwrap();
    });
}

/// What is recalled in time never runs; what has started is seen as started, with its first grant.
#[test]
fn start_excludes_recall() {
    loom::model(|| {
        let memory = Memory::default();
        let (engine, consumer) = slots(&memory);
        let starting = thread::spawn(move || {
            consumer.grant_request(1, 77);
            consumer.start(1, 5)
        });
        engine.cancel(1, 5);
        fence();
        let started = engine.started(1) == 5;
        if started {
            assert_eq!(engine.request_granted(1), 77, "a start without its grant");
        }
        let ran = starting.join().unwrap();
        assert!(started || !ran, "a recalled exchange ran");
        assert_eq!(engine.started(1), 5);
    });
}

/// A start is heard of by an engine that waits for it.
#[test]
fn start_reaches_the_waiting_engine() {
    loom::model(|| {
        let memory = Memory::default();
        let (mut producer, reader) = ring(&memory);
        let (mut sleeper, mut waker, bell) = wake(&memory);
        let (engine, consumer) = slots(&memory);
        let starting = thread::spawn(move || {
            assert!(consumer.start(1, 5));
            if reader.peer_wants_starts() {
                waker.kick().unwrap();
            }
        });
        producer.want_starts(true);
        while engine.started(1) != 5 {
            if sleeper.arm_unless(|| engine.started(1) == 5) {
                bell.wait();
            }
            sleeper.disarm();
        }
        producer.want_starts(false);
        starting.join().unwrap();
    });
}

/// A cancel is heard of by a consumer that sleeps, through the notice alone.
#[test]
fn cancel_reaches_the_sleeping_consumer() {
    loom::model(|| {
        let memory = Memory::default();
        let (mut sleeper, mut waker, bell) = wake(&memory);
        let (engine, consumer) = slots(&memory);
        let notices = || (memory.word32(NOTICE), memory.word32(PEER_NOTICE));
        let (own, peer) = notices();
        let mut engine_notice = Notice::new(own, peer);
        let (peer, own) = notices();
        let mut consumer_notice = Notice::new(own, peer);
        let cancelling = thread::spawn(move || {
            engine.cancel(0, 9);
            engine.grant_response(0, 4096);
            engine_notice.bump();
            fence();
            waker.kick().unwrap();
        });
        while !consumer_notice.changed() {
            if sleeper.arm_unless(|| consumer_notice.is_pending()) {
                bell.wait();
            }
            sleeper.disarm();
        }
        assert!(consumer.cancelled(0, 9), "a notice without its cancel");
        assert_eq!(
            consumer.response_granted(0),
            4096,
            "a notice without its grant"
        );
        cancelling.join().unwrap();
    });
}

/// A consumer dies at any point while the engine drains and recalls: what it published is read, what
/// it did not publish is not, and nothing it ran is dispatched again as if it had not.
#[test]
fn close_settles_every_exchange() {
    for crash_after in 0..=6 {
        loom::model(move || {
            let memory = Memory::default();
            let (mut producer, mut reader) = ring(&memory);
            let (engine, consumer) = slots(&memory);
            let dead = Arc::new(AtomicBool::new(false));
            let ran = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
            let (dying, runs) = (Arc::clone(&dead), ran.clone());
            let living = thread::spawn(move || {
                let mut steps = 0..crash_after;
                let mut published = 0;
                for slot in 0..2 {
                    if steps.next().is_none() {
                        break;
                    }
                    if !consumer.start(slot, 1) {
                        continue;
                    }
                    runs[usize::from(slot)].store(1, Ordering::Relaxed);
                    if steps.next().is_none() {
                        break;
                    }
                    assert!(producer.push(header(slot), &[&payload(0, 1)]));
                    if steps.next().is_none() {
                        break;
                    }
                    producer.publish();
                    published += 1;
                }
                dying.store(true, Ordering::Release);
                published
            });

            let mut answered = [false; 2];
            let mut receive = |reader: &mut Reader| {
                reader.refresh().unwrap();
                while let Some(header) = reader.peek().unwrap() {
                    reader.skip();
                    answered[usize::from(header.slot)] = true;
                }
                reader.release();
            };
            receive(&mut reader);
            if !dead.load(Ordering::Acquire) {
                thread::yield_now();
            }
            for slot in 0..2 {
                engine.cancel(slot, 1);
            }
            fence();
            let again = [0, 1].map(|slot| engine.started(slot) != 1);
            let published = living.join().unwrap();
            receive(&mut reader);
            assert_eq!(
                answered.iter().filter(|answered| **answered).count(),
                published,
                "not exactly what was published was read"
            );
            for slot in 0..2 {
                let ran = ran[slot].load(Ordering::Relaxed) == 1;
                assert!(!(again[slot] && ran), "a recalled exchange ran");
                assert!(!answered[slot] || ran);
            }
        });
    }
}
