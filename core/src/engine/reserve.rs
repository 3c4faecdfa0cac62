//! Descriptors that clients do not get. A worker that dies while clients hold all others could not
//! be replaced, nor its lane be made, until one of them leaves.
//!
//! The kernel hands out the lowest number that is free, so a client with one of the last numbers
//! tells that all before are taken: nothing needs to be counted.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sys::process;

/// The last descriptors of this process.
pub(super) struct Reserve {
    /// The number of the first of them, by the limit as it was when last looked at.
    first: AtomicU64,
    /// One of them was handed out.
    was_reached: AtomicBool,
}

impl Reserve {
    pub(super) fn new() -> Self {
        let reserve = Self {
            first: AtomicU64::new(0),
            was_reached: AtomicBool::new(false),
        };
        reserve.measure();
        reserve
    }

    /// Whether this is one of them.
    #[inline]
    pub(super) fn holds(&self, fd: RawFd) -> bool {
        let is_held = |first| u64::try_from(fd).is_ok_and(|fd| fd >= first);
        // The limit may have been raised since.
        let holds = is_held(self.first.load(Ordering::Relaxed)) && is_held(self.measure());
        if holds {
            self.was_reached.store(true, Ordering::Relaxed);
        }
        holds
    }

    /// Whether the next client would get one of them; `any` is some descriptor. The first who got one
    /// has told of it by that. If each did, they would all be gone one day: he stays, while others
    /// leave and let new ones in.
    #[inline]
    pub(super) fn is_next(&self, any: BorrowedFd<'_>) -> bool {
        self.was_reached.load(Ordering::Relaxed) && self.is_all_there_is(any)
    }

    /// Whether only these are free; `any` is some descriptor.
    pub(super) fn is_all_there_is(&self, any: BorrowedFd<'_>) -> bool {
        match any.try_clone_to_owned() {
            Ok(lowest) => self.holds(lowest.as_raw_fd()),
            Err(_) => true,
        }
    }

    fn measure(&self) -> u64 {
        let limit = process::open_files_limit().unwrap_or(u64::MAX);
        let first = limit - KEPT.min(limit / SHARE);
        self.first.store(first, Ordering::Relaxed);
        first
    }
}

/// How many there are: enough for eight workers at once, of which each takes six and one for every
/// loop.
const KEPT: u64 = 64;
/// Where few files may be open, only one of so many is kept.
const SHARE: u64 = 8;

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_last_numbers_are_kept() {
        let limit = process::open_files_limit().unwrap();
        let first = limit - KEPT.min(limit / SHARE);
        let reserve = Reserve::new();
        assert!(reserve.holds(first as RawFd) && reserve.holds(limit as RawFd - 1));
        assert!(!reserve.holds(first as RawFd - 1) && !reserve.holds(0) && !reserve.holds(-1));
        assert!(!reserve.is_all_there_is(io::stdin().as_fd()));
    }

    #[test]
    fn a_limit_that_was_raised_since_counts() {
        let reserve = Reserve::new();
        reserve.first.store(3, Ordering::Relaxed);
        assert!(!reserve.holds(3));
        assert_ne!(reserve.first.load(Ordering::Relaxed), 3);
    }
}
