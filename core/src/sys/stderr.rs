//! Standard error, for lines that nobody may have to wait for.

use std::sync::atomic::{AtomicU64, Ordering};

/// So much is written to a pipe as a whole or not at all, and a pipe that poll calls writable has as
/// much room (pipe(7)).
const WHOLE: usize = 4096;

/// Writes that were left out since there last was room.
static MISSED: AtomicU64 = AtomicU64::new(0);

/// Writes `text` if standard error takes it at once. A terminal that is paused, or a pipe whose reader
/// has stopped, holds nobody up: what it does not take is left out, and counted in a line of its own
/// once it takes something again.
///
/// What is no longer than 4 KiB is not mixed with what other processes write. `stamp` begins that line.
pub fn write(stamp: &str, text: &str) {
    if !is_ready() {
        MISSED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let missed = match MISSED.load(Ordering::Relaxed) {
        0 => 0,
        _ => MISSED.swap(0, Ordering::Relaxed),
    };
    if missed > 0 {
        put(format!(
            "{stamp}toolb warning: {missed} lines of the log were left out, as nobody read it\n"
        )
        .as_bytes());
    }
    for part in text.as_bytes().chunks(WHOLE) {
        if !is_ready() {
            MISSED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        put(part);
    }
}

/// Whether a write would neither wait nor raise SIGPIPE.
fn is_ready() -> bool {
    let mut entry = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd; no time is given to wait.
    let ready = unsafe { libc::poll(&mut entry, 1, 0) };
    ready > 0 && entry.revents & (libc::POLLERR | libc::POLLNVAL) == 0
}

/// One call and no lock: who is stopped in here after all stops nobody else.
fn put(bytes: &[u8]) {
    // SAFETY: the bytes are valid for their length. Nobody is there to be told if it fails.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}
