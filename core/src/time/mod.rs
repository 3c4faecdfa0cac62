//! Floor 1: deadlines.
#![forbid(unsafe_code)]

use std::{cmp::Ordering, collections::BinaryHeap};

/// Keys with deadlines, the nearest first. What is in cannot be changed or taken out; it is meant to
/// be used lazily.
///
/// Deadlines move far more often than they pass: each request moves its connection's. So the holder
/// of a key keeps the real deadline itself, next to whether an entry is in here, and
///
/// - to move the deadline later, or to cancel it, changes its own word only;
/// - to set one where no entry is in, or to move it before the entry's, inserts;
/// - when a key comes out of [`Deadlines::pop_due`], compares: if the real deadline has passed, acts;
///   if it is still to come, inserts it again; if there is none, or the holder is gone, does nothing.
///
/// Thus each holder has about one entry however often its deadline moves. A key should tell its
/// holder from an earlier one with the same index, say by a generation.
#[derive(Debug)]
pub struct Deadlines<K> {
    heap: BinaryHeap<Entry<K>>,
}

impl<K: Copy> Deadlines<K> {
    /// None yet.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }

    /// Makes the key come out once the clock, in nanoseconds, has reached the deadline.
    pub fn insert(&mut self, deadline: u64, key: K) {
        self.heap.push(Entry { deadline, key });
    }

    /// When the next key comes out: what to sleep until.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.deadline)
    }

    /// Takes out a key whose deadline is not after now.
    pub fn pop_due(&mut self, now: u64) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|entry| entry.key)
    }

    /// How many keys are in, outdated ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no key is in.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<K: Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Compares by the deadline alone, the nearest as the greatest, as the heap wants it.
#[derive(Debug)]
struct Entry<K> {
    deadline: u64,
    key: K,
}

impl<K> Ord for Entry<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.cmp(&self.deadline)
    }
}

impl<K> PartialOrd for Entry<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> PartialEq for Entry<K> {
    fn eq(&self, other: &Self) -> bool {
        self.deadline == other.deadline
    }
}

impl<K> Eq for Entry<K> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_order_and_not_too_early() {
        let mut deadlines = Deadlines::new();
        assert_eq!(deadlines.next(), None);
        assert_eq!(deadlines.pop_due(u64::MAX), None);
        for (deadline, key) in [(30, 'c'), (10, 'a'), (20, 'b'), (u64::MAX, 'd')] {
            deadlines.insert(deadline, key);
        }
        assert_eq!(deadlines.next(), Some(10));
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(10), Some('a'));
        assert_eq!(deadlines.pop_due(29), Some('b'));
        assert_eq!(deadlines.pop_due(29), None);
        assert_eq!(deadlines.pop_due(31), Some('c'));
        assert_eq!(deadlines.len(), 1);
        assert_eq!(deadlines.pop_due(u64::MAX), Some('d'));
        assert!(deadlines.is_empty());
    }

    #[test]
    fn a_deadline_that_moves_on_has_one_entry() {
        let mut deadlines = Deadlines::new();
        let mut real = 10;
        deadlines.insert(real, ());
        let mut fired = None;
        for now in 0..1000 {
            if now < 900 {
                real = now + 10;
            }
            while deadlines.pop_due(now).is_some() {
                if real <= now {
                    fired = Some(now);
                } else {
                    deadlines.insert(real, ());
                }
            }
            assert!(deadlines.len() <= 1);
        }
        assert_eq!(fired, Some(909));
    }
}
