//! What a loop knows of a consumer: its ends of the lane and who waits for what on it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bus::{Kind, LoopEnds, RecordHeader};
use crate::dispatch::Pool;

use super::files::Meeting;
use super::lane::LaneHandle;
use super::stuck::Watch;

/// No connection: the client has left, or has its answer, and only the slot is still held.
pub(super) const NOBODY: u64 = u64::MAX;
/// A record that has not started after this long is called back if another lane has room.
pub(super) const RECALL_AFTER: u64 = 2_000_000;
/// If none has, this long passes before the next look: room on rings of other loops comes unheard.
const RECALL_PAUSE: u64 = 1_000_000;

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
    /// Records were published for the consumer since it was last seen to sleep undisturbed.
    pub(super) told: bool,
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
            told: false,
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

    /// Whether the consumer may be holding back a kick, as it relies on this loop to look by itself: it
    /// is awake, or will be, as it was rung for with something to do. To be asked before each sleep.
    pub(super) fn may_hold_back(&mut self) -> bool {
        let waker = &self.ends.waker;
        if waker.sleeps_on() {
            self.told = false;
            return false;
        }
        self.told || !waker.is_asleep()
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
    use std::os::fd::BorrowedFd;

    use crate::bus::ConsumerLane;
    use crate::dispatch::{LaneLimits, PoolLimits, Work};

    use super::*;

    #[test]
    fn whose_body_waits_is_listed_once_and_as_long_as_its_slot_is_held() {
        let mut lane = LaneEnd::new(LaneHandle::of_test(0, 2, 1), 0);
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
        let handle = LaneHandle::of_test(0, 1, 1);
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
        let pool = Pool::new(PoolLimits {
            queue_size: 1,
            limit_concurrency: None,
        });
        let limits = LaneLimits {
            slots: 9,
            concurrency: 9,
            window: 9,
            streams: 0,
        };
        let index = pool.add_lane(limits).unwrap();
        let handle = LaneHandle::of_test(index, 9, 2);
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
        let mut lane = LaneEnd::new(LaneHandle::of_test(0, 1, 1), 0);
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
