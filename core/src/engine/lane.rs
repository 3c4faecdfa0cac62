//! What a loop knows of a consumer: its ends of the lane and who waits for what on it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::{EngineLane, Geometry, LaneState, LoopEnds, StatusPage};
use crate::dispatch::{LaneLimits, Pool};

use super::files::Meeting;

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
    /// It gets no work any more, even if it has not come up on every loop yet.
    closed: Mutex<bool>,
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
            closed: Mutex::new(false),
        })
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

    fn lock_closed(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One loop's ends of a lane.
pub(super) struct LaneEnd {
    pub(super) handle: Arc<LaneHandle>,
    pub(super) ends: LoopEnds,
    /// By slot; only the entries of exchanges that this loop owns are in use.
    pub(super) slots: Vec<Held>,
    /// Sent and not known to have started, oldest first.
    pub(super) unstarted: VecDeque<Unstarted>,
    /// Connections whose request body waits for a grant or for room in the ring.
    pub(super) body_waiters: Vec<u64>,
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
    /// It is known to the pool as stalled.
    pub(super) stalled: bool,
    /// Since then the consumer has started or said something.
    pub(super) moved: bool,
    pub(super) wants_starts: bool,
    /// Slots in use here.
    pub(super) held: usize,
    /// Where files and the records that speak of them wait for each other.
    pub(super) meeting: Meeting,
    /// Since an exchange overran its deadline: the tick then, and when to look again.
    pub(super) suspicion: Option<(u32, u64)>,
}

/// A slot in use by an exchange of this loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) generation: u32,
    pub(super) in_use: bool,
    /// Known to have started; its record need not be kept.
    pub(super) started: bool,
    /// The message has ended; only DONE is missing.
    pub(super) ended: bool,
    /// It was called back, too late as it seemed then.
    pub(super) recalled: bool,
    /// The connection, or `NOBODY`.
    pub(super) conn: u64,
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
            generation: 0,
            in_use: false,
            started: false,
            ended: false,
            recalled: false,
            conn: NOBODY,
        };
        Self {
            ends: handle.lane.ends(loop_index),
            slots: vec![empty; usize::from(handle.geometry.slots)],
            handle,
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
            held: 0,
            meeting: Meeting::default(),
            suspicion: None,
        }
    }

    /// The slot a record speaks of, if an exchange of this loop holds it in that generation.
    #[inline]
    pub(super) fn held(&mut self, slot: u16, generation: u32) -> Option<&mut Held> {
        self.slots
            .get_mut(usize::from(slot))
            .filter(|held| held.in_use && held.generation == generation)
    }

    /// Whether the consumer has begun the exchange; if not, and it has been cancelled and a fence
    /// stands between, it never will.
    pub(super) fn has_started(&self, slot: u16, generation: u32) -> bool {
        self.ends.slots.started(slot) == generation
    }

    /// Tells the consumer that nobody wants this exchange any more.
    pub(super) fn cancel(&mut self, slot: u16, generation: u32) {
        self.ends.slots.cancel(slot, generation);
        self.ends.notice.bump();
        self.touched = true;
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

    /// When to look for room elsewhere for what has not started here; `u64::MAX` if nothing waits.
    pub(super) fn recall_at(&self, now: u64) -> u64 {
        match self.unstarted.front() {
            Some(oldest) => (oldest.sent_at + RECALL_AFTER).max(now + RECALL_PAUSE),
            None => u64::MAX,
        }
    }

    /// Whether the ring has moved on and a head or a body waits for that.
    pub(super) fn has_room_for_waiters(&self) -> bool {
        self.try_again || (self.ring_is_full && self.ends.requests.space_came())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overdue_and_finds_no_room_is_not_looked_at_all_the_time() {
        let page = StatusPage::create(1, 1).unwrap();
        let limits = LaneLimits {
            slots: 1,
            concurrency: 1,
            window: 1,
            streams: 0,
        };
        let handle = LaneHandle::new(1, 0, &limits, 1, &page).unwrap();
        let mut lane = LaneEnd::new(Arc::new(handle), 0);
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
