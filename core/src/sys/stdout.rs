//! Standard output, written to by whoever may wait for its reader.

use std::io;
use std::os::fd::AsFd;

use super::poll::wait_writable;

/// Writes some of `bytes`, waiting for room if standard output does not wait by itself. No buffer
/// stands between: what was not written is known.
pub(crate) fn write(bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the bytes are valid for their length.
        let took = unsafe { libc::write(libc::STDOUT_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        if let Ok(took) = usize::try_from(took) {
            return Ok(took);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => wait_writable(io::stdout().as_fd())?,
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}
