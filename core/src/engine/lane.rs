//! A lane as the engine and its supervisor hold it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bus::{EngineLane, Geometry, LaneState, StatusPage};
use crate::dispatch::{LaneLimits, Pool};

use super::file_desk::FileDesk;
use super::shared::Toll;

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
    pub(super) stalled_on: AtomicUsize,
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
        files: FileDesk,
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
            files,
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

#[cfg(test)]
impl LaneHandle {
    /// A lane with so many slots and a ring for each of `loops`, at `index` in its pool.
    pub(super) fn of_test(index: u16, slots: u16, loops: u16) -> std::sync::Arc<Self> {
        let page = StatusPage::create(loops, 1).unwrap();
        let limits = LaneLimits {
            slots,
            concurrency: slots,
            window: slots,
            streams: 0,
        };
        let files = super::file_desk::FileDesks::default().open().unwrap();
        std::sync::Arc::new(Self::new(1, index, &limits, loops, &page, files).unwrap())
    }
}
