//! Timers of application code: exact, in order, and cheap to cancel. No clock in here.

use crate::time::Deadlines;

use super::slab::Slab;

/// Values that are due at a time.
#[derive(Debug)]
pub(super) struct Timers<T> {
    /// Serial numbers keep those of one deadline in the order in which they were started.
    heap: Deadlines<(u64, u64)>,
    values: Slab<T>,
    serial: u64,
}

impl<T> Timers<T> {
    /// No timers.
    pub(super) fn new() -> Self {
        Self {
            heap: Deadlines::new(),
            values: Slab::new(),
            serial: 0,
        }
    }

    /// Keeps `value` until `deadline`; the key is for cancelling it.
    pub(super) fn start(&mut self, deadline: u64, value: T) -> u64 {
        let key = self.values.insert(value);
        self.heap.insert(deadline, (self.serial, key));
        self.serial += 1;
        key
    }

    /// Takes a value out before its time, if that has not come.
    pub(super) fn cancel(&mut self, key: u64) -> Option<T> {
        let value = self.values.remove(key)?;
        let values = &mut self.values;
        self.heap.waste(|_, (_, key)| values.get_mut(key).is_some());
        Some(value)
    }

    /// When to look again; one that was cancelled may stand there still.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        self.heap.next()
    }

    /// What the next timer to be started will be numbered.
    pub(super) fn mark(&self) -> u64 {
        self.serial
    }

    /// Takes out the earliest value that is due and was started before `mark`.
    pub(super) fn pop_due(&mut self, now: u64, mark: u64) -> Option<T> {
        while let Some((deadline, (serial, key))) = self.heap.pop_due(now) {
            if serial >= mark {
                // Started since, at this very time or later: so is all that follows.
                self.heap.insert(deadline, (serial, key));
                return None;
            }
            if let Some(value) = self.values.remove(key) {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers<&'static str>, now: u64) -> Vec<&'static str> {
        let mark = timers.mark();
        std::iter::from_fn(|| timers.pop_due(now, mark)).collect()
    }

    #[test]
    fn they_fire_at_their_nanosecond_and_in_order() {
        let mut timers = Timers::new();
        timers.start(2_000_000, "two");
        timers.start(1_000_000, "one");
        timers.start(1_000_000, "one again");
        timers.start(3_000_000, "three");
        assert_eq!(timers.next(), Some(1_000_000));
        assert_eq!(due(&mut timers, 999_999), [""; 0]);
        assert_eq!(due(&mut timers, 1_000_000), ["one", "one again"]);
        assert_eq!(timers.next(), Some(2_000_000));
        assert_eq!(due(&mut timers, 1_999_999), [""; 0]);
        assert_eq!(due(&mut timers, 5_000_000), ["two", "three"]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn one_that_is_started_while_others_fire_waits_for_the_next_turn() {
        let mut timers = Timers::new();
        timers.start(10, "first");
        timers.start(10, "second");
        let mark = timers.mark();
        assert_eq!(timers.pop_due(10, mark), Some("first"));
        timers.start(10, "new");
        assert_eq!(timers.pop_due(10, mark), Some("second"));
        assert_eq!(timers.pop_due(10, mark), None);
        assert_eq!(due(&mut timers, 10), ["new"]);
    }

    #[test]
    fn a_cancelled_one_does_not_fire_and_its_key_means_nothing_any_more() {
        let mut timers = Timers::new();
        let key = timers.start(10, "cancelled");
        assert_eq!(timers.cancel(key), Some("cancelled"));
        assert_eq!(timers.cancel(key), None);
        let other = timers.start(10, "other");
        assert_ne!(key, other);
        assert_eq!(timers.cancel(key), None);
        assert_eq!(due(&mut timers, 10), ["other"]);
        assert_eq!(timers.cancel(other), None);
    }

    #[test]
    fn cancelled_ones_do_not_pile_up() {
        let mut timers = Timers::new();
        let kept = timers.start(u64::MAX - 1, "kept");
        for _ in 0..100_000 {
            let key = timers.start(u64::MAX, "cancelled");
            timers.cancel(key);
        }
        assert!(timers.heap.len() < 200, "{}", timers.heap.len());
        assert_eq!(due(&mut timers, u64::MAX - 1), ["kept"]);
        assert_eq!(timers.cancel(kept), None);
    }
}
