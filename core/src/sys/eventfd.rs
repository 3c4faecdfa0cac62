//! Event descriptors: the doorbells of the bus.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::call::new_fd;

/// A non-blocking, close-on-exec eventfd.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, not signalled.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is new.
        unsafe { new_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }.map(Self)
    }

    /// Makes it readable; whoever watches it edge-triggered gets an edge.
    pub fn signal(&self) -> io::Result<()> {
        let one = 1u64.to_ne_bytes();
        loop {
            // SAFETY: eight readable bytes.
            let written =
                unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            if written >= 0 {
                return Ok(());
            }
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // The counter is full: it has been readable all the time.
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                error => return Err(error),
            }
        }
    }

    /// Makes it unreadable. Not needed by those who watch it edge-triggered.
    pub fn drain(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes. A failure means that there was nothing to read.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Puts a new one, not signalled, in its place, under the same number: after a fork, so that it
    /// is no longer shared with the other process.
    pub fn renew(&self) -> io::Result<()> {
        let new = Self::new()?;
        // SAFETY: no pointers; both are open descriptors of ours, and two different ones.
        match unsafe { libc::dup3(new.as_raw_fd(), self.as_raw_fd(), libc::O_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Waits until it is readable, without reading it. False: the time is over, or a signal came.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        super::wait_readable(self.0.as_fd(), timeout)
    }
}

impl From<OwnedFd> for EventFd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_wait_and_drain() {
        let bell = EventFd::new().unwrap();
        assert!(!bell.wait(Some(Duration::ZERO)).unwrap());
        bell.signal().unwrap();
        bell.signal().unwrap();
        assert!(bell.wait(None).unwrap());
        bell.drain();
        assert!(!bell.wait(Some(Duration::ZERO)).unwrap());
        bell.drain();
    }

    #[test]
    fn a_renewed_one_is_not_what_others_share() {
        let bell = EventFd::new().unwrap();
        // What a process has that was forked.
        let theirs = EventFd::from(bell.as_fd().try_clone_to_owned().unwrap());
        theirs.signal().unwrap();
        bell.renew().unwrap();
        assert!(!bell.wait(Some(Duration::ZERO)).unwrap());
        theirs.drain();
        bell.signal().unwrap();
        assert!(!theirs.wait(Some(Duration::ZERO)).unwrap());
        assert!(bell.wait(None).unwrap());
    }

    #[test]
    fn a_full_counter_is_no_error() {
        let bell = EventFd::new().unwrap();
        let most = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: eight readable bytes.
        let written = unsafe { libc::write(bell.as_raw_fd(), most.as_ptr().cast(), 8) };
        assert_eq!(written, 8);
        bell.signal().unwrap();
        assert!(bell.wait(None).unwrap());
    }
}
