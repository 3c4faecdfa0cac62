//! The detail of the last failure, per thread.

use std::cell::RefCell;
use std::ffi::c_char;

use crate::guard::{entry, put_text};
use crate::toolb_status;

thread_local! {
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Remembers what went wrong on this thread, one line that says what to do, and gives the status
/// back to return.
pub(crate) fn fail(status: toolb_status, text: impl ToString) -> toolb_status {
    let text = text.to_string();
    // A thread that is ending has nobody left to tell.
    let _ = TEXT.try_with(|last| last.replace(text));
    status
}

/// Copies what this thread's last failure was about, one line that says what to do, to `buffer`:
/// for functions without an engine of whose error text one could ask. Empty if nothing has failed;
/// a call that succeeds leaves it as it is. `needed`, if not NULL, gets the size it takes. Any thread,
/// each with a text of its own.
///
/// # Safety
/// `buffer` has room for `capacity` bytes; `needed` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_last_error(
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> toolb_status {
    entry(|| {
        TEXT.with_borrow(|text| {
            // SAFETY: the caller's promise.
            unsafe { put_text(text, buffer, capacity, needed) }
        })
    })
}
