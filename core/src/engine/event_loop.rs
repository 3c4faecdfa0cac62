//! One loop: a thread that owns connections and its ends of every lane.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{self, Sleeper};
use crate::http::{Extras, Head};
use crate::sys::clock;
use crate::sys::epoll::{self, Epoll, Events};
use crate::sys::socket::Listener;
use crate::time::{Deadlines, http_date};

use super::accept::ACCEPT_BATCH;
use super::conn::{Conn, Exchange};
use super::context::{Calls, LetGo};
use super::inline::Response;
use super::lane_end::LaneEnd;
use super::mailbox::Letter;
use super::shared::Shared;
use super::slab::Slab;
use super::stream::{LoopService, ServiceOptions, Streams};

/// Read at most this much from one connection before the others have had their turn.
pub(super) const TURN_BUDGET: usize = 256 * 1024;
/// The buffer that a loop lends to the connection it reads from.
pub(super) const READ_BUFFER: usize = 64 * 1024;
/// How long a loop may sleep while a consumer that is awake may be holding back its kick.
const COALESCING_NAP: u64 = 1_000_000;
/// After so long a sleep, or standstill, deadlines wait for another turn, which comes at once.
const PAUSE: u64 = 50_000_000;
/// And for no more turns than this, whatever they bring.
const MOST_UNHEARD: usize = 16;

const TAG: u64 = 0xF000_0000_0000_0000;
const TAG_CONN: u64 = 0;
pub(super) const TAG_LISTENER: u64 = 0x1000_0000_0000_0000;
const TAG_BELL: u64 = 0x2000_0000_0000_0000;
const TAG_LANE: u64 = 0x3000_0000_0000_0000;
pub(super) const TAG_WATCH: u64 = 0x4000_0000_0000_0000;
pub(super) const TAG_STREAM: u64 = 0x5000_0000_0000_0000;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Timer {
    Conn(u64),
    Lane(u16),
    Accept,
    Drain,
    Stream(u64),
}

/// The services of a loop as it begins.
#[derive(Default)]
pub(super) struct Services {
    pub(super) services: Vec<LoopService>,
    pub(super) options: Vec<ServiceOptions>,
    /// By address.
    pub(super) purposes: Vec<Purpose>,
}

/// What is spoken at an address.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// HTTP.
    Http,
    /// What a service speaks, by its place.
    Service(u16),
    /// What consumers speak; with what they learn of the address.
    Streams((String, u16)),
}

/// Everything a loop thread owns.
pub(super) struct Loop {
    pub(super) index: u16,
    pub(super) shared: Arc<Shared>,
    pub(super) epoll: Epoll,
    pub(super) listeners: Vec<Listener>,
    /// Services of raw connections.
    pub(super) services: Vec<LoopService>,
    /// By address.
    pub(super) purposes: Vec<Purpose>,
    pub(super) accepting: bool,
    /// Since then it is known in the log that accepting rests.
    pub(super) rests_since: Option<u64>,
    sleeper: Sleeper,
    /// The time of this turn.
    pub(super) now: u64,
    date_until: u64,
    pub(super) date: [u8; 29],
    pub(super) conns: Slab<Conn>,
    pub(super) lanes: Vec<Option<Box<LaneEnd>>>,
    pub(super) deadlines: Deadlines<Timer>,
    /// What application code waits for.
    pub(super) calls: Calls,
    /// Connections to go on with though the kernel has nothing new to say of them.
    pub(super) ready: VecDeque<u64>,
    /// Connections with output to send.
    pub(super) dirty: Vec<u64>,
    pub(super) head: Head,
    /// Lent to the connection that is being read from.
    pub(super) read_buffer: Vec<u8>,
    /// Spare output buffers.
    pub(super) spares: Vec<Vec<u8>>,
    /// Spare exchanges: one is begun and ended with every request.
    #[expect(
        clippy::vec_box,
        reason = "they move into connections and back by pointer"
    )]
    pub(super) exchanges: Vec<Box<Exchange>>,
    pub(super) scratch: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) inline_response: Response,
    /// What handlers keep on this loop, by the place in their route.
    pub(super) states: Vec<Option<Box<dyn Any>>>,
    /// Words for consumers were moved after this turn's flush.
    pub(super) lanes_dirty: bool,
    pub(super) draining: bool,
    /// How many may still be accepted in a drain, by address.
    pub(super) last_clients: Vec<usize>,
    /// Connections that are idle end.
    pub(super) last_call_over: bool,
    pub(super) reported_idle: bool,
    /// The connection that `advance` is at: it need not be marked as ready.
    pub(super) at: u64,
    stopped: bool,
}

