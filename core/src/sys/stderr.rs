//! Standard error, for lines that nobody may have to wait for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::poll::poll;

/// Writes `text` if standard error takes it at once. A terminal that is paused, or a pipe whose reader
/// has stopped, holds nobody up: what it does not take is left out, as is what a full disk does not,
/// and counted in a line of its own once it takes something again.
///
/// What is no longer than 4 KiB is not mixed with what other processes write. `stamp` begins that line.
pub fn write(stamp: &str, text: &str) {
    let missed = MISSED.swap(0, Ordering::Relaxed);
    if missed > 0 && !put(note_of(stamp, missed).as_bytes()) {
        MISSED.fetch_add(missed + 1, Ordering::Relaxed);
        return;
    }
    if !text.as_bytes().chunks(WHOLE).all(put) {
        MISSED.fetch_add(1, Ordering::Relaxed);
    }
}

fn note_of(stamp: &str, missed: u64) -> String {
    format!(
        "{stamp}toolb warning: {missed} lines of the log were left out, as nobody read it or there was no room\n"
    )
}

/// Writes, unless that would wait or raise SIGPIPE: then it is false, as it is if not all was taken.
/// One call and no lock: who is stopped in here after all stops nobody else.
fn put(bytes: &[u8]) -> bool {
    let told = poll(libc::STDERR_FILENO, libc::POLLOUT, Some(Duration::ZERO)).unwrap_or(0);
    if told == 0 || told & (libc::POLLERR | libc::POLLNVAL) != 0 {
        return false;
    }
    // SAFETY: the bytes are valid for their length.
    let took = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(took) == Ok(bytes.len())
}

/// So much is written to a pipe as a whole or not at all, and a pipe that poll calls writable has as
/// much room (pipe(7)).
const WHOLE: usize = 4096;

/// Writes that were left out since there last was room.
static MISSED: AtomicU64 = AtomicU64::new(0);
