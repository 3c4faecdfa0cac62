//! Words per exchange: whether it was cancelled, whether it has started, and how many body bytes
//! each side may send. A generation tells the uses of a slot apart; generations are never 0.
#![forbid(unsafe_code)]

use std::mem::offset_of;

use crate::bus::layout::SlotEntry;
use crate::bus::sync::{Ordering, Table, Word32, fence};

const GENERATION: usize = offset_of!(SlotEntry, generation);
const RECALLED: usize = offset_of!(SlotEntry, recalled);
const GRANTED: usize = offset_of!(SlotEntry, granted);

/// The engine's side, for the exchanges that one loop owns. Every method panics if the slot is not
/// one of the lane's; records that a [`Reader`](crate::bus::Reader) hands out name none such.
pub struct EngineSlots {
    own: Table,
    peer: Table,
    tick: Word32,
}

impl EngineSlots {
    /// Cancels an exchange: if it runs already, the application is told. The caller then calls [`fence`](crate::bus::fence()) and
    /// looks at [`started`](Self::started): if that is another generation, it will never run.
    #[inline]
    pub fn cancel(&self, slot: u16, generation: u32) {
        self.own
            .store32(slot, GENERATION, generation, Ordering::Relaxed);
    }

    /// Calls an exchange back unless it has started; if it has, it goes on as if nothing had been
    /// said. The caller fences and looks at [`started`](Self::started), as for `cancel`; if it is
    /// this generation, the consumer either runs it or answers that it did not.
    #[inline]
    pub fn recall(&self, slot: u16, generation: u32) {
        self.own
            .store32(slot, RECALLED, generation, Ordering::Relaxed);
    }

    /// The generation of the slot that was started last.
    #[inline]
    pub fn started(&self, slot: u16) -> u32 {
        let generation = self.peer.load32(slot, GENERATION, Ordering::Relaxed);
        fence(Ordering::Acquire);
        generation
    }

    /// How many bytes of the request's body the consumer takes in all; of the exchange in the slot
    /// only once [`started`](Self::started) is its generation.
    #[inline]
    pub fn request_granted(&self, slot: u16) -> u64 {
        self.peer.load64(slot, GRANTED, Ordering::Relaxed)
    }

    /// Lets the consumer send `total` bytes of the response's body in all.
    #[inline]
    pub fn grant_response(&self, slot: u16, total: u64) {
        self.own.store64(slot, GRANTED, total, Ordering::Relaxed);
    }

    /// A word that moves whenever the consumer's loop turns.
    #[inline]
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    pub(super) fn new(own: Table, peer: Table, tick: Word32) -> Self {
        Self { own, peer, tick }
    }
}

/// The consumer's side.
pub(super) struct ConsumerSlots {
    own: Table,
    peer: Table,
}

impl ConsumerSlots {
    #[inline]
    pub(super) fn start(&self, slot: u16, generation: u32) -> bool {
        // Release: whoever sees the start sees the first grant.
        self.own
            .store32(slot, GENERATION, generation, Ordering::Release);
        #[cfg(not(mutant = "no_start_fence"))]
        fence(Ordering::SeqCst);
        !self.cancelled(slot, generation)
            && self.peer.load32(slot, RECALLED, Ordering::Relaxed) != generation
    }

    #[inline]
    pub(super) fn cancelled(&self, slot: u16, generation: u32) -> bool {
        self.peer.load32(slot, GENERATION, Ordering::Relaxed) == generation
    }

    #[inline]
    pub(super) fn response_granted(&self, slot: u16) -> u64 {
        self.peer.load64(slot, GRANTED, Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn grant_request(&self, slot: u16, total: u64) {
        self.own.store64(slot, GRANTED, total, Ordering::Relaxed);
    }

    pub(super) fn new(own: Table, peer: Table) -> Self {
        Self { own, peer }
    }
}
