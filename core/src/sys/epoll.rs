//! The readiness queue of a loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::call::{check, new_fd};

/// Readable.
pub const IN: u32 = libc::EPOLLIN as u32;
/// Writable.
pub const OUT: u32 = libc::EPOLLOUT as u32;
/// The peer closed its writing side.
pub const RDHUP: u32 = libc::EPOLLRDHUP as u32;
/// Both sides are closed.
pub const HUP: u32 = libc::EPOLLHUP as u32;
/// The descriptor has an error.
pub const ERR: u32 = libc::EPOLLERR as u32;
/// Report changes, not states.
pub const EDGE: u32 = libc::EPOLLET as u32;

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// Creates an instance, closed on exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is new.
        unsafe { new_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }.map(Self)
    }

    /// Watches `fd` for `flags`; its events carry `token`.
    pub fn add(&self, fd: &impl AsRawFd, token: u64, flags: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, flags)
    }

    /// Changes what `fd` is watched for.
    pub fn modify(&self, fd: &impl AsRawFd, token: u64, flags: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, flags)
    }

    /// Stops watching `fd`.
    pub fn delete(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits for events, at most for `timeout` (`None`: for ever), and replaces those in `events`.
    ///
    /// A signal that interrupts the wait ends it, with the events that there are.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        events.len = 0;
        // Round up, or a deadline less than a millisecond away would be awaited by spinning.
        let timeout = timeout.map_or(-1, |timeout| {
            timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
        });
        let mut woken = self.wait_once(events, timeout);
        if matches!(&woken, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            // By a stop of the process perhaps, which ends all waits: what came meanwhile is there.
            woken = self.wait_once(events, 0);
        }
        match woken {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            woken => woken,
        }
    }

    fn wait_once(&self, events: &mut Events, timeout: i32) -> io::Result<usize> {
        // SAFETY: the buffer is valid for its length while the call lasts.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.buffer.as_mut_ptr(),
                events.buffer.len() as i32,
                timeout,
            )
        };
        check(count)?;
        events.len = count as usize;
        Ok(events.len)
    }

    fn control(&self, op: i32, fd: &impl AsRawFd, token: u64, flags: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: flags,
            u64: token,
        };
        // SAFETY: the event lives for the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd.as_raw_fd(), &mut event) })
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Room for the events of one wait.
#[derive(Debug)]
pub struct Events {
    buffer: Vec<libc::epoll_event>,
    len: usize,
}

impl Events {
    /// Room for `capacity` events a wait.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            buffer: vec![libc::epoll_event { events: 0, u64: 0 }; capacity],
            len: 0,
        }
    }

    /// The event at `index`: its token and its flags.
    #[inline]
    pub fn at(&self, index: usize) -> (u64, u32) {
        let event = self.buffer[..self.len][index];
        (event.u64, event.events)
    }

    /// How many events the last wait brought.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the last wait brought as many as there is room for: there may be more.
    pub fn is_full(&self) -> bool {
        self.len == self.buffer.len()
    }

    /// Whether the last wait brought none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The events of the last wait: token and flags.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.buffer[..self.len]
            .iter()
            .map(|event| (event.u64, event.events))
    }
}
