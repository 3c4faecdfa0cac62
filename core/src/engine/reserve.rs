//! Descriptors that clients do not get. A worker that dies while clients hold all others could not
//! be replaced, nor its lane be made, until one of them leaves.
//!
//! The kernel hands out the lowest number that is free, so a client with one of the last numbers
//! tells that all before are taken: nobody else needs to be counted.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::sys::eventfd::EventFd;
use crate::sys::process;

/// The last descriptors of this process.
pub(super) struct Reserve {
    /// How many there are to be.
    kept: u64,
    /// What is taken in any case: by whatever was open at first, and by the consumers.
    used: u64,
    /// The number of the first of them, by the limit as it was when last looked at.
    first: AtomicU64,
    /// Clients that have one of them.
    guests: Arc<AtomicUsize>,
}

/// A client has one of the last descriptors, as long as this is kept.
#[derive(Debug)]
pub(super) struct Guest(Arc<AtomicUsize>);

impl Reserve {
    /// For so many consumers, each with so many descriptors.
    pub(super) fn new(consumers: usize, each: usize) -> io::Result<Self> {
        let lowest = EventFd::new()?.as_raw_fd();
        let own = (consumers * each) as u64;
        let reserve = Self {
            kept: MARGIN + own,
            used: u64::try_from(lowest).unwrap_or(0) + own,
            first: AtomicU64::new(0),
            guests: Arc::default(),
        };
        reserve.measure();
        Ok(reserve)
    }

    /// Whether this is one of them.
    #[inline]
    pub(super) fn holds(&self, fd: RawFd) -> bool {
        let is_held = |first| u64::try_from(fd).is_ok_and(|fd| fd >= first);
        // The limit may have been raised since.
        is_held(self.first.load(Ordering::Relaxed)) && is_held(self.measure())
    }

    /// A client got this descriptor: something to be kept with it, if it is one of them.
    #[inline]
    pub(super) fn receive(&self, fd: RawFd) -> Option<Guest> {
        self.holds(fd).then(|| {
            self.guests.fetch_add(1, Ordering::Relaxed);
            Guest(self.guests.clone())
        })
    }

    /// Whether the next client would get one of them; `any` is some descriptor. The first who got one
    /// has told of it by that. If each did, they would all be gone one day: he stays, while others
    /// leave and let new ones in. Once he has left as well, the next may tell.
    #[inline]
    pub(super) fn is_next(&self, any: BorrowedFd<'_>) -> bool {
        self.guests.load(Ordering::Relaxed) > 0 && self.is_all_there_is(any)
    }

    /// What to tell at the start if few clients can be connected at once: fewer than are allowed to
    /// have a request each, or than any server may have to expect.
    pub(super) fn scarcity(&self, limit_concurrency: Option<usize>) -> Option<String> {
        let limit = process::open_files_limit().ok()?;
        let clients = self.measure().saturating_sub(self.used);
        let wanted = limit_concurrency.map_or(FEW, |limit| limit as u64);
        if clients >= wanted {
            return None;
        }
        let enough = self.used.saturating_add(self.kept).saturating_add(wanted);
        let whose = match limit_concurrency {
            Some(_) => format!("fewer than the {wanted} that limit-concurrency lets in"),
            None => "and others have to wait".to_owned(),
        };
        Some(format!(
            "room for about {clients} clients at once, {whose}: the server and its workers need {} of {limit} \
             open files; raise the limit (ulimit -n) to {enough}",
            limit - clients
        ))
    }

    /// Whether only these are free; `any` is some descriptor.
    fn is_all_there_is(&self, any: BorrowedFd<'_>) -> bool {
        match any.try_clone_to_owned() {
            Ok(lowest) => self.holds(lowest.as_raw_fd()),
            Err(_) => true,
        }
    }

    fn measure(&self) -> u64 {
        let limit = process::open_files_limit().unwrap_or(u64::MAX);
        // Where few files may be open, clients have as many.
        let first = limit - self.kept.min(limit.saturating_sub(self.used) / 2);
        self.first.store(first, Ordering::Relaxed);
        first
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a consumer and its lane have, besides one for each loop: its process and its socket, two
/// memories, a doorbell, and one while it is made.
pub(super) const OF_A_CONSUMER: usize = 6;
/// What starting one needs for the moment, and the files that are passed on.
const MARGIN: u64 = 16;
/// Fewer clients are worth a word: some forty browsers.
const FEW: u64 = 256;

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_last_numbers_are_kept() {
        let limit = process::open_files_limit().unwrap() as RawFd;
        let reserve = Reserve::new(2, 7).unwrap();
        assert_eq!(reserve.kept, 30);
        let first = reserve.first.load(Ordering::Relaxed) as RawFd;
        assert!(first >= limit - 30);
        assert!(reserve.holds(first) && reserve.holds(limit - 1));
        assert!(!reserve.holds(first - 1) && !reserve.holds(0) && !reserve.holds(-1));
        assert!(!reserve.is_all_there_is(io::stdin().as_fd()));
    }

    #[test]
    fn who_is_next_is_asked_as_long_as_a_client_has_one_of_them() {
        let last = process::open_files_limit().unwrap() as RawFd - 1;
        let reserve = Reserve::new(2, 7).unwrap();
        let guests = || reserve.guests.load(Ordering::Relaxed);
        assert!(reserve.receive(0).is_none());
        assert_eq!(guests(), 0);
        let (one, other) = (reserve.receive(last), reserve.receive(last - 1));
        drop(one);
        assert_eq!(guests(), 1);
        assert!(!reserve.is_next(io::stdin().as_fd()), "there are others");
        drop(other);
        assert_eq!(guests(), 0);
    }

    #[test]
    fn nothing_is_kept_where_there_is_nothing() {
        let reserve = Reserve::new(1_000_000_000, 7).unwrap();
        let limit = process::open_files_limit().unwrap();
        assert_eq!(reserve.first.load(Ordering::Relaxed), limit);
    }

    #[test]
    fn a_limit_that_lets_few_in_is_told_of_with_the_one_that_would_do() {
        let limit = process::open_files_limit().unwrap();
        let reserve = Reserve::new(2, 7).unwrap();
        // As if so many were open that this is what is left.
        let with_room_for = |clients: u64| Reserve {
            used: limit - reserve.kept - clients,
            ..Reserve::new(2, 7).unwrap()
        };
        assert_eq!(with_room_for(FEW).scarcity(None), None);
        assert_eq!(with_room_for(100).scarcity(Some(100)), None);
        let text = with_room_for(FEW - 1).scarcity(None).unwrap();
        let told = format!(
            "room for about 255 clients at once, and others have to wait: the server and its \
                            workers need {} of {limit} open files; raise the limit (ulimit -n) to {}",
            limit - 255,
            limit + 1
        );
        assert_eq!(text, told);
        let text = with_room_for(100).scarcity(Some(101)).unwrap();
        assert!(
            text.contains("fewer than the 101 that limit-concurrency lets in"),
            "{text}"
        );
    }

    #[test]
    fn a_limit_that_was_raised_since_counts() {
        let reserve = Reserve::new(2, 7).unwrap();
        reserve.first.store(3, Ordering::Relaxed);
        assert!(!reserve.holds(3));
        assert_ne!(reserve.first.load(Ordering::Relaxed), 3);
    }
}
