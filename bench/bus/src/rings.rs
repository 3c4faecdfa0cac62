//! toolB's rings: a lane with one ring in each direction, used as engine and consumers use it: push,
//! publish, fence, look whether the other side sleeps; drain, give the space back.

use std::os::fd::AsRawFd;

use toolb_core::bus::{
    ConsumerLane, EngineLane, Geometry, Kind, LoopEnds, RecordHeader, Sleeper, StatusPage, fence,
};
use toolb_core::sys::epoll::{EDGE, Epoll, Events, IN};

use crate::process::Peer;
use crate::{Asker, Outcome};

const GEOMETRY: Geometry = Geometry {
    rings: 1,
    slots: 8,
    request_capacity: 256 * 1024,
    response_capacity: 256 * 1024,
};
const DOORBELL: u64 = 0;
const CONTROL: u64 = 1;

/// The engine's end.
struct Engine {
    ends: LoopEnds,
    sleeper: Sleeper,
    /// What it blocks on; none: it polls.
    epoll: Option<Epoll>,
    ready: Events,
    freed: bool,
    slept: u64,
    rang: u64,
    // Held while the peer uses what it shares.
    _lane: EngineLane,
    _status: StatusPage,
}

impl Asker for Engine {
    #[inline]
    fn trip(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
        let ends = &mut self.ends;
        if !ends.requests.push(header(Kind::RequestHead), &[message]) {
            return Err("an empty ring has no room".into());
        }
        let published = ends.requests.publish();
        fence();
        if published || self.freed && ends.responses.peer_wants_space() {
            self.rang += u64::from(ends.waker.kick()?);
        }
        while !ends
            .responses
            .refresh()
            .map_err(|error| format!("{error:?}"))?
        {
            match &self.epoll {
                None => std::hint::spin_loop(),
                Some(epoll) => {
                    if self.sleeper.arm_unless(|| ends.has_news()) {
                        self.slept += 1;
                        epoll.wait(&mut self.ready, None)?;
                    }
                    self.sleeper.disarm();
                    if self.ready.iter().any(|(token, _)| token == CONTROL) {
                        return Err("the other side has ended".into());
                    }
                }
            }
        }
        ends.responses
            .peek()
            .map_err(|error| format!("{error:?}"))?;
        ends.responses.read(answer);
        self.freed = ends.responses.release();
        Ok(())
    }

    fn sleeps(&self) -> Option<(u64, u64)> {
        self.epoll.as_ref().map(|_| (self.slept, self.rang))
    }
}

pub(crate) fn ask_polling(peer: &Peer, _: usize) -> Outcome<Box<dyn Asker>> {
    ask(peer, false)
}

pub(crate) fn ask_sleeping(peer: &Peer, _: usize) -> Outcome<Box<dyn Asker>> {
    ask(peer, true)
}

pub(crate) fn answer_polling(peer: &Peer, _: usize) -> Outcome<()> {
    answer(peer, false)
}

pub(crate) fn answer_sleeping(peer: &Peer, _: usize) -> Outcome<()> {
    answer(peer, true)
}

fn ask(peer: &Peer, sleeps: bool) -> Outcome<Box<dyn Asker>> {
    let status = StatusPage::create(1, 1)?;
    let lane = EngineLane::create(1, &GEOMETRY, &status)?;
    peer.give("lane", &lane.fds())?;
    peer.take()?;
    let epoll = match sleeps {
        true => Some(watch(lane.doorbell_of_loop(0), peer)?),
        false => None,
    };
    Ok(Box::new(Engine {
        ends: lane.ends(0),
        sleeper: status.sleeper(0),
        epoll,
        ready: Events::with_capacity(2),
        freed: false,
        slept: 0,
        rang: 0,
        _lane: lane,
        _status: status,
    }))
}

/// The consumer's end: sends each record back.
fn answer(peer: &Peer, sleeps: bool) -> Outcome<()> {
    let (_, fds) = peer.take()?;
    let mut lane = ConsumerLane::open(fds)?;
    let epoll = watch(lane.doorbell(), peer)?;
    let mut ready = Events::with_capacity(2);
    peer.give("ready", &[])?;
    let mut bytes = Vec::new();
    loop {
        let ring = lane.ring(0);
        if !ring
            .requests
            .refresh()
            .map_err(|error| format!("{error:?}"))?
        {
            if !sleeps {
                if !peer.pause()? {
                    return Ok(());
                }
                continue;
            }
            if lane.arm() {
                epoll.wait(&mut ready, None)?;
            }
            lane.sleeper().disarm();
            if ready.iter().any(|(token, _)| token == CONTROL) {
                return Ok(());
            }
            continue;
        }
        let mut published = false;
        while ring
            .requests
            .peek()
            .map_err(|error| format!("{error:?}"))?
            .is_some()
        {
            bytes.clear();
            ring.requests.read(&mut bytes);
            if !ring.responses.push(header(Kind::ResponseHead), &[&bytes]) {
                return Err("an empty ring has no room".into());
            }
            published |= ring.responses.publish();
        }
        let freed = ring.requests.release();
        fence();
        if published || freed && ring.requests.peer_wants_space() {
            ring.waker.kick()?;
        }
    }
}

/// As the engine's loops watch it: by edges, so that nobody has to read it.
fn watch(doorbell: &impl AsRawFd, peer: &Peer) -> Outcome<Epoll> {
    let epoll = Epoll::new()?;
    epoll.add(doorbell, DOORBELL, IN | EDGE)?;
    epoll.add(&peer.control(), CONTROL, IN)?;
    Ok(epoll)
}

fn header(kind: Kind) -> RecordHeader {
    RecordHeader {
        kind: kind as u8,
        generation: 1,
        ..RecordHeader::default()
    }
}
