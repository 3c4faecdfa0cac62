//! What a loop knows of a consumer: its ends of the lane and who waits for what on it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::{EngineLane, Geometry, Kind, LaneState, LoopEnds, RecordHeader, StatusPage};
use crate::dispatch::{LaneLimits, Pool};

use super::file_desk::FileDesk;
use super::files::Meeting;
use super::shared::Toll;
use super::stuck::Watch;

/// No connection: the client has left, or has its answer, and only the slot is still held.
pub(super) const NOBODY: u64 = u64::MAX;
/// A record that has not started after this long is called back if another lane has room.
pub(super) const RECALL_AFTER: u64 = 2_000_000;
/// If none has, this long passes before the next look: room on rings of other loops comes unheard.
const RECALL_PAUSE: u64 = 1_000_000;

/// A consumer as the engine and its supervisor hold it.
pub struct LaneHandle {
    pub(super) lane: EngineLane,
    pub(super) id: u64,
    pub(super) geometry: Geometry,
    /// Its place in the pool.
    pub(super) index: u16,
    /// Loops that have yet to take it up.
    pub(super) arriving: AtomicUsize,
    /// Loops that have yet to let go of it.
    pub(super) leaving: AtomicUsize,
    pub(super) poisoned: AtomicBool,
    /// The files that it hands over.
    pub(super) files: FileDesk,
    /// The consumer wants to be told when nothing comes on a stream.
    tells_time: AtomicBool,
    /// It gets no work any more, even if it has not come up on every loop yet.
    closed: Mutex<bool>,
    /// Loops that take its consumer for stalled.
    stalled_on: AtomicUsize,
    /// Slots that were last seen held by exchanges nobody has waited for, for long.
    pub(super) left: AtomicUsize,
    /// Those last seen held by all others.
    pub(super) live: AtomicUsize,
    /// What the loops have made of what it left: failed, cut, moved.
    toll: [AtomicUsize; 3],
}

impl LaneHandle {
    pub(super) fn new(
        id: u64,
        index: u16,
        limits: &LaneLimits,
        rings: u16,
        page: &StatusPage,
    ) -> io::Result<Self> {
        let geometry = Geometry {
            rings,
            slots: limits.slots,
            ..Geometry::default()
        };
        Ok(Self {
            lane: EngineLane::create(id, &geometry, page)?,
            id,
            geometry,
            index,
            arriving: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
            files: FileDesk::default(),
            tells_time: AtomicBool::new(false),
            closed: Mutex::new(false),
            stalled_on: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            toll: Default::default(),
        })
    }

    /// The consumer understands the records about the time of streams. To be said before the lane is
    /// up: otherwise its streams wait for ever.
    pub fn tell_time(&self) {
        self.tells_time.store(true, Ordering::Release);
    }

    /// Names the lane for as long as the engine lives.
    pub fn lane_id(&self) -> u64 {
        self.id
    }

