//! The gate: through it come consumers that nobody here has started, each over a connection to the
//! bus socket or over a socket pair within this process. The gate checks who they are, gives them
//! lanes, and settles what they held when they go. What one of them does wrong ends that one only.
#![forbid(unsafe_code)]

mod guest;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Toll};
use crate::log::Throttle;
use crate::message::{Control, MAX_CONTROL_PACKET};
use crate::sys::clock;
use crate::sys::epoll::{self, Epoll, Events};
use crate::sys::file;
use crate::sys::process::effective_user;
use crate::sys::rendezvous::Peer;
use crate::sys::seqpacket::Seqpacket;
use crate::sys::shortage;

use super::door::{Door, Look};
use super::event::Event;
use super::greet::{self, Terms};

use guest::{Guest, Stage};

/// Who may come through a gate.
#[derive(Clone, Debug)]
pub struct GateOptions {
    /// Where to bind the bus socket; `None`: only consumers of this process come.
    pub path: Option<PathBuf>,
    /// How many consumers there may be at once, those that have only connected included.
    pub consumers: usize,
    /// How long a connection may be silent before its HELLO.
    pub hello_timeout: Duration,
    /// How long it may take a program from its HELLO until it is ready for requests.
    pub start_timeout: Duration,
}

impl GateOptions {
    /// The usual gate: 256 consumers, 5 s for their HELLO, 10 minutes for their start, as workers of
    /// `toolb run` have.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            consumers: 256,
            hello_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(600),
        }
    }
}

/// All consumers that came by themselves.
///
/// It never blocks; its descriptor is readable when [`turn`](Self::turn) has something to do.
pub(super) struct Gate {
    door: Option<Door>,
    terms: Terms,
    limit: usize,
    hello_timeout: Duration,
    start_timeout: Duration,
    epoll: Epoll,
    events: Events,
    guests: BTreeMap<u64, Guest>,
    next_id: u64,
    /// Out of descriptors: nobody is let in before then.
    resting: Option<Instant>,
    packet: Vec<u8>,
    /// What is to be told of those that have gone, by lane, once it is known what has become of their
    /// requests.
    fading: BTreeMap<u64, Event>,
    refusals: Throttle,
    comings: Throttle,
    goings: Throttle,
}

/// The door; guest `i` (from 1) has `2 * i` for its socket and the number after that for its end.
const DOOR: u64 = 0;

/// Connections taken, and packets taken from one guest, in a turn: a flood from one delays nobody
/// for long.
const ACCEPTS_A_TURN: usize = 16;
const PACKETS_A_TURN: usize = 16;
/// Packets taken from a guest that has ended.
const LAST_PACKETS: usize = 64;
/// So many may come or go at once, and each is told of.
const MANY: u64 = 256;
/// Nobody is let in for so long after the process ran out of descriptors.
const REST: Duration = Duration::from_millis(100);

impl Gate {
    /// Opens the gate. An error is a line for a person, which ends with `hint`: how that person
    /// says another path.
    pub(super) fn open(options: &GateOptions, hint: &str) -> Result<Self, String> {
        let system =
            |error: io::Error| format!("cannot open the bus: {}", shortage::explain(&error));
        let epoll = Epoll::new().map_err(system)?;
        let open = |path| Door::open(path, Instant::now());
        let door = options.path.as_deref().map(open).transpose();
        let door = door.map_err(|why| why + hint)?;
        if let Some(listener) = door.as_ref().and_then(Door::listener) {
            epoll.add(listener, DOOR, epoll::IN).map_err(system)?;
        }
        Ok(Self {
            door,
            terms: Terms::default(),
            limit: options.consumers,
            hello_timeout: options.hello_timeout,
            start_timeout: options.start_timeout,
            epoll,
            events: Events::with_capacity(64),
            guests: BTreeMap::new(),
            next_id: 1,
            resting: None,
            packet: vec![0; MAX_CONTROL_PACKET],
            fading: BTreeMap::new(),
            refusals: Throttle::new(),
            comings: Throttle::of(MANY),
            goings: Throttle::of(MANY),
        })
    }

