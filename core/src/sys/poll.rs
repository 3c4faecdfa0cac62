//! Waiting for one descriptor, without an epoll.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Waits for the other end of the socket `fd` to hang up, and reads nothing.
pub(crate) fn wait_hang_up(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        // Hang-ups and errors are told unasked.
        match poll(fd.as_raw_fd(), 0, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            told => return told.map(drop),
        }
    }
}

/// Waits until `fd` is readable (or hung up). False: the time is over, or a signal came.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    match poll(fd.as_raw_fd(), libc::POLLIN, timeout) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        told => told.map(|told| told != 0),
    }
}

/// Waits for `events`, a hang-up or an error, and gives those that came: none if the time is over.
pub(super) fn poll(fd: RawFd, events: i16, timeout: Option<Duration>) -> io::Result<i16> {
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let time = time
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref::<libc::timespec>);
    // SAFETY: one valid pollfd, and a timespec that lives until the call returns, or null.
    match unsafe { libc::ppoll(&mut entry, 1, time, std::ptr::null()) } {
        0.. => Ok(entry.revents),
        _ => Err(io::Error::last_os_error()),
    }
}
