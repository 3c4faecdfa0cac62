//! Floor 1: deadlines and dates.
#![forbid(unsafe_code)]

mod date;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use date::http_date;

/// Deadlines by time, cancelled lazily.
///
/// Nothing is ever taken out early. Whoever holds a deadline notes the earliest entry it has here;
/// when its deadline moves later it does nothing, and when the entry fires it compares and inserts
/// the real one. A connection that is served a thousand times a second so costs one entry per
/// timeout, not two per request.
#[derive(Debug)]
pub struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(u64, K)>>,
}

impl<K: Copy + Ord> Deadlines<K> {
    /// No deadlines.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }

    /// Adds an entry: `key` is to fire at `deadline`, in nanoseconds of the caller's clock.
    pub fn insert(&mut self, deadline: u64, key: K) {
        self.heap.push(Reverse((deadline, key)));
    }

    /// Drops the entries whose key `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(K) -> bool) {
        self.heap.retain(|Reverse((_, key))| keep(*key));
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// When the next entry fires.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// Takes out an entry whose time has come: its deadline and its key.
    pub fn pop_due(&mut self, now: u64) -> Option<(u64, K)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl<K: Copy + Ord> Default for Deadlines<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fire_in_order_and_not_before_their_time() {
        let mut deadlines = Deadlines::new();
        deadlines.insert(30, 'c');
        deadlines.insert(10, 'a');
        deadlines.insert(20, 'b');
        assert_eq!(deadlines.next(), Some(10));
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(20), Some((10, 'a')));
        assert_eq!(deadlines.pop_due(20), Some((20, 'b')));
        assert_eq!(deadlines.pop_due(20), None);
        assert_eq!(deadlines.next(), Some(30));
    }
}
