//! Waiting for a descriptor or two, without an epoll.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::call::check;

/// Waits for the other end of the socket `fd` to hang up, or for `off` to be readable, and reads
/// nothing. False: the latter.
pub(crate) fn wait_hang_up(fd: BorrowedFd<'_>, off: BorrowedFd<'_>) -> io::Result<bool> {
    // Hang-ups and errors are told unasked.
    let entries = [(fd.as_raw_fd(), 0), (off.as_raw_fd(), libc::POLLIN)];
    loop {
        match poll_all(entries, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            told => return told.map(|[_, off]| off == 0),
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

/// Waits until something can be written to `fd`, or that would fail.
pub(crate) fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(fd.as_raw_fd(), libc::POLLOUT, None) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        told => told.map(drop),
    }
}

/// Waits for `events`, a hang-up or an error, and gives those that came: none if the time is over.
pub(super) fn poll(fd: RawFd, events: i16, timeout: Option<Duration>) -> io::Result<i16> {
    poll_all([(fd, events)], timeout).map(|[came]| came)
}

/// The same for several descriptors at once.
fn poll_all<const N: usize>(
    wanted: [(RawFd, i16); N],
    timeout: Option<Duration>,
) -> io::Result<[i16; N]> {
    let mut entries = wanted.map(|(fd, events)| libc::pollfd {
        fd,
        events,
        revents: 0,
    });
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let time = time
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref::<libc::timespec>);
    // SAFETY: as many valid pollfds as said, and a timespec that lives until the call returns, or null.
    let told = unsafe {
        libc::ppoll(
            entries.as_mut_ptr(),
            N as libc::nfds_t,
            time,
            std::ptr::null(),
        )
    };
    check(told)?;
    Ok(entries.map(|entry| entry.revents))
}