    /// The sizes a consumer is told of.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The descriptors a consumer is handed, in the order it expects them.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.lane.fds()
    }

    /// A loop has settled its part. To be said before it has left.
    pub(super) fn add_toll(&self, toll: &Toll) {
        for (sum, more) in self.toll.iter().zip([toll.failed, toll.cut, toll.moved]) {
            sum.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// What became of all that it held, once every loop has left.
    pub(super) fn toll(&self) -> Toll {
        let [failed, cut, moved] = [0, 1, 2].map(|at: usize| self.toll[at].load(Ordering::Relaxed));
        Toll { failed, cut, moved }
    }

    pub(super) fn tells_time(&self) -> bool {
        self.tells_time.load(Ordering::Acquire)
    }

    pub(super) fn set_state(&self, state: LaneState) {
        self.lane.set_state(state);
    }

    /// Lets work in, unless it has been closed meanwhile.
    pub(super) fn open(&self, pool: &Pool) {
        let closed = self.lock_closed();
        if !*closed {
            pool.open_lane(self.index);
        }
    }

    /// Lets no more work in, for good.
    pub(super) fn close(&self, pool: &Pool) {
        *self.lock_closed() = true;
        pool.close_lane(self.index);
    }

    /// Whether it lets work in no more.
    pub(super) fn is_closed(&self) -> bool {
        *self.lock_closed()
    }

    fn lock_closed(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One loop's ends of a lane.
pub(super) struct LaneEnd {
    pub(super) handle: Arc<LaneHandle>,
    loop_index: u16,
    pub(super) ends: LoopEnds,
    /// By slot; only the entries of exchanges that this loop owns are in use.
    pub(super) slots: Vec<Held>,
    /// Sent and not known to have started, oldest first.
    pub(super) unstarted: VecDeque<Unstarted>,
    /// Slots of exchanges whose body waits for a grant or for room in the ring, each once.
    body_waiters: Vec<u16>,
    /// Exchanges whose head waits for room in the ring.
    pub(super) head_waiters: VecDeque<Waiting>,
    /// A head or a body found no room in the ring and waits for it.
    pub(super) ring_is_full: bool,
    /// The ring had room after all: those who wait try again.
    pub(super) try_again: bool,
    /// Something was written for the consumer since the last flush.
    pub(super) touched: bool,
    /// A record violated the contract: nothing more is read.
    pub(super) poisoned: bool,
    /// This loop takes the consumer for stalled.
    stalled: bool,
    /// Since then the consumer has started or said something.
    pub(super) moved: bool,
    pub(super) wants_starts: bool,
    /// Any of the unstarted records may have started, not the oldest alone.
    pub(super) look_for_starts: bool,
    /// Slots in use here.
    pub(super) held: usize,
    /// Where files and the records that speak of them wait for each other.
    pub(super) meeting: Meeting,
    /// Whether its consumer still turns, as long as there is something to do for it.
    pub(super) watch: Option<Watch>,
    /// What was last added to the handle's `left` and `live`.
    pub(super) reported: (usize, usize),
}

/// A slot in use by an exchange of this loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) generation: u32,
    pub(super) in_use: bool,
    /// Its head is in the ring: the consumer may have seen it.
    pub(super) sent: bool,
    /// Known to have started; its record need not be kept.
    pub(super) started: bool,
    /// The message has ended; only DONE is missing.
    pub(super) ended: bool,
    /// The consumer is done with it, but its file is still awaited.
    pub(super) done: bool,
    /// It was called back, too late as it seemed then.
    pub(super) recalled: bool,
    /// It stands in `body_waiters`, perhaps since an earlier use of the slot.
    pub(super) listed: bool,
    /// It overran its deadline.
    pub(super) overdue: bool,
    /// So many looks of the watch have found it running for nobody.
    pub(super) looks: u8,
    /// The connection, or `NOBODY`.
    pub(super) conn: u64,
}

impl Held {
    /// The use of a slot that is just beginning.
    pub(super) fn begin(generation: u32, listed: bool, conn: u64) -> Self {
        Self {
            generation,
            in_use: true,
            sent: false,
            started: false,
            ended: false,
            done: false,
            recalled: false,
            listed,
            overdue: false,
            looks: 0,
            conn,
        }
    }
}

/// A head that waits for room in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) conn: u64,
    pub(super) slot: u16,
    pub(super) generation: u32,
}

/// A record on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unstarted {
    pub(super) slot: u16,
    pub(super) generation: u32,
    pub(super) sent_at: u64,
}

impl LaneEnd {
    pub(super) fn new(handle: Arc<LaneHandle>, loop_index: u16) -> Self {
        let empty = Held {
            in_use: false,
            ..Held::begin(0, false, NOBODY)
        };
        Self {
            ends: handle.lane.ends(loop_index),
            slots: vec![empty; usize::from(handle.geometry.slots)],
            handle,
            loop_index,
            unstarted: VecDeque::new(),
            body_waiters: Vec::new(),
            head_waiters: VecDeque::new(),
            ring_is_full: false,
            try_again: false,
            touched: false,
            poisoned: false,
            stalled: false,
            moved: false,
            wants_starts: false,
            look_for_starts: false,
            held: 0,
            meeting: Meeting::default(),
            watch: None,
            reported: (0, 0),
        }
    }

    /// The slot a record speaks of, if an exchange of this loop holds it in that generation.
    #[inline]
    pub(super) fn held(&mut self, slot: u16, generation: u32) -> Option<&mut Held> {
        self.slots
            .get_mut(usize::from(slot))
            .filter(|held| held.in_use && held.generation == generation)
    }

    /// The use of a slot is over.
    pub(super) fn free(&mut self, slot: u16, generation: u32, pool: &Pool) {
        if let Some(held) = self.held(slot, generation) {
            held.in_use = false;
            self.held -= 1;
            self.meeting.forget(slot, generation);
            pool.finished(self.handle.index, slot, generation);
        }
    }

    /// Whether the consumer has begun the exchange; if not, and it has been cancelled and a fence
    /// stands between, it never will.
    pub(super) fn has_started(&self, slot: u16, generation: u32) -> bool {
        self.ends.slots.started(slot) == generation
    }

