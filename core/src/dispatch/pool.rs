//! The pool: admission, the choice of a lane, and what comes back.
#![forbid(unsafe_code)]

use std::sync::{Arc, OnceLock, PoisonError};

use super::{
    lane::{Gate, Lane, LaneLimits, Work},
    line::WaitingLine,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Line, Mutex, Ordering, fence},
    ticket::Ticket,
};

/// Most lanes of one pool.
pub const MAX_LANES: u16 = 1024;

/// What a pool admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Exchanges that may wait for room.
    pub queue_size: usize,
    /// Exchanges that may be in the pool at once, those that wait included.
    pub limit_concurrency: Option<usize>,
}

/// The right to send one exchange to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// The lane's index in its pool.
    pub lane: u16,
    /// The id of the exchange on the lane.
    pub slot: u16,
    /// Tells the exchange from earlier ones with the same slot; never 0.
    pub generation: u32,
}

/// What became of an exchange that asked for a lane.
#[derive(Debug)]
pub enum Admission {
    /// It may be sent at once.
    Granted(Reservation),
    /// It waits, and will come out of [`Pool::pump`]. The caller pumps now.
    Queued(Arc<Ticket>),
    /// As many wait already as may.
    Full,
    /// As many are in the pool already as may.
    Limit,
}

/// The consumers of one application, and the line of exchanges that wait for them.
pub struct Pool {
    limit_concurrency: Option<usize>,
    /// Who waits: requests, and streams apart from them, as room for one may be none for the other.
    line: WaitingLine,
    streams: WaitingLine,
    /// Indices of open lanes, and how many words of them are ever used.
    open: Line<[AtomicU64; MAX_LANES as usize / 64]>,
    open_words: AtomicUsize,
    lanes: Box<[OnceLock<Box<Lane>>]>,
    /// Held while lanes come, go, open and close.
    registry: Mutex<()>,
    /// Exchanges in the pool; counted only under a limit.
    admitted: Line<AtomicUsize>,
    /// Every loop has been told to ask for starts, and none has found since that nobody waits.
    asked: AtomicBool,
}

