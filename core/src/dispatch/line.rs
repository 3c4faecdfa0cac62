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
    /// Written under the front's lock only.
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
        if !self.is_front_empty() {
            let mut front = self.lock_front();
            let granted = std::iter::from_fn(|| front.pop_front()).find(|ticket| ticket.grant());
            self.front_len.store(front.len(), Ordering::SeqCst);
            if granted.is_some() {
                return granted;
            }
        }
        std::iter::from_fn(|| self.back.pop()).find(|ticket| ticket.grant())
    }

    /// Frees a place at the back that is full of cancelled tickets: drops its head, or moves it to
    /// the front if it still waits. Who overlooks a ticket that is on its way need not worry: the
    /// caller has yet to join the line, and looks for room afterwards.
    fn make_way(&self) {
        let mut front = self.lock_front();
        self.shed(&mut front);
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

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn names(line: &WaitingLine) -> Vec<u64> {
        std::iter::from_fn(|| line.grant_first())
            .map(|ticket| ticket.exchange())
            .collect()
    }

    #[test]
    fn first_in_is_first_out_and_the_front_goes_first() {
        let line = WaitingLine::new(8);
        line.push_back(0, 1).unwrap();
        line.push_front(0, 2);
        line.push_back(0, 3).unwrap();
        line.push_front(0, 4);
        assert_eq!(line.live(), 4);
        assert_eq!(names(&line), [2, 4, 1, 3]);
        assert_eq!(line.live(), 0);
        assert!(line.is_empty());
    }

    #[test]
    fn only_what_waits_counts() {
        let line = WaitingLine::new(2);
        let first = line.push_back(0, 1).unwrap();
        line.push_back(0, 2).unwrap();
        assert!(line.push_back(0, 3).is_none());
        assert!(first.cancel());
        assert!(!first.cancel());
        line.push_back(0, 4).unwrap();
        assert_eq!(names(&line), [2, 4]);
        assert!(!first.grant());
    }

    #[test]
    fn a_back_full_of_cancelled_tickets_keeps_the_order() {
        let line = WaitingLine::new(4);
        line.push_back(0, 0).unwrap();
        for exchange in 1..1000 {
            let ticket = line.push_back(0, exchange).unwrap();
            if exchange % 333 != 0 {
                assert!(ticket.cancel());
            }
            assert!(line.back.len() <= 8);
        }
        assert_eq!(names(&line), [0, 333, 666, 999]);
    }

    #[test]
    fn a_front_full_of_cancelled_tickets_is_shed() {
        let line = WaitingLine::new(1);
        for exchange in 0..10_000 {
            assert!(line.push_front(0, exchange).cancel());
        }
        assert!(line.lock_front().len() <= 64);
    }

    #[test]
    fn a_line_of_no_length_admits_only_at_the_front() {
        let line = WaitingLine::new(0);
        assert!(line.push_back(0, 1).is_none());
        line.push_front(0, 2);
        assert_eq!(names(&line), [2]);
    }
}