    /// Takes out of the unstarted records, on a notice, those that need no watching any more, wherever
    /// they stand, and names the slots of those that have started.
    pub(super) fn take_started(&mut self) -> Vec<u16> {
        let mut started = Vec::new();
        self.unstarted.retain(
            |&Unstarted {
                 slot, generation, ..
             }| {
                let held = self.slots[usize::from(slot)];
                let waits = held.in_use && held.generation == generation && !held.started;
                let has_started = self.ends.slots.started(slot) == generation;
                if waits && has_started {
                    started.push(slot);
                }
                waits && !has_started
            },
        );
        started
    }

    /// The body of the exchange in `slot` waits for a grant or for room in the ring.
    pub(super) fn list_waiter(&mut self, slot: u16) {
        let listed = &mut self.slots[usize::from(slot)].listed;
        if !std::mem::replace(listed, true) {
            self.body_waiters.push(slot);
        }
    }

    /// The connections whose bodies wait, and no longer do.
    pub(super) fn take_waiters(&mut self) -> Vec<u64> {
        let slots = std::mem::take(&mut self.body_waiters);
        let held = slots.into_iter().map(|slot| {
            let held = &mut self.slots[usize::from(slot)];
            held.listed = false;
            *held
        });
        held.filter(|held| held.in_use && held.conn != NOBODY)
            .map(|held| held.conn)
            .collect()
    }

    /// Whether there is anything to read or to go on with: the second look before sleep.
    pub(super) fn has_news(&mut self) -> bool {
        self.ends.has_news() || self.try_again || (self.look_for_starts && self.has_starts())
    }

    /// Tells the consumer that nobody wants this exchange any more.
    pub(super) fn cancel(&mut self, slot: u16, generation: u32) {
        self.ends.slots.cancel(slot, generation);
        self.ends.notice.bump();
        self.touched = true;
    }

    /// What this loop sent waits too long in front of the consumer. The pool is told each time: another
    /// loop may have taken it back in the instant when this one came in.
    pub(super) fn stall(&mut self, pool: &Pool) {
        self.moved = false;
        if !std::mem::replace(&mut self.stalled, true) {
            self.handle.stalled_on.fetch_add(1, Ordering::AcqRel);
        }
        pool.mark_stalled(self.handle.index, true);
    }

    /// Nothing of this loop waits in front of the consumer. It is trusted again once it has moved, and
    /// no other loop finds it stalled: what was called back is no sign of life.
    pub(super) fn caught_up(&mut self, pool: &Pool) {
        if self.stalled && self.moved {
            self.stalled = false;
            if self.handle.stalled_on.fetch_sub(1, Ordering::AcqRel) == 1 {
                pool.mark_stalled(self.handle.index, false);
            }
        }
    }

    /// Whether the ring has room for a record with `len` bytes; if not, the consumer is asked to
    /// tell when it has.
    pub(super) fn room_for(&mut self, len: usize) -> bool {
        if !self.ends.requests.has_room(len) {
            self.ends.requests.want_space();
            if !self.ends.requests.has_room(len) {
                self.ring_is_full = true;
                return false;
            }
        }
        // The wish for space is fulfilled by this; whoever else had it tries again.
        self.try_again |= std::mem::take(&mut self.ring_is_full);
        true
    }

    /// Writes a record of an exchange for which `room_for` has just found room.
    #[inline]
    pub(super) fn push(
        &mut self,
        kind: Kind,
        flags: u8,
        (slot, generation): (u16, u32),
        payload: &[u8],
    ) {
        let header = RecordHeader {
            kind: kind as u8,
            flags,
            aux: 0,
            owner: self.loop_index,
            slot,
            generation,
            len: 0,
        };
        let pushed = self.ends.requests.push(header, &[payload]);
        debug_assert!(pushed, "the ring had room for the record");
        self.touched = true;
    }

    /// When to look for room elsewhere for what has not started here; `u64::MAX` if nothing waits.
    pub(super) fn recall_at(&self, now: u64) -> u64 {
        match self.unstarted.front() {
            Some(oldest) => (oldest.sent_at + RECALL_AFTER).max(now + RECALL_PAUSE),
            None => u64::MAX,
        }
    }

    /// The slot of the oldest exchange that was sent and has not started.
    pub(super) fn oldest_unstarted(&self) -> Option<u16> {
        let waits = |one: &&Unstarted| {
            let held = self.slots[usize::from(one.slot)];
            held.in_use
                && held.generation == one.generation
                && held.sent
                && !held.started
                && !self.has_started(one.slot, one.generation)
        };
        self.unstarted.iter().find(waits).map(|one| one.slot)
    }

    fn has_starts(&self) -> bool {
        let mut unstarted = self.unstarted.iter();
        unstarted.any(|one| self.has_started(one.slot, one.generation))
    }

