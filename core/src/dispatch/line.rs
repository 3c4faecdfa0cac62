//! The line in which tickets wait: first in, first out, bounded by what still waits.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
};

use super::{
    sync::{ArrayQueue, AtomicUsize, Line as CacheLine, Mutex, MutexGuard, Ordering},
    ticket::Ticket,
};

/// The front is for tickets that go ahead of everybody who came by the back.
pub(super) struct WaitingLine {
    /// Tickets that are neither granted nor cancelled. Moves before a ticket is pushed, so 0 means
    /// that nothing in the line can be served.
    live: Arc<CacheLine<AtomicUsize>>,
    /// Most live tickets admitted at the back.
    admitted: usize,
    /// Twice the admitted length: cancelled tickets stay until somebody comes across them.
    back: ArrayQueue<Arc<Ticket>>,
    /// Written under the front's lock only. While the head of the back is being moved to the front
    /// it counts already, so a ticket on its way is never overlooked.
    front_len: AtomicUsize,
    front: Mutex<VecDeque<Arc<Ticket>>>,
}

impl WaitingLine {
    pub(super) fn new(admitted: usize) -> Self {
        Self {
            live: Arc::new(CacheLine(AtomicUsize::new(0))),
            admitted,
            back: ArrayQueue::new(admitted.saturating_mul(2).max(1)),
            front_len: AtomicUsize::new(0),
            front: Mutex::new(VecDeque::new()),
        }
    }

    /// Tickets that still wait.
    pub(super) fn live(&self) -> usize {
        self.live.0.load(Ordering::SeqCst)
    }

    /// Whether nothing stands in front of the back.
    pub(super) fn is_front_empty(&self) -> bool {
        self.front_len.load(Ordering::SeqCst) == 0
    }

    /// Whether there is no ticket at all, live or not. Asked after a SeqCst fence.
    pub(super) fn is_empty(&self) -> bool {
        // In this order: tickets move from the back to the front, never the other way.
        self.back.is_empty() && self.is_front_empty()
    }

    /// Joins the line at the back; `None` if as many as admitted wait already.
    pub(super) fn push_back(&self, owner: u16, exchange: u64) -> Option<Arc<Ticket>> {
        let mut live = self.live();
        loop {
            if live >= self.admitted {
                return None;
            }
            match self.live.0.compare_exchange_weak(
                live,
                live + 1,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => live = now,
            }
        }
        let ticket = Arc::new(Ticket::new(owner, exchange, Arc::clone(&self.live)));
        let mut entry = Arc::clone(&ticket);
        while let Err(refused) = self.back.push(entry) {
            entry = refused;
            self.make_way();
        }
        Some(ticket)
    }

    /// Joins the line ahead of the back.
    pub(super) fn push_front(&self, owner: u16, exchange: u64) -> Arc<Ticket> {
        self.live.0.fetch_add(1, Ordering::SeqCst);
        let ticket = Arc::new(Ticket::new(owner, exchange, Arc::clone(&self.live)));
        let mut front = self.lock_front();
        self.shed(&mut front);
        front.push_back(Arc::clone(&ticket));
        self.front_len.store(front.len(), Ordering::SeqCst);
        ticket
    }

    /// Takes the first ticket that still waits, and grants it.
    pub(super) fn grant_first(&self) -> Option<Arc<Ticket>> {
        loop {
            if !self.is_front_empty() {
                let mut front = self.lock_front();
                let granted =
                    std::iter::from_fn(|| front.pop_front()).find(|ticket| ticket.grant());
                self.front_len.store(front.len(), Ordering::SeqCst);
                if granted.is_some() {
                    return granted;
                }
            }
            match self.back.pop() {
                Some(ticket) if ticket.grant() => return Some(ticket),
                Some(_) => {}
                // The back may be empty because its head is on the way to the front.
                None if self.is_front_empty() => return None,
                None => {}
            }
        }
    }

    /// Frees a place at the back that is full of cancelled tickets: drops its head, or moves it to
    /// the front if it still waits.
    fn make_way(&self) {
        let mut front = self.lock_front();
        self.shed(&mut front);
        self.front_len.store(front.len() + 1, Ordering::SeqCst);
        if let Some(head) = self.back.pop()
            && head.is_queued()
        {
            front.push_back(head);
        }
        self.front_len.store(front.len(), Ordering::SeqCst);
    }

    /// Drops the cancelled tickets once they are the larger half.
    fn shed(&self, front: &mut VecDeque<Arc<Ticket>>) {
        if front.len() >= 64 && front.len() > 2 * self.live() {
            front.retain(|ticket| ticket.is_queued());
        }
    }

    /// The front stays consistent whatever panics while it is locked.
    fn lock_front(&self) -> MutexGuard<'_, VecDeque<Arc<Ticket>>> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
