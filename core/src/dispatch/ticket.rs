//! What waits in a pool's line.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::sync::{AtomicU8, AtomicUsize, Line, Ordering};

const QUEUED: u8 = 0;
const GRANTED: u8 = 1;
const CANCELLED: u8 = 2;

/// An exchange that waits for room in a pool. Its fate is decided once: it is granted, or cancelled.
pub struct Ticket {
    exchange: u64,
    /// Tickets of the line that are still queued; one of them is this while `state` is `QUEUED`.
    live: Arc<Line<AtomicUsize>>,
    owner: u16,
    state: AtomicU8,
}

impl Ticket {
    /// A queued ticket that `live` already counts.
    pub(super) fn new(owner: u16, exchange: u64, live: Arc<Line<AtomicUsize>>) -> Self {
        Self {
            exchange,
            live,
            owner,
            state: AtomicU8::new(QUEUED),
        }
    }

    /// The loop the exchange belongs to.
    pub fn owner(&self) -> u16 {
        self.owner
    }

    /// What the owner calls the exchange.
    pub fn exchange(&self) -> u64 {
        self.exchange
    }

    /// Gives up waiting. True: the ticket was still queued and will never be granted. False: it was
    /// granted (the reservation is on its way to the owner) or cancelled before.
    pub fn cancel(&self) -> bool {
        self.decide(CANCELLED)
    }

    /// True: the ticket was still queued and is now the caller's to serve.
    pub(super) fn grant(&self) -> bool {
        self.decide(GRANTED)
    }

    pub(super) fn is_queued(&self) -> bool {
        self.state.load(Ordering::Acquire) == QUEUED
    }

    fn decide(&self, fate: u8) -> bool {
        if self
            .state
            .compare_exchange(QUEUED, fate, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return false;
        }
        self.live.0.fetch_sub(1, Ordering::SeqCst);
        true
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket")
            .field("owner", &self.owner)
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}