    /// Forgets that somebody waits for the ring: whoever still does and finds no room says so again.
    /// If nobody does any more, the room that came must not keep the loop awake.
    pub(super) fn stop_waiting(&mut self) {
        self.try_again = false;
        if std::mem::take(&mut self.ring_is_full) && !self.ends.requests.has_room(0) {
            self.ring_is_full = true;
        }
    }

    /// Whether the ring has moved on and a head or a body waits for that.
    pub(super) fn has_room_for_waiters(&self) -> bool {
        self.try_again || (self.ring_is_full && self.ends.requests.space_came())
    }
}

#[cfg(test)]
mod tests {
    use crate::bus::ConsumerLane;
    use crate::dispatch::{PoolLimits, Work};

    use super::*;

    fn limits(most: u16) -> LaneLimits {
        LaneLimits {
            slots: most,
            concurrency: most,
            window: most,
            streams: 0,
        }
    }

    /// A lane with a ring for each of `loops`, at `index` in its pool.
    fn handle(index: u16, limits: &LaneLimits, loops: u16) -> Arc<LaneHandle> {
        let page = StatusPage::create(loops, 1).unwrap();
        Arc::new(LaneHandle::new(1, index, limits, loops, &page).unwrap())
    }

    #[test]
    fn whose_body_waits_is_listed_once_and_as_long_as_its_slot_is_held() {
        let mut lane = LaneEnd::new(handle(0, &limits(2), 1), 0);
        for held in &mut lane.slots {
            held.in_use = true;
            held.conn = 7;
        }
        for _ in 0..3 {
            lane.list_waiter(1);
        }
        lane.list_waiter(0);
        lane.slots[0].conn = NOBODY;
        assert_eq!(lane.take_waiters(), [7]);
        assert_eq!(lane.take_waiters(), []);
        lane.list_waiter(1);
        assert_eq!(lane.take_waiters(), [7]);
    }

    #[test]
    fn room_that_nobody_waits_for_is_no_news() {
        let handle = handle(0, &limits(1), 1);
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let mut consumer =
            ConsumerLane::open(handle.fds().into_iter().map(copy).collect()).unwrap();
        let mut lane = LaneEnd::new(handle, 0);
        let part = [0; 32 * 1024];
        while lane.room_for(part.len()) {
            lane.push(Kind::RequestBody, 0, (0, 1), &part);
        }
        lane.ends.requests.publish();
        let requests = &mut consumer.ring(0).requests;
        requests.refresh().unwrap();
        while requests.peek().unwrap().is_some() {
            requests.skip();
        }
        requests.release();
        assert!(lane.has_room_for_waiters() && lane.has_news());
        lane.stop_waiting();
        assert!(!lane.has_room_for_waiters() && !lane.has_news());
    }

    #[test]
    fn a_consumer_is_stalled_as_long_as_one_loop_finds_it_so() {
        let limits = limits(9);
        let pool = Pool::new(PoolLimits {
            queue_size: 1,
            limit_concurrency: None,
        });
        let index = pool.add_lane(limits).unwrap();
        let handle = handle(index, &limits, 2);
        handle.open(&pool);
        let is_trusted = || {
            let room = pool.reserve_elsewhere(Work::Request, u16::MAX);
            room.inspect(|room| pool.release(*room)).is_some()
        };
        let mut ends = [0, 1].map(|index| LaneEnd::new(handle.clone(), index));
        for end in &mut ends {
            end.stall(&pool);
        }
        assert!(!is_trusted());
        ends[0].moved = true;
        ends[0].caught_up(&pool);
        assert!(!is_trusted(), "the other loop's record still waits");
        ends[1].caught_up(&pool);
        assert!(!is_trusted(), "it was called back: no sign of life");
        ends[1].moved = true;
        ends[1].caught_up(&pool);
        assert!(is_trusted());
        ends[0].stall(&pool);
        // As if the other loop had taken it back late.
        pool.mark_stalled(index, false);
        ends[0].stall(&pool);
        assert!(!is_trusted());
    }

    #[test]
    fn what_is_overdue_and_finds_no_room_is_not_looked_at_all_the_time() {
        let mut lane = LaneEnd::new(handle(0, &limits(1), 1), 0);
        assert_eq!(lane.recall_at(1000), u64::MAX);
        lane.unstarted.push_back(Unstarted {
            slot: 0,
            generation: 1,
            sent_at: 1000,
        });
        assert_eq!(lane.recall_at(1000), 1000 + RECALL_AFTER);
        let late = 1000 + 5 * RECALL_AFTER;
        assert_eq!(lane.recall_at(late), late + RECALL_PAUSE);
    }
}