impl Loop {
    /// Watches what a loop is to be woken by from the start: all of it that can fail.
    pub(super) fn watch(index: u16, shared: &Shared, listeners: &[Listener]) -> io::Result<Epoll> {
        let epoll = Epoll::new()?;
        for (address, listener) in listeners.iter().enumerate() {
            epoll.add(listener, TAG_LISTENER | address as u64, epoll::IN)?;
        }
        let bell = shared.mailboxes[usize::from(index)].bell();
        epoll.add(bell, TAG_BELL, epoll::IN | epoll::EDGE)?;
        Ok(epoll)
    }

    /// With the `epoll` that `watch` made.
    pub(super) fn new(
        index: u16,
        shared: Arc<Shared>,
        listeners: Vec<Listener>,
        services: Services,
        epoll: Epoll,
        let_go: LetGo,
    ) -> Self {
        Self {
            index,
            sleeper: shared.page.sleeper(index),
            inline_response: Response::at(
                shared.mailboxes[usize::from(index)].clone(),
                shared.config.response_window as usize,
            ),
            shared,
            epoll,
            listeners,
            services: services.services,
            purposes: services.purposes,
            accepting: true,
            rests_since: None,
            now: clock::now(),
            date_until: 0,
            date: http_date(clock::unix_seconds()),
            conns: Slab::new(),
            lanes: Vec::new(),
            deadlines: Deadlines::new(),
            calls: Calls::new(Streams::new(index, services.options), let_go),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            head: Head::default(),
            read_buffer: Vec::with_capacity(READ_BUFFER),
            spares: Vec::new(),
            exchanges: Vec::new(),
            scratch: Vec::new(),
            path: Vec::new(),
            states: Vec::new(),
            lanes_dirty: false,
            draining: false,
            last_clients: Vec::new(),
            last_call_over: false,
            reported_idle: false,
            at: u64::MAX,
            stopped: false,
        }
    }