    /// Takes in a consumer of this process. There is room for one.
    pub(super) fn adopt(&mut self, socket: Seqpacket, now: Instant, tell: &mut dyn FnMut(Event)) {
        let peer = Peer {
            pid: std::process::id(),
            uid: effective_user(),
            pidfd: None,
        };
        self.receive(socket, peer, true, now, tell);
    }

    /// Does what there is to do now.
    pub(super) fn turn(&mut self, engine: &Engine, now: Instant, tell: &mut dyn FnMut(Event)) {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        // Watching descriptors of our own can fail for no reason that the next turn would not show.
        let _ = self.epoll.wait(&mut events, Some(Duration::ZERO));
        for (token, _) in events.iter() {
            match (token / 2, token % 2) {
                (0, _) => self.let_in(now, tell),
                (id, 0) => self.take_packets(engine, id, PACKETS_A_TURN, now, tell),
                (id, _) => {
                    // Its last words come before its end.
                    self.take_packets(engine, id, LAST_PACKETS, now, tell);
                    self.part(engine, id, tell);
                }
            }
        }
        self.events = events;
        self.look_at_door(now, tell);
        self.look_at_deadlines(engine, now, tell);
    }

    /// A consumer broke the rules of the bus, or stands still: it is given up.
    pub(super) fn give_up(
        &mut self,
        engine: &Engine,
        lane_id: u64,
        why: String,
        tell: &mut dyn FnMut(Event),
    ) {
        let has_lane = |guest: &Guest| guest.lane.as_ref().is_some_and(|l| l.lane_id() == lane_id);
        let found = self.guests.iter().find(|(_, guest)| has_lane(guest));
        if let Some((&id, _)) = found {
            self.refuse(engine, id, why, tell);
        }
    }

    /// Lets nobody in any more, and forgets those who have said nothing yet.
    pub(super) fn shut(&mut self) {
        self.door = None;
        self.resting = None;
        self.limit = 0;
        let waits = |guest: &Guest| matches!(guest.stage, Stage::Silent(_));
        self.guests.retain(|_, guest| !waits(guest));
    }

    /// Tells everybody to finish and leave, for which there is so much time.
    pub(super) fn drain(&mut self, engine: &Engine, left: Duration) {
        for guest in self.guests.values_mut() {
            guest.stop_dispatch(engine);
            guest.say(&Control::Drain { left: Some(left) });
        }
    }

    /// The loops have let go of a lane.
    pub(super) fn released(&mut self, lane_id: u64, toll: Toll, tell: &mut dyn FnMut(Event)) {
        if let Some(event) = self.fading.remove(&lane_id) {
            tell(event.with(toll));
        }
    }

    /// Whether there is somebody of whose requests nothing is known yet.
    pub(super) fn owes_word(&self) -> bool {
        !self.fading.is_empty()
    }

    /// Tells what there is to be told: nothing more will be known of it.
    pub(super) fn tell_rest(&mut self, tell: &mut dyn FnMut(Event)) {
        let events = std::mem::take(&mut self.fading);
        events.into_values().for_each(tell);
    }

    /// Ends all connections. What the consumers held is settled.
    pub(super) fn close(&mut self, engine: &Engine) {
        self.shut();
        for guest in std::mem::take(&mut self.guests).into_values() {
            guest.settle(engine);
        }
    }

