//! Floor 0: the only module that makes system calls.

pub mod affinity;
pub mod clock;
pub mod crash;
pub mod epoll;
pub mod eventfd;
pub mod file;
pub mod inherited;
pub mod memory;
pub mod process;
pub mod rendezvous;
pub mod seqpacket;
pub mod signal;
pub mod socket;
pub mod stderr;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits for the other end of the socket `fd` to hang up, or for `off` to be readable, and reads
/// nothing. False: the latter.
pub(crate) fn wait_hang_up(fd: BorrowedFd<'_>, off: BorrowedFd<'_>) -> io::Result<bool> {
    let entry = |fd: BorrowedFd<'_>, events| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // Hang-ups and errors are told unasked.
    let mut entries = [entry(fd, 0), entry(off, libc::POLLIN)];
    loop {
        // SAFETY: two valid pollfds.
        if unsafe { libc::poll(entries.as_mut_ptr(), 2, -1) } > 0 {
            return Ok(entries[1].revents == 0);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// Waits until `fd` is readable (or hung up). False: the time is over, or a signal came.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
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
    let ready = unsafe { libc::ppoll(&mut entry, 1, time, std::ptr::null()) };
    if ready >= 0 {
        return Ok(ready > 0);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        error => Err(error),
    }
}