    /// Turns until it is told to stop.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(512);
        self.look_at_the_clock();
        let shared = self.shared.clone();
        self.states = shared.routes.inline.make_states(&mut self.context());
        drop(shared);
        self.init_services();
        let mut unheard = 0_usize;
        while !self.stopped {
            let timeout = self.lie_down();
            let woken = self.epoll.wait(&mut events, timeout);
            self.sleeper.disarm();
            self.mailbox().disarm();
            if let Err(error) = woken {
                panic!("loop {}: epoll_wait failed: {error}", self.index);
            }
            let before = self.now;
            self.look_at_the_clock();
            for index in 0..events.len() {
                let (token, flags) = events.at(index);
                self.take_event(token, flags);
            }
            self.read_mail();
            self.drain_lanes();
            if !self.stopped {
                self.go_on_with_ready();
            }
            self.go_on_with_streams();
            // Nobody is late who was not heard: after a pause there may be more news than this turn's.
            let has_heard_all = self.now - before < PAUSE && !events.is_full();
            unheard = if has_heard_all { 0 } else { unheard + 1 };
            if unheard.is_multiple_of(MOST_UNHEARD) {
                self.fire_deadlines();
            }
            self.fire_timers();
            self.recall_overdue();
            self.pump();
            self.flush_lanes();
            self.flush_conns();
            self.finish_streams();
            if std::mem::take(&mut self.lanes_dirty) {
                self.flush_lanes();
            }
        }
        self.wind_up();
    }

    /// Lets go of what application code keeps here, on the thread where it was made.
    fn wind_up(mut self) {
        self.cancel_tokens();
        self.end_services();
        self.mailbox().close();
        // Callbacks may point into the states, and connections lead to neither.
        self.stats().closed.add(self.conns.len() as u64);
        for key in self.conns.keys() {
            if let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.unsent() > 0) {
                // So that nobody takes what he has for the whole.
                conn.socket.reset_on_close();
            }
        }
        self.conns = Slab::new();
        let none = Calls::new(Streams::new(self.index, Vec::new()), self.calls.let_go);
        let calls = std::mem::replace(&mut self.calls, none);
        self.context().let_go(calls);
        let states = std::mem::take(&mut self.states);
        self.context().let_go(states);
    }

    /// Decides how long to sleep, and announces sleep if it is for longer than a moment.
    fn lie_down(&mut self) -> Option<Duration> {
        if !self.ready.is_empty() || self.calls.streams.has_work() {
            return Some(Duration::ZERO);
        }
        self.mailbox().arm();
        self.sleeper.arm();
        if !self.mailbox().is_empty() || self.lanes_have_news() {
            self.sleeper.disarm();
            return Some(Duration::ZERO);
        }
        let mut until = self.deadlines.next().unwrap_or(u64::MAX);
        if let Some(due) = self.calls.timers.next() {
            until = until.min(due);
        }
        let recalls = self.lanes.len() > 1;
        for lane in self.lanes.iter_mut().flatten() {
            if lane.may_hold_back() && lane.held > 0 && !lane.poisoned {
                until = until.min(self.now + COALESCING_NAP);
            }
            if recalls {
                until = until.min(lane.recall_at(self.now));
            }
        }
        match until {
            u64::MAX => None,
            _ => Some(Duration::from_nanos(until.saturating_sub(clock::now()))),
        }
    }

    fn look_at_the_clock(&mut self) {
        self.now = clock::now();
        self.calls.streams.now = self.now;
        if self.now >= self.date_until {
            self.date = http_date(clock::unix_seconds());
            self.date_until = self.now + 200_000_000;
        }
    }

    #[inline]
    fn take_event(&mut self, token: u64, flags: u32) {
        match token & TAG {
            TAG_CONN => self.conn_event(token, flags),
            TAG_LISTENER => {
                self.accept_at((token & !TAG) as usize, ACCEPT_BATCH);
            }
            TAG_STREAM => self.stream_event(token & !TAG, flags),
            // Lanes and mail are looked at in every turn; their bells only end the sleep.
            TAG_LANE | TAG_BELL => {}
            TAG_WATCH => self.watch_event(token & !TAG, flags),
            tag => unreachable!("no descriptor has the tag {tag:#x}"),
        }
    }

    fn read_mail(&mut self) {
        for letter in self.mailbox().take() {
            match letter {
                Letter::Granted(ticket, reservation) => self.granted(&ticket, reservation),
                Letter::LaneUp(handle) => self.lane_up(handle),
                Letter::LaneDown(handle) => self.lane_down(&handle),
                Letter::Token(outbox) => self.token_letter(&outbox),
                Letter::File(handle, slot, generation, file) => {
                    self.file_arrived(&handle, slot, generation, file);
                }
                Letter::FilePart(part) => self.file_part(part),
                Letter::Pump => {}
                Letter::Cut => self.cut_off(),
                Letter::Forgo => self.forgo_waiting(),
                Letter::Drain => self.drain(),
                Letter::Stop => {
                    // Goes out at the end of this turn, which is the last: nothing is begun in it.
                    self.cut_off();
                    self.stopped = true;
                }
            }
        }
    }

    fn go_on_with_ready(&mut self) {
        // What is added meanwhile has its turn next time, after the kernel's news.
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.ready = false;
                self.advance(key);
            }
        }
    }

    fn fire_deadlines(&mut self) {
        while let Some((due, timer)) = self.deadlines.pop_due(self.now) {
            match timer {
                Timer::Conn(key) => self.conn_deadline(key, due),
                Timer::Lane(lane) => self.look_at_turns(lane, due),
                Timer::Accept => self.resume_accepting(),
                Timer::Drain => self.drain_deadline(),
                Timer::Stream(key) => self.stream_deadline(key, due),
            }
        }
    }

    /// Shares out room to exchanges that wait for it, whichever loop they belong to.
    pub(super) fn pump(&mut self) {
        if self.shared.pool.waiting() == 0 {
            return;
        }
        while let Some((ticket, reservation)) = self.shared.pool.pump() {
            match ticket.owner() == self.index {
                true => self.granted(&ticket, reservation),
                false => self.shared.mailboxes[usize::from(ticket.owner())]
                    .post(Letter::Granted(ticket, reservation)),
            }
        }
    }

    /// Publishes what this turn wrote for consumers and wakes those that sleep.
    pub(super) fn flush_lanes(&mut self) {
        let wants_starts = self.shared.wants_starts(self.index);
        for lane in self.lanes.iter_mut().flatten() {
            if lane.wants_starts != wants_starts {
                lane.wants_starts = wants_starts;
                // Of those from before there is no notice.
                lane.look_for_starts |= wants_starts;
                lane.ends.requests.want_starts(wants_starts);
            }
            let published = lane.ends.requests.publish();
            lane.touched |= published;
            lane.told |= published;
            lane.ends.responses.release();
        }
        bus::fence();
        for lane in self.lanes.iter_mut().flatten() {
            if std::mem::take(&mut lane.touched) || lane.ends.responses.peer_wants_space() {
                // A bell that cannot be rung belongs to a dead consumer.
                let _ = lane.ends.waker.kick();
            }
        }
    }

    pub(super) fn mailbox(&self) -> &super::mailbox::Mailbox {
        &self.shared.mailboxes[usize::from(self.index)]
    }

    pub(super) fn stats(&self) -> &crate::stats::LoopStats {
        &self.shared.stats[usize::from(self.index)]
    }

    /// Watches the bell that the consumer of `lane` rings for this loop.
    pub(super) fn watch_lane(&self, lane: &LaneEnd) -> io::Result<()> {
        let bell = lane.handle.lane.doorbell_of_loop(self.index);
        let token = TAG_LANE | u64::from(lane.handle.index);
        self.epoll.add(bell, token, epoll::IN | epoll::EDGE)
    }

    pub(super) fn unwatch_lane(&self, lane: &LaneEnd) {
        // The eventfd outlives this loop's interest in it, so closing does not remove it.
        let _ = self
            .epoll
            .delete(lane.handle.lane.doorbell_of_loop(self.index));
    }
}

