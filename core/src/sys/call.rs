//! What system calls give back.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// An error if `result` is that of a call that has failed.
pub(super) fn check(result: i32) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The descriptor that a call has made, unless it has failed.
///
/// # Safety
/// `result` comes from a call that makes descriptors, just now, and nobody else has taken it.
pub(super) unsafe fn new_fd(result: i32) -> io::Result<OwnedFd> {
    check(result)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}