    /// When [`turn`](Self::turn) is to be called even if nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let late = self.guests.values().filter_map(Guest::deadline);
        let look = self.door.as_ref().map(Door::look_at);
        late.chain(self.resting).chain(look).min()
    }

    /// Where the bus socket is.
    pub(super) fn path(&self) -> Option<&Path> {
        self.door.as_ref().map(Door::path)
    }

    /// How many there are, whatever they are up to.
    pub(super) fn guests(&self) -> usize {
        self.guests.len()
    }

    /// How many take requests.
    pub(super) fn serving(&self) -> usize {
        let serves = |guest: &&Guest| guest.stage == Stage::Serving;
        self.guests.values().filter(serves).count()
    }

    /// Whether there is one that takes requests, or is about to.
    pub(super) fn is_manned(&self) -> bool {
        let stays = |guest: &Guest| guest.stage != Stage::Leaving;
        self.guests.values().any(stays)
    }

    fn let_in(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listener) = self.door.as_ref().and_then(Door::listener) else {
                return;
            };
            match listener.accept() {
                Ok(Some((socket, peer))) => self.receive(socket, peer, false, now, tell),
                Ok(None) => return,
                Err(_) => {
                    // Out of descriptors: the door would be reported as long as somebody waits.
                    let _ = self.epoll.delete(listener);
                    self.resting = Some(now + REST);
                    return;
                }
            }
        }
    }

    fn receive(
        &mut self,
        socket: Seqpacket,
        peer: Peer,
        own: bool,
        now: Instant,
        tell: &mut dyn FnMut(Event),
    ) {
        let mut guest = Guest {
            socket,
            _pidfd: None,
            pid: peer.pid,
            name: String::new(),
            stage: Stage::Silent(now + self.hello_timeout),
            lane: None,
            own,
        };
        if let Err(why) = self.admit(&guest, &peer) {
            guest.say(&Control::Error(why.clone()));
            self.refusal(&guest, why).into_iter().for_each(tell);
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let watched = guest
            .socket
            .set_nonblocking(true)
            .and_then(|()| self.epoll.add(&guest.socket, 2 * id, epoll::IN))
            .and_then(|()| match &peer.pidfd {
                Some(pidfd) => self.epoll.add(pidfd, 2 * id + 1, epoll::IN),
                None => Ok(()),
            });
        if let Err(error) = watched {
            let why = format!("it cannot be watched: {error}");
            guest.say(&Control::Error(why.clone()));
            self.refusal(&guest, why).into_iter().for_each(tell);
            return;
        }
        guest._pidfd = peer.pidfd;
        self.guests.insert(id, guest);
    }

    fn admit(&self, guest: &Guest, peer: &Peer) -> Result<(), String> {
        let me = effective_user();
        if peer.uid != me && peer.uid != 0 {
            return Err(format!(
                "it runs as user {}, and this engine as user {me}: run both as the same user",
                peer.uid
            ));
        }
        if self.limit == 0 {
            return Err("the engine is about to end".to_owned());
        }
        if guest.own && self.guests.values().any(|other| other.own) {
            return Err(
                "one process has room for one consumer: `toolb run` starts workers as processes of their own, as many as you like"
                    .to_owned(),
            );
        }
        if self.guests.len() >= self.limit {
            return Err(format!(
                "there are {} consumers already, as many as may be; stop one of them first",
                self.limit
            ));
        }
        Ok(())
    }

    fn take_packets(
        &mut self,
        engine: &Engine,
        id: u64,
        most: usize,
        now: Instant,
        tell: &mut dyn FnMut(Event),
    ) {
        for _ in 0..most {
            let Some(guest) = self.guests.get(&id) else {
                return;
            };
            let mut fds = Vec::new();
            let taken = match guest.socket.recv(&mut self.packet, &mut fds) {
                Ok(0) => return self.part(engine, id, tell),
                Ok(len) => match Control::decode(&self.packet[..len]) {
                    Ok(file @ Control::File { .. }) => {
                        let lane = guest.lane.as_ref();
                        greet::take_file(engine, lane, &file, fds)
                    }
                    _ if !fds.is_empty() => {
                        file::close_elsewhere(fds);
                        Err("it sent descriptors that nobody asked for".to_owned())
                    }
                    Ok(control) => self.take_packet(engine, id, control, now, tell),
                    Err(error) => Err(error.to_string()),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = taken {
                return self.refuse(engine, id, why, tell);
            }
        }
    }

    fn take_packet(
        &mut self,
        engine: &Engine,
        id: u64,
        control: Control,
        now: Instant,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), String> {
        let until = now + self.start_timeout;
        let serving = self.serving();
        let Some(guest) = self.guests.get_mut(&id) else {
            return Ok(());
        };
        if matches!(guest.stage, Stage::Silent(_)) {
            return match control {
                Control::Hello(hello) => guest.greet(engine, &self.terms, &hello, until),
                _ => Err("it did not begin with a hello".to_owned()),
            };
        }
        match control {
            Control::Hello(_) => return Err("it said hello twice".to_owned()),
            Control::Ready => {
                if let Stage::Starting(_) = guest.stage {
                    guest.stage = Stage::Serving;
                    if let Some(lane) = &guest.lane {
                        engine.lane_up(lane);
                    }
                    if let Some(others) = self.comings.admit(clock::now()) {
                        tell(Event::Joined {
                            name: guest.name.clone(),
                            pid: guest.pid,
                            consumers: serving + 1,
                            others,
                        });
                    }
                }
            }
            Control::Failed { reason, .. } => {
                return Err(format!("its application could not start: {reason}"));
            }
            Control::Error(why) => return Err(format!("it gave up: {why}")),
            Control::Draining => guest.stop_dispatch(engine),
            // It may keep the socket for a while, until it looks for an engine again.
            Control::Drained => {
                guest.stage = Stage::Leaving;
                self.part(engine, id, tell);
            }
            Control::State { .. } => return Err("it sent what only a worker says".to_owned()),
            Control::Welcome(_) | Control::Drain { .. } | Control::Ask | Control::File { .. } => {
                return Err("it sent what only the engine says".to_owned());
            }
        }
        Ok(())
    }

    fn look_at_door(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) {
        let Some(door) = &mut self.door else {
            return;
        };
        if let Some(look) = door.look(now) {
            // The former socket was closed, and so is not watched any more.
            self.resting = Some(now);
            let bus = door.path().into();
            tell(match look {
                Look::Again => Event::BusAgain { bus },
                Look::Lost(why) => Event::BusLost { bus, why },
            });
        }
        if self.resting.is_some_and(|until| until <= now) {
            self.resting = None;
            if let Some(listener) = door.listener()
                && self.epoll.add(listener, DOOR, epoll::IN).is_err()
            {
                // Without memory for that either, the door would stay shut.
                self.resting = Some(now + REST);
            }
        }
    }

    fn look_at_deadlines(&mut self, engine: &Engine, now: Instant, tell: &mut dyn FnMut(Event)) {
        let late = |guest: &Guest| guest.deadline().is_some_and(|until| until <= now);
        let ids = self.guests.iter().filter(|(_, guest)| late(guest));
        let ids: Vec<_> = ids.map(|(&id, guest)| (id, guest.stage)).collect();
        for (id, stage) in ids {
            let (what, limit) = match stage {
                Stage::Silent(_) => ("say hello", self.hello_timeout),
                _ => ("get ready", self.start_timeout),
            };
            let why = format!("it did not {what} within {} s", limit.as_secs_f64());
            self.refuse(engine, id, why, tell);
        }
    }

    /// Ends a connection with a word why.
    fn refuse(&mut self, engine: &Engine, id: u64, why: String, tell: &mut dyn FnMut(Event)) {
        if let Some(guest) = self.guests.remove(&id) {
            guest.say(&Control::Error(why.clone()));
            let event = self.refusal(&guest, why);
            self.tell_of(event, guest, engine, tell);
        }
    }

    /// Who is sent away may come again at once: `None` if that was told often enough.
    fn refusal(&self, guest: &Guest, why: String) -> Option<Event> {
        let others = self.refusals.admit(clock::now())?;
        Some(Event::Refused {
            name: guest.name.clone(),
            pid: guest.pid,
            why,
            toll: Toll::default(),
            others,
        })
    }

    /// It has hung up, or its process has ended.
    fn part(&mut self, engine: &Engine, id: u64, tell: &mut dyn FnMut(Event)) {
        let Some(guest) = self.guests.remove(&id) else {
            return;
        };
        let comes = guest.lane.is_some();
        let others = comes.then(|| self.goings.admit(clock::now())).flatten();
        let event = others.map(|others| Event::Left {
            name: guest.name.clone(),
            pid: guest.pid,
            asked: guest.stage == Stage::Leaving,
            toll: Toll::default(),
            consumers: self.serving(),
            others,
        });
        self.tell_of(event, guest, engine, tell);
    }

    /// Settles what a guest held that has gone, and tells of it as soon as that is done.
    fn tell_of(
        &mut self,
        event: Option<Event>,
        guest: Guest,
        engine: &Engine,
        tell: &mut dyn FnMut(Event),
    ) {
        match (guest.settle(engine), event) {
            (Some(lane_id), Some(event)) => {
                self.fading.insert(lane_id, event);
            }
            (None, Some(event)) => tell(event),
            (_, None) => {}
        }
    }
}

impl AsRawFd for Gate {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
