//! Litmus test: both sides of a lane at full speed, with checked bytes, full rings, sleeps and
//! recalls; between threads and between processes. `TOOLB_STRESS` multiplies its length.

use std::env;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::bus::tests::{SMALL, duplicates, record};
use crate::bus::*;
use crate::sys::eventfd::EventFd;
use crate::sys::seqpacket::Seqpacket;

const EXCHANGES: u64 = 60_000;
/// A wake that takes longer was lost.
const LOST: Duration = Duration::from_secs(30);
/// Set for the process that plays the consumer.
const PEER: &str = "TOOLB_STRESS_PEER";

fn exchanges() -> u64 {
    let factor = env::var("TOOLB_STRESS").map_or(1, |factor| factor.parse().unwrap());
    EXCHANGES * factor
}

fn mix(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// The payload of the exchange with this number, mostly short, sometimes as long as a record can be.
fn payload(number: u64, most: usize, into: &mut Vec<u8>) {
    let bits = mix(number);
    let limit = if bits.is_multiple_of(16) {
        most + 1
    } else {
        100
    };
    let len = (bits >> 8) as usize % limit;
    into.clear();
    into.extend(
        (0..len as u64).map(|at| (bits.rotate_left(at as u32 % 64) >> 56) as u8 ^ at as u8),
    );
}

/// The header of the exchange with this number; its slot is used anew every `slots` exchanges.
fn header(kind: Kind, number: u64) -> RecordHeader {
    let slots = u64::from(SMALL.slots);
    RecordHeader {
        generation: (number / slots) as u32 + 1,
        ..record(kind, 1, (number % slots) as u16)
    }
}

/// Sleeps until there is news, if there is none.
fn sleep(armed: bool, bell: &EventFd) {
    if armed {
        assert!(bell.wait(Some(LOST)).unwrap(), "a wake was lost");
        bell.drain();
    }
}

fn engine_side(lane: &EngineLane, status: &StatusPage, total: u64) {
    let (mut ends, mut sleeper) = (lane.ends(1), status.sleeper(1));
    let most = ends.requests.max_payload();
    let (mut sent, mut received) = (0, 0);
    let (mut expected, mut bytes) = (Vec::new(), Vec::new());
    let mut recalled = vec![false; usize::from(SMALL.slots)];
    while received < total {
        let mut progress = false;
        ends.responses.refresh().unwrap();
        while let Some(seen) = ends.responses.peek().unwrap() {
            bytes.clear();
            ends.responses.read(&mut bytes);
            payload(!received, most, &mut expected);
            assert_eq!(bytes, expected, "response {received}");
            let ran = seen.aux == 1;
            let mut wanted = header(Kind::ResponseHead, received);
            (wanted.aux, wanted.len) = (seen.aux, seen.len);
            assert_eq!(seen, wanted);
            assert!(
                !(ran && recalled[usize::from(seen.slot)]),
                "a recalled exchange ran"
            );
            received += 1;
            progress = true;
        }
        let freed = ends.responses.release();
        let first = sent;
        while sent < total && sent - received < u64::from(SMALL.slots) {
            payload(sent, most, &mut bytes);
            let header = header(Kind::RequestHead, sent);
            if !ends.requests.push(header, &[&bytes]) {
                ends.requests.want_space();
                if !ends.requests.push(header, &[&bytes]) {
                    break;
                }
            }
            sent += 1;
            progress = true;
        }
        let published = ends.requests.publish();
        fence();
        if published || freed && ends.responses.peer_wants_space() {
            ends.waker.kick().unwrap();
        }
        // Recall about half of what was just sent, while the consumer is at it.
        for number in first..sent {
            let header = header(Kind::RequestHead, number);
            recalled[usize::from(header.slot)] = false;
            if mix(!number).is_multiple_of(2) {
                ends.slots.cancel(header.slot, header.generation);
                fence();
                let started = ends.slots.started(header.slot);
                recalled[usize::from(header.slot)] = started != header.generation;
            }
        }
        if !progress {
            let armed = sleeper.arm_unless(|| ends.has_news());
            sleep(armed, lane.doorbell_of_loop(1));
            sleeper.disarm();
        }
    }
    assert_eq!(ends.requests.violation(), None);
}

fn consumer_side(mut lane: ConsumerLane, total: u64) {
    let most = lane.geometry().max_request_payload();
    let (mut taken, mut answered) = (0, 0);
    let (mut expected, mut bytes) = (Vec::new(), Vec::new());
    let mut ran = vec![0; usize::from(SMALL.slots)];
    while answered < total {
        let mut progress = false;
        lane.ring(1).requests.refresh().unwrap();
        while let Some(seen) = lane.ring(1).requests.peek().unwrap() {
            bytes.clear();
            lane.ring(1).requests.read(&mut bytes);
            payload(taken, most, &mut expected);
            assert_eq!(bytes, expected, "request {taken}");
            let mut wanted = header(Kind::RequestHead, taken);
            wanted.len = seen.len;
            assert_eq!(seen, wanted);
            ran[usize::from(seen.slot)] = u16::from(lane.start(seen.slot, seen.generation));
            taken += 1;
            progress = true;
        }
        let ring = lane.ring(1);
        let freed = ring.requests.release();
        while answered < taken {
            payload(!answered, most, &mut bytes);
            let mut header = header(Kind::ResponseHead, answered);
            header.aux = ran[usize::from(header.slot)];
            if !ring.responses.push(header, &[&bytes]) {
                ring.responses.want_space();
                if !ring.responses.push(header, &[&bytes]) {
                    break;
                }
            }
            answered += 1;
            progress = true;
        }
        let published = ring.responses.publish();
        fence();
        if published || freed && ring.requests.peer_wants_space() {
            ring.waker.kick().unwrap();
        }
        if !progress {
            let armed = lane.arm();
            sleep(armed, lane.doorbell());
            lane.sleeper().disarm();
        }
    }
    assert_eq!(lane.ring(1).responses.violation(), None);
}

fn lane() -> (StatusPage, EngineLane) {
    let status = StatusPage::create(SMALL.rings, 1).unwrap();
    let lane = EngineLane::create(1, &SMALL, &status).unwrap();
    (status, lane)
}

#[test]
fn between_threads() {
    let (status, lane) = lane();
    let consumer = ConsumerLane::open(duplicates(&lane)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| consumer_side(consumer, exchanges()));
        engine_side(&lane, &status, exchanges());
    });
}

/// The consumer gets its lane on its standard input, a packet socket.
#[test]
fn between_processes() {
    let (ours, theirs) = Seqpacket::pair().unwrap();
    let mut peer = Command::new(env::current_exe().unwrap())
        .args(["--exact", "bus::stress::peer_process", "--nocapture"])
        .env(PEER, "1")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (status, lane) = lane();
    ours.send(b"lane", &lane.fds()).unwrap();
    engine_side(&lane, &status, exchanges());
    assert!(peer.wait().unwrap().success());
}

/// No test by itself: the consumer of the test above.
#[test]
fn peer_process() {
    if env::var_os(PEER).is_none() {
        return;
    }
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let (mut bytes, mut fds) = ([0; 16], Vec::new());
    let socket = Seqpacket::from(stdin);
    assert_eq!(socket.recv(&mut bytes, &mut fds).unwrap(), 4);
    consumer_side(ConsumerLane::open(fds).unwrap(), exchanges());
}
