//! Timers and watched descriptors: for callbacks on a loop.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use toolb_core::engine::{Interest, TimerId, WatchId};

use crate::callback::{User, toolb_callback};
use crate::context;
use crate::guard::{entry, store};
use crate::last_error::fail;
use crate::toolb_status;

/// There is something to read, be it the end.
pub const TOOLB_WATCH_READ: u32 = 1;
/// There is room to write.
pub const TOOLB_WATCH_WRITE: u32 = 2;
/// The descriptor has an error, or the other side has hung up. Reported whether asked for or not.
pub const TOOLB_WATCH_ERROR: u32 = 4;

/// What is called when a watched descriptor is ready for `events`.
pub type toolb_watch_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, fd: c_int, events: u32)>;

/// Has `call` called once on this loop after `after_ms` milliseconds, and never before. Timers fire
/// in the order of their deadlines; one that still waits when the loop ends is not called. `id`, if
/// not NULL, gets what toolb_timer_cancel wants, which is never 0.
///
/// `user` is given away: `drop`, if not NULL, is called for it exactly once, on this thread, when
/// `call` will not be called any more: it has been, the timer was cancelled, the loop ended, or this
/// function did not return TOOLB_OK.
///
/// Only in a callback on a loop, such as a handler or the function of a timer; TOOLB_WRONG_LOOP
/// elsewhere.
///
/// # Safety
/// `call` and `drop` are functions of that type or NULL; `id` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_timer_start(
    after_ms: u64,
    call: toolb_callback,
    user: *mut c_void,
    drop: toolb_callback,
    id: *mut u64,
) -> toolb_status {
    let user = User::new(user, drop);
    entry(|| {
        let call = call.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        let timer = context::with(|context| {
            context.timer(Duration::from_millis(after_ms), move |context| {
                // SAFETY: the caller's promise.
                unsafe { user.last_call(Some(context), call) };
            })
        })?;
        // SAFETY: the caller's promise.
        unsafe { store(id, timer.to_bits()) };
        Ok(())
    })
}

/// Cancels a timer of this loop. TOOLB_NOT_FOUND if it has fired or was cancelled before. Only in a
/// callback on the loop that it was started on; elsewhere TOOLB_WRONG_LOOP, and on another loop `id`
/// means nothing or something else.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_timer_cancel(id: u64) -> toolb_status {
    entry(|| {
        found(context::with(|context| {
            context.cancel_timer(TimerId::from_bits(id))
        })?)
    })
}

/// Has `call` called on this loop whenever `fd` is ready for `events` (TOOLB_WATCH_READ,
/// TOOLB_WATCH_WRITE or both), until toolb_unwatch. Readiness is a state, not a change: what is left
/// unread is reported again. `id`, if not NULL, gets what toolb_unwatch wants, which is never 0.
///
/// The loop watches a duplicate of the descriptor: `fd` stays yours and may be closed at any time,
/// but what is behind it stays open until toolb_unwatch or the end of the loop. TOOLB_BAD_ARGUMENT
/// if `fd` is not open or cannot be watched (a plain file), or `events` are none of these;
/// TOOLB_NO_DESCRIPTOR if the process has no descriptor left.
///
/// `user` is given away: `drop`, if not NULL, is called for it exactly once, on this thread, when
/// `call` will not be called any more: it was unwatched, the loop ended, or this function did not
/// return TOOLB_OK. Only in a callback on a loop.
///
/// # Safety
/// `call` and `drop` are functions of that type or NULL; `id` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_watch(
    fd: c_int,
    events: u32,
    call: toolb_watch_callback,
    user: *mut c_void,
    drop: toolb_callback,
    id: *mut u64,
) -> toolb_status {
    let user = User::new(user, drop);
    entry(|| {
        let call = call.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        let interest = match events {
            TOOLB_WATCH_READ => Interest::Read,
            TOOLB_WATCH_WRITE => Interest::Write,
            both if both == TOOLB_WATCH_READ | TOOLB_WATCH_WRITE => Interest::Both,
            _ => {
                let text = format!(
                    "{events} are no events to watch for: use TOOLB_WATCH_READ, TOOLB_WATCH_WRITE or \
                     both"
                );
                return Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, text));
            }
        };
        if fd < 0 {
            return Err(refused(fd, &io::Error::from_raw_os_error(EBADF)));
        }
        let watch = context::with(|context| {
            // SAFETY: it is only duplicated, which fails if it is not open.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            context.watch(borrowed, interest, move |context, ready| {
                let parts = [
                    (ready.readable, TOOLB_WATCH_READ),
                    (ready.writable, TOOLB_WATCH_WRITE),
                    (ready.error, TOOLB_WATCH_ERROR),
                ];
                let parts = parts.iter().filter(|(is, _)| *is);
                let events = parts.map(|(_, event)| event).sum();
                // SAFETY: the caller's promise.
                context::enter(context, || unsafe { call(user.pointer(), fd, events) });
            })
        })?;
        let watch = watch.map_err(|error| refused(fd, &error))?;
        // SAFETY: the caller's promise.
        unsafe { store(id, watch.to_bits()) };
        Ok(())
    })
}

/// Ends a watch of this loop; its function is not called again. TOOLB_NOT_FOUND if it has been ended
/// before. Only in a callback on the loop that it was begun on, be it its own.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_unwatch(id: u64) -> toolb_status {
    entry(|| {
        found(context::with(|context| {
            context.unwatch(WatchId::from_bits(id))
        })?)
    })
}

fn found(found: bool) -> Result<(), toolb_status> {
    match found {
        true => Ok(()),
        false => Err(toolb_status::TOOLB_NOT_FOUND),
    }
}

fn refused(fd: c_int, error: &io::Error) -> toolb_status {
    let (status, remedy) = match error.raw_os_error() {
        Some(EBADF) => (toolb_status::TOOLB_BAD_ARGUMENT, "it is not open"),
        Some(EPERM) => (
            toolb_status::TOOLB_BAD_ARGUMENT,
            "it can always be read and written, as plain files can",
        ),
        _ => (
            toolb_status::TOOLB_NO_DESCRIPTOR,
            "raise the limit on open files (ulimit -n)",
        ),
    };
    fail(
        status,
        format_args!("descriptor {fd} cannot be watched: {remedy} ({error})"),
    )
}

/// The same on every Linux.
const EPERM: c_int = 1;
const EBADF: c_int = 9;
