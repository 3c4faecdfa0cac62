//! The detail of the last failure, per thread.

use std::cell::RefCell;
use std::ffi::c_char;

use crate::guard::{put_text, quiet};
use crate::toolb_status;

/// Remembers what went wrong on this thread, one line that says what to do, and gives the status
/// back to return.
pub(crate) fn fail(status: toolb_status, text: impl ToString) -> toolb_status {
    remember(Some(status), Detail::Said(text.to_string()));
    status
}

/// Remembers that a call failed in `place`, the name of a type in it, unless [`fail`] was told more
/// of that.
pub(crate) fn settle(status: toolb_status, place: &'static str) {
    let told = LAST.try_with(|last| last.borrow_mut().news.take());
    if !matches!(told, Ok(Some(told)) if told == status) {
        remember(None, Detail::Status(status, place));
    }
}

/// What the last failure of this thread was about.
pub(crate) fn last_text() -> String {
    LAST.try_with(|last| match &last.borrow().detail {
        Detail::None => String::new(),
        Detail::Said(text) => text.clone(),
        Detail::Status(status, place) => match function(place) {
            Some(function) => format!("{function}: {}", status.text()),
            None => status.text().to_owned(),
        },
    })
    .unwrap_or_default()
}

/// Copies what this thread's last failure was about, one line that says what to do, to `buffer`:
/// each call that returns another status than TOOLB_OK says it anew, but for toolb_engine_stop, this
/// one and toolb_engine_error. Empty if nothing has failed; a call that succeeds leaves it as it is.
/// `needed`, if not NULL, gets the size it takes. Any thread, each with a text of its own.
///
/// # Safety
/// `buffer` has room for `capacity` bytes; `needed` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_last_error(
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> toolb_status {
    // SAFETY: the caller's promise.
    quiet(|| unsafe { put_text(&last_text(), buffer, capacity, needed) })
}

fn remember(news: Option<toolb_status>, detail: Detail) {
    // A thread that is ending has nobody left to tell.
    let _ = LAST.try_with(|last| last.replace(Last { detail, news }));
}

/// The function of the library that a type belongs to whose name holds that of the function, as the
/// names of closures do.
fn function(place: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = place.split(|c| !is_name(c));
    names.rfind(|name| name.starts_with("toolb_"))
}

/// The last failure of a thread.
struct Last {
    detail: Detail,
    /// What [`fail`] said since a failure was settled.
    news: Option<toolb_status>,
}

enum Detail {
    None,
    Said(String),
    /// Made a text of only when somebody asks: some failures are usual, and have to be fast.
    Status(toolb_status, &'static str),
}

thread_local! {
    static LAST: RefCell<Last> = const {
        RefCell::new(Last {
            detail: Detail::None,
            news: None,
        })
    };
}