impl Pool {
    /// A pool without lanes.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limit_concurrency: limits.limit_concurrency,
            line: WaitingLine::new(limits.queue_size),
            streams: WaitingLine::new(limits.queue_size),
            open: Line(std::array::from_fn(|_| AtomicU64::new(0))),
            open_words: AtomicUsize::new(0),
            lanes: (0..MAX_LANES).map(|_| OnceLock::new()).collect(),
            registry: Mutex::new(()),
            admitted: Line(AtomicUsize::new(0)),
            asked: AtomicBool::new(false),
        }
    }

    /// Asks for room for a new exchange. Until [`Pool::leave`] it counts towards the limit, unless it
    /// was refused. Newcomers do not overtake those who wait for the same.
    pub fn admit(&self, work: Work, owner: u16, exchange: u64) -> Admission {
        if !self.enter() {
            return Admission::Limit;
        }
        let line = self.line_of(work);
        if line.live() == 0
            && let Some(reservation) = self.reserve(work)
        {
            return Admission::Granted(reservation);
        }
        match line.push_back(owner, exchange) {
            Some(ticket) => self.look_again(work, ticket),
            None => {
                self.leave();
                Admission::Full
            }
        }
    }

    /// Asks for room for an exchange that has to be dispatched again: ahead of the line, never
    /// refused, not counted again.
    pub fn readmit(&self, work: Work, owner: u16, exchange: u64) -> Admission {
        let line = self.line_of(work);
        if line.is_front_empty()
            && let Some(reservation) = self.reserve(work)
        {
            return Admission::Granted(reservation);
        }
        self.look_again(work, line.push_front(owner, exchange))
    }

    /// An admitted exchange was answered or dropped. Once for each one granted or queued.
    pub fn leave(&self) {
        if self.limit_concurrency.is_some() {
            self.admitted.0.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The next waiting ticket that got room. The caller hands it to its owner, who sends the
    /// exchange or calls [`Pool::release`], and pumps on until there is none.
    pub fn pump(&self) -> Option<(Arc<Ticket>, Reservation)> {
        // The room was made by a SeqCst operation and tickets are counted by another before they
        // are pushed: if this load misses one, its pusher's second look finds the room.
        // Streams first: how many there are is bounded, so that they cannot starve requests.
        loop {
            let mut held_in_vain = false;
            for work in [Work::Stream, Work::Request] {
                let line = self.line_of(work);
                if line.live() == 0 {
                    continue;
                }
                let Some(reservation) = self.reserve(work) else {
                    continue;
                };
                if let Some(ticket) = line.grant_first() {
                    return Some((ticket, reservation));
                }
                self.release(reservation);
                held_in_vain = true;
            }
            // Whoever looked for room while this was holding it found none: look for him.
            if !held_in_vain || cfg!(mutant = "no_release_recheck") {
                return None;
            }
            fence(Ordering::SeqCst);
            if self.line.is_empty() && self.streams.is_empty() {
                return None;
            }
        }
    }

    /// The consumer started the exchange: gives its part of the window back. Does nothing the second
    /// time, nor for a generation or a lane that is gone. The caller pumps.
    pub fn started(&self, lane: u16, slot: u16, generation: u32) {
        if let Some(lane) = self.lane(lane) {
            lane.start(slot, generation);
        }
    }

    /// The consumer is done with the exchange: gives all it held back. Does nothing the second time,
    /// nor for a generation or a lane that is gone. The caller pumps.
    pub fn finished(&self, lane: u16, slot: u16, generation: u32) {
        if let Some(lane) = self.lane(lane) {
            lane.finish(slot, generation);
        }
    }

    /// The reservation was not used: gives it back. The caller pumps.
    pub fn release(&self, reservation: Reservation) {
        self.finished(reservation.lane, reservation.slot, reservation.generation);
    }

    /// Room on any lane but `except` that is not stalled, for an exchange that is to be called back
    /// from there. It is in the pool already and is not counted again.
    pub fn reserve_elsewhere(&self, work: Work, except: u16) -> Option<Reservation> {
        self.reserve_among(work, |index, gate| index != except && !gate.is_stalled())
    }

    /// Whether the reservation is still good. Its owner asks before it uses one that was posted to
    /// it: the lane may have been removed on the way.
    pub fn holds(&self, reservation: Reservation) -> bool {
        self.lane(reservation.lane)
            .is_some_and(|lane| lane.holds(reservation.slot, reservation.generation))
    }

    /// Adds a lane, closed for now, under the lowest index that is free and fits. `None` if there is
    /// none.
    pub fn add_lane(&self, limits: LaneLimits) -> Option<u16> {
        let _registry = self.lock_registry();
        (0..MAX_LANES)
            .zip(&self.lanes)
            .find(|(_, cell)| {
                cell.get_or_init(|| Box::new(Lane::new(limits.slots)))
                    .occupy(limits)
            })
            .map(|(index, _)| index)
    }

    /// Lets work in. The caller pumps.
    pub fn open_lane(&self, index: u16) {
        let _registry = self.lock_registry();
        let Some(lane) = self.lane(index).filter(|lane| !lane.is_vacant()) else {
            return;
        };
        let (word, bit) = bit_of(index);
        lane.open(true);
        self.open_words.fetch_max(word + 1, Ordering::SeqCst);
        self.open.0[word].fetch_or(bit, Ordering::SeqCst);
    }

    /// Lets no more work in; what is under way goes on.
    pub fn close_lane(&self, index: u16) {
        let _registry = self.lock_registry();
        if let Some(lane) = self.lane(index) {
            self.close(index, lane);
        }
    }

    /// Forgets a lane whose exchanges are settled; those that are not vanish. The index is used
    /// again once every reservation that was being made has noticed.
    pub fn remove_lane(&self, index: u16) {
        let _registry = self.lock_registry();
        if let Some(lane) = self.lane(index) {
            self.close(index, lane);
            lane.vacate();
        }
    }

    /// A lane whose consumer does not turn gets work only when no other has room.
    pub fn mark_stalled(&self, lane: u16, stalled: bool) {
        if let Some(lane) = self.lane(lane) {
            lane.stall(stalled);
        }
    }

    /// For whoever has just joined the line: a start makes room in a window, also on rings of loops
    /// that sleep. `tell_others` is called unless every loop knows; it makes each of the others call
    /// [`Pool::wants_starts`] once more.
    pub fn ask_for_starts(&self, tell_others: impl FnOnce()) {
        if !self.asked.swap(true, Ordering::SeqCst) {
            tell_others();
        }
    }

    /// Whether a loop is to hear of starts, as somebody waits. It asks before it sleeps.
    pub fn wants_starts(&self, tell_others: impl FnOnce()) -> bool {
        if self.waiting() > 0 {
            return true;
        }
        if !self.asked.load(Ordering::SeqCst) {
            return false;
        }
        self.asked.store(false, Ordering::SeqCst);
        // Whoever joined the line before that found the loops asked already and told nobody; and
        // others may have seen since that they are not, and be about to sleep.
        if self.waiting() == 0 {
            return false;
        }
        if !cfg!(mutant = "no_second_call") {
            self.ask_for_starts(tell_others);
        }
        true
    }

    /// Whether there is a lane that lets work in, with room or without.
    pub fn has_open_lane(&self) -> bool {
        self.open_lanes().next().is_some()
    }

    /// Exchanges that wait for room.
    pub fn waiting(&self) -> usize {
        self.line.live() + self.streams.live()
    }

    /// Exchanges sent or about to be sent to a lane, and not finished.
    pub fn in_flight(&self, lane: u16) -> u32 {
        self.lane(lane)
            .map_or(0, |lane| lane.gate().in_flight().into())
    }

    /// Whether a lane other than this one has room, so that nobody may wait: for tests.
    #[cfg(any(test, shuttle))]
    pub fn has_room_beside(&self, lane: u16) -> bool {
        self.open_lanes()
            .any(|(index, other)| index != lane && other.gate_with_room(Work::Request).is_some())
    }

    /// Counts an exchange towards the limit, exactly: never above it, never refused below it.
    fn enter(&self) -> bool {
        let Some(limit) = self.limit_concurrency else {
            return true;
        };
        let mut admitted = self.admitted.0.load(Ordering::Relaxed);
        loop {
            if admitted >= limit {
                return false;
            }
            match self.admitted.0.compare_exchange_weak(
                admitted,
                admitted + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => admitted = now,
            }
        }
    }

    /// The second look of whoever joined the line. Takes the room it finds only if nobody else
    /// waits; else the caller's pump gives it to whoever is first.
    fn look_again(&self, work: Work, ticket: Arc<Ticket>) -> Admission {
        fence(Ordering::SeqCst);
        if !cfg!(mutant = "no_push_recheck")
            && self.line_of(work).live() == 1
            && let Some(reservation) = self.reserve(work)
        {
            if ticket.cancel() {
                return Admission::Granted(reservation);
            }
            self.release(reservation);
        }
        Admission::Queued(ticket)
    }

    /// Takes room on the lane with the fewest in flight, the lowest index among equals.
    fn reserve(&self, work: Work) -> Option<Reservation> {
        self.reserve_among(work, |_, _| true)
    }

    fn reserve_among(&self, work: Work, fits: impl Fn(u16, Gate) -> bool) -> Option<Reservation> {
        loop {
            let (index, lane, seen) = self.best(work, &fits)?;
            if let Some((slot, generation)) = lane.take(seen, work) {
                return Some(Reservation {
                    lane: index,
                    slot,
                    generation,
                });
            }
        }
    }

    fn best(&self, work: Work, fits: &impl Fn(u16, Gate) -> bool) -> Option<(u16, &Lane, Gate)> {
        let mut best: Option<(u16, &Lane, Gate)> = None;
        for (index, lane) in self.open_lanes() {
            let Some(gate) = lane.gate_with_room(work).filter(|gate| fits(index, *gate)) else {
                continue;
            };
            if gate.load() == 0 {
                return Some((index, lane, gate));
            }
            if best.is_none_or(|(_, _, other)| gate.load() < other.load()) {
                best = Some((index, lane, gate));
            }
        }
        best
    }

    fn open_lanes(&self) -> impl Iterator<Item = (u16, &Lane)> {
        let words = self.open_words.load(Ordering::SeqCst);
        (0u16..)
            .zip(&self.open.0[..words])
            .flat_map(|(word, bits)| {
                let mut bits = bits.load(Ordering::SeqCst);
                std::iter::from_fn(move || {
                    let bit = bits.trailing_zeros() as u16;
                    bits &= bits.wrapping_sub(1);
                    (bit < 64).then_some(word * 64 + bit)
                })
            })
            .filter_map(|index| Some((index, self.lane(index)?)))
    }

    fn line_of(&self, work: Work) -> &WaitingLine {
        match work {
            Work::Request => &self.line,
            Work::Stream => &self.streams,
        }
    }

    fn lane(&self, index: u16) -> Option<&Lane> {
        self.lanes.get(usize::from(index))?.get().map(AsRef::as_ref)
    }

    fn close(&self, index: u16, lane: &Lane) {
        let (word, bit) = bit_of(index);
        self.open.0[word].fetch_and(!bit, Ordering::SeqCst);
        lane.open(false);
    }

    fn lock_registry(&self) -> impl Drop {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bit_of(index: u16) -> (usize, u64) {
    (usize::from(index / 64), 1 << (index % 64))
}

#[cfg(all(test, not(shuttle)))]
mod tests;
