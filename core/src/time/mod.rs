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
/// timeout, not two per request. Only a deadline that moves earlier, or a connection that goes, leaves
/// its entry behind ([`waste`](Self::waste)).
#[derive(Debug)]
pub struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(u64, K)>>,
    /// How many entries have become useless since the last weeding, at most.
    wasted: usize,
}

/// So many useless entries may wait for their time.
const FEW: usize = 64;

impl<K: Copy + Ord> Deadlines<K> {
    /// No deadlines.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            wasted: 0,
        }
    }

    /// Adds an entry: `key` is to fire at `deadline`, in nanoseconds of the caller's clock.
    pub fn insert(&mut self, deadline: u64, key: K) {
        self.heap.push(Reverse((deadline, key)));
    }

    /// An entry has become useless before its time. When so many have that they may outnumber the
    /// others, all those go whose deadline and key `keep` does not want: whoever sets and drops long
    /// deadlines all the time must not fill the heap.
    pub fn waste(&mut self, mut keep: impl FnMut(u64, K) -> bool) {
        self.wasted += 1;
        if self.wasted > FEW && self.wasted > self.heap.len() / 2 {
            self.heap
                .retain(|Reverse((deadline, key))| keep(*deadline, *key));
            self.wasted = 0;
        }
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

    #[test]
    fn entries_that_became_useless_do_not_pile_up() {
        let mut deadlines = Deadlines::new();
        for kept in 0..100 {
            deadlines.insert(1_000_000 + kept, kept);
        }
        for turn in 0..100_000 {
            deadlines.insert(2_000_000 + turn, 7);
            deadlines.waste(|deadline, _| deadline < 2_000_000);
            assert!(deadlines.len() <= 100 + 2 * 100);
        }
        for kept in 0..100 {
            assert_eq!(deadlines.pop_due(1_999_999), Some((1_000_000 + kept, kept)));
        }
        assert_eq!(deadlines.pop_due(1_999_999), None);
    }
}