/// The fields that the engine adds to responses.
pub(super) fn extras<'a>(date: &'a [u8; 29], shared: &'a Shared) -> Extras<'a> {
    Extras {
        date: shared.config.date_header.then_some(date),
        server: shared.config.server_header.as_deref(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::mailbox::Mailbox;
    use super::super::{Engine, Listen, Request, Routes, Step};
    use super::*;
    use crate::config::EngineConfig;

    /// The only loop of an engine, which serves at an address of its own once it is run, for as long
    /// as the engine is there.
    pub(in crate::engine) fn unstarted(routes: Routes) -> (Engine, Loop) {
        let listen = Listen::Tcp {
            host: "127.0.0.1".into(),
            port: 0,
        };
        let mut engine = Engine::bind(EngineConfig::default(), routes, &[listen]).unwrap();
        let listeners = engine.bound.remove(0).sockets;
        let epoll = Loop::watch(0, &engine.shared, &listeners).unwrap();
        let services = Services {
            purposes: vec![Purpose::Http],
            ..Services::default()
        };
        let shared = engine.shared.clone();
        let one = Loop::new(0, shared, listeners, services, epoll, |_, drop| drop());
        (engine, one)
    }

    #[test]
    fn nothing_is_begun_that_the_end_would_leave_without_an_answer() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static HOME: OnceLock<Arc<Mailbox>> = OnceLock::new();
        let ends_all = |_: &Request<'_>, response: &mut Response| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            // Both letters are read in this turn: the connection can go on, and the loop ends.
            response.later().answer(b"").unwrap();
            HOME.get().unwrap().post(Letter::Stop);
            Step::Later
        };
        let mut routes = Routes::default();
        let inserted = routes.inline.insert("GET", "/", Arc::new(ends_all));
        inserted.unwrap();
        let (_engine, one) = unstarted(routes);
        HOME.get_or_init(|| one.shared.mailboxes[0].clone());
        let mut client = TcpStream::connect(one.listeners[0].local_tcp().unwrap()).unwrap();
        let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        client.write_all(request.repeat(2).as_bytes()).unwrap();
        one.run();
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        let answered = answers.matches("HTTP/1.1 200 ").count();
        assert_eq!(ASKED.load(Ordering::Relaxed), answered);
    }
}
