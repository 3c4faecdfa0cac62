//! Consumers: programs that answer the requests of an engine in another process.

mod exchange;
mod later;
mod live;
mod options;
mod respond;
mod routes;
mod run;
mod stream;
mod turn;

use std::cell::UnsafeCell;
use std::ffi::{OsStr, c_char, c_int, c_void};
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use toolb_core::config::default_bus_path;
use toolb_core::consumer::Consumer;
use toolb_core::engine::EventFd;

use crate::exchange::{toolb_request, toolb_slice};
use crate::guard::{ends_whole, entry, fill, object, place, store, text, text_bytes, told_size};
use crate::last_error::fail;
use crate::toolb_status;

pub use exchange::*;
pub use options::*;
pub use routes::*;
pub use run::*;
pub use stream::*;

use options::attach_patience;
use turn::Inner;

/// A consumer: one end of the bus to an engine. Made by toolb_consumer_attach, freed by
/// toolb_consumer_free. One thread at a time may use it, and not from within a handler of
/// toolb_consumer_run; a call that breaks this rule answers TOOLB_BAD_STATE and does nothing.
/// Several consumers of one process are independent of each other. A process that was forked must
/// not use the consumers of its parent; there toolb_consumer_free does nothing.
pub struct toolb_consumer {
    made_in: u32,
    busy: AtomicBool,
    stopping: AtomicBool,
    /// Wakes it, to stop or to look for what the holders of tokens have said.
    stop: Arc<EventFd>,
    inner: UnsafeCell<Inner>,
}

/// Nothing has come.
pub const TOOLB_EVENT_NONE: u32 = 0;
/// A request, which the program now holds: `request` is its head, `data` its body as far as it has
/// come. It ends with toolb_exchange_answer, _done or _abort.
pub const TOOLB_EVENT_REQUEST: u32 = 1;
/// More of a request's body: `data`, until the next call of toolb_consumer_next, _poll, _arm or
/// _wait.
pub const TOOLB_EVENT_BODY: u32 = 2;
/// The client has gone, the deadline has passed, or the engine has: nothing can be answered any more.
/// Of a stream: its connection broke, or its client took nothing for too long.
/// The exchange still is the program's until toolb_exchange_done or _abort.
pub const TOOLB_EVENT_CANCELLED: u32 = 3;
/// An exchange or stream that was told TOOLB_FULL has room again.
pub const TOOLB_EVENT_WRITABLE: u32 = 4;
/// The request's body will not be completed; a response is still welcome.
pub const TOOLB_EVENT_BODY_ABORTED: u32 = 5;
/// The engine sends no more requests: finish what there is; when all is done, TOOLB_EVENT_HANG_UP
/// comes.
pub const TOOLB_EVENT_DRAIN: u32 = 6;
/// Nothing will come any more: the engine has gone, or it drains and the last exchange is done. Free
/// the consumer.
pub const TOOLB_EVENT_HANG_UP: u32 = 7;
/// A client has connected to an address of toolb_engine_stream_pool. The stream is an exchange without
/// a request: `exchange` is its number, toolb_exchange_write sends, toolb_exchange_end and then _done
/// close it, toolb_exchange_abort resets it. It lasts until the program has let go of it.
pub const TOOLB_EVENT_STREAM_OPEN: u32 = 8;
/// Bytes of a stream: `data`, until the next call of toolb_consumer_next, _poll, _arm or _wait. With
/// TOOLB_EVENT_END the client has ended its side: it sends no more, but still reads. Then `data` may
/// be empty.
pub const TOOLB_EVENT_STREAM_DATA: u32 = 9;

/// Nothing has come on a stream for as long as toolb_exchange_want or `timeout_stream_idle_ms` of the
/// engine allows: a program that knows no better says goodbye, and toolb_exchange_end and _done. What
/// is not ended waits again, for the engine's time.
pub const TOOLB_EVENT_STREAM_TIMEOUT: u32 = 10;

/// A flag of TOOLB_EVENT_REQUEST and _BODY: with this event the request's body is complete; and of
/// TOOLB_EVENT_STREAM_DATA: the last one of its stream.
pub const TOOLB_EVENT_END: u32 = 1;

/// What toolb_consumer_next found. Set `struct_size` first; the rest is written.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct toolb_event {
    /// `sizeof(toolb_event)`.
    pub struct_size: usize,
    /// One of TOOLB_EVENT_*; a program must expect ones it does not know, and ignore them.
    pub kind: u32,
    /// TOOLB_EVENT_END or 0.
    pub flags: u32,
    /// The exchange, never 0; 0 if the event concerns none.
    pub exchange: u64,
    /// Bytes of the request's body, or of a stream. Borrowed: those of a REQUEST until its exchange is
    /// over, others until the next call of toolb_consumer_next, _poll, _arm or _wait.
    pub data: toolb_slice,
    /// The request of a REQUEST, until its exchange is over; else NULL.
    pub request: *const toolb_request,
    /// What toolb_exchange_set_user_data was given; NULL before.
    pub user_data: *mut c_void,
}

ends_whole!(toolb_event, user_data: *mut c_void);

/// Attaches to an engine and stores the consumer in `out`, which the caller then owns. `bus` says
/// where: "fd:N", a path or "unix:" and a path; NULL: what the environment variable TOOLB_BUS says,
/// which `toolb` sets for the programs it starts, or if it is not set, the usual place,
/// `$XDG_RUNTIME_DIR/toolb/bus`. `options` may be NULL: all defaults. Blocks until the engine has
/// answered; TOOLB_CANNOT_ATTACH if it does not or will not, and toolb_last_error says why. No
/// request comes before toolb_consumer_ready.
///
/// # Safety
/// `bus` is NUL-terminated or NULL; `options` points to a toolb_consumer_options of the size it says
/// or is NULL; `out` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_attach(
    bus: *const c_char,
    options: *const toolb_consumer_options,
    out: *mut *mut toolb_consumer,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (out, patience) = unsafe { (place(out)?, attach_patience(options)?) };
        // SAFETY: the caller's promise.
        let options = unsafe { consumer_options(options)? };
        *out = std::ptr::null_mut();
        let bus = match bus.is_null() {
            true => std::env::var_os("TOOLB_BUS").unwrap_or_else(|| default_bus_path().into()),
            // SAFETY: the caller's promise.
            false => OsStr::from_bytes(unsafe { text_bytes(bus)? }).to_owned(),
        };
        let consumer = Consumer::attach_within(&bus, &options, patience)
            .map_err(|error| fail(toolb_status::TOOLB_CANNOT_ATTACH, error))?;
        *out = toolb_consumer::new(consumer)?;
        Ok(())
    })
}

/// Tells the engine that the program has started: requests may come.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_ready(consumer: *mut toolb_consumer) -> toolb_status {
    // SAFETY: the caller's promise.
    let ready = |inner: &mut Inner| inner.ready();
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, ready) })
}

/// Tells the engine, in place of toolb_consumer_ready, that the program will not start, and why.
/// `permanent`, if not 0: nor would it if it were tried again. The text is copied.
///
/// # Safety
/// `consumer` is a live consumer; `reason` is NUL-terminated. Each may be NULL, which is answered by
/// TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_fail(
    consumer: *mut toolb_consumer,
    reason: *const c_char,
    permanent: c_int,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let reason = unsafe { text(reason)? };
        let tell = |inner: &mut Inner| inner.fail(reason, permanent != 0);
        // SAFETY: the caller's promise.
        unsafe { with(consumer, tell) }
    })
}

/// Stores in `out` the one descriptor to watch for reading, level-triggered, for programs with a loop
/// of their own: readable when something came after toolb_consumer_arm. It is never to be read, and
/// belongs to the consumer.
///
/// # Safety
/// `consumer` is a live consumer; `out` may be written. Each may be NULL, which is answered by
/// TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_fd(
    consumer: *mut toolb_consumer,
    out: *mut c_int,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { place(out)? };
        // SAFETY: the caller's promise.
        *out = unsafe { with(consumer, |inner| Ok(inner.fd()))? };
        Ok(())
    })
}

/// Looks for what has come, about `max` events at most (0: 64), and stores in `got`, if not NULL, for
/// how many events toolb_consumer_next is to be called. Never blocks. What was written since the last
/// poll is made known to the engine when that is due. TOOLB_HANG_UP once TOOLB_EVENT_HANG_UP was
/// taken.
///
/// # Safety
/// `consumer` is a live consumer or NULL; `got` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_poll(
    consumer: *mut toolb_consumer,
    max: usize,
    got: *mut usize,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let found = unsafe { with(consumer, |inner| inner.poll(max))? };
        // SAFETY: the caller's promise.
        unsafe { store(got, found) };
        Ok(())
    })
}

/// Takes the next event that toolb_consumer_poll found; its kind is TOOLB_EVENT_NONE if there is none
/// left, which may be sooner than poll said. A request that is taken has begun: it is the program's
/// to answer, and no other consumer's. The body bytes of the event before count as used up, unless
/// toolb_exchange_pause was called.
///
/// # Safety
/// `consumer` is a live consumer; `event` points to a toolb_event of the size it says. Each may be
/// NULL, which is answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_next(
    consumer: *mut toolb_consumer,
    event: *mut toolb_event,
) -> toolb_status {
    entry(|| {
        let first_version = offset_of!(toolb_event, user_data) + size_of::<*mut c_void>();
        // Before anything is taken that could not be handed out.
        // SAFETY: the caller's promise.
        unsafe { told_size(event, first_version)? };
        let mut found = turn::NONE;
        // SAFETY: the caller's promise.
        unsafe {
            with(consumer, |inner| inner.next(&mut found))?;
            fill(event, first_version, &found)
        }
    })
}

/// Announces that the program is about to block on the descriptor of toolb_consumer_fd, and tells the
/// engine all that was written. Stores in `may_block` 1 if it may, 0 if it must not: then there is
/// something to poll. After blocking, or instead of it, call toolb_consumer_poll.
///
/// # Safety
/// `consumer` is a live consumer; `may_block` may be written. Each may be NULL, which is answered by
/// TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_arm(
    consumer: *mut toolb_consumer,
    may_block: *mut c_int,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let may_block = unsafe { place(may_block)? };
        *may_block = 0;
        // SAFETY: the caller's promise.
        *may_block = c_int::from(unsafe { with(consumer, Inner::arm)? });
        Ok(())
    })
}

/// Blocks until there is something to poll, at most `timeout_ms` milliseconds (negative: for ever):
/// TOOLB_TIMEOUT if nothing came. A signal that the program handles ends it with TOOLB_OK, too. Tells
/// the engine all that was written before.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_wait(
    consumer: *mut toolb_consumer,
    timeout_ms: i32,
) -> toolb_status {
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.wait(timeout)) })
}

/// Tells the engine all that was written. toolb_consumer_poll, _arm and _wait do it in time by
/// themselves; call it before doing something else that takes long.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_flush(consumer: *mut toolb_consumer) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, Inner::flush) })
}

/// Asks the engine for no more requests: finish what there is; when all is done,
/// TOOLB_EVENT_HANG_UP comes, as after TOOLB_EVENT_DRAIN. Any number of times.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_leave(consumer: *mut toolb_consumer) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, Inner::leave) })
}

/// Leaves the engine and frees the consumer with all its requests. Exchanges that were begun and not
/// ended are answered by the engine in its place: 502, or a reset. NULL is allowed. TOOLB_BAD_STATE,
/// and nothing is freed, if another thread uses it or from a handler of toolb_consumer_run.
///
/// # Safety
/// `consumer` is NULL or was made by this library and not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_free(consumer: *mut toolb_consumer) -> toolb_status {
    entry(|| {
        if consumer.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        if unsafe { (*consumer).made_in } != process::id() {
            // It speaks for another process, whose requests go on.
            return Ok(());
        }
        // SAFETY: the caller's promise. It stays busy: nobody else can enter any more.
        if unsafe { (*consumer).busy.swap(true, Ordering::Acquire) } {
            return Err(used_elsewhere());
        }
        // SAFETY: the caller's promise: it came from `Box::into_raw` and is freed once.
        drop(unsafe { Box::from_raw(consumer) });
        Ok(())
    })
}

impl toolb_consumer {
    /// A consumer for C, to be freed by `toolb_consumer_free`.
    pub(crate) fn new(consumer: Consumer) -> Result<*mut Self, toolb_status> {
        let cannot = |error: std::io::Error| {
            fail(
                toolb_status::TOOLB_CANNOT_ATTACH,
                format_args!("{error}; raise the limit on open files (ulimit -n)"),
            )
        };
        let stop = Arc::new(EventFd::new().map_err(cannot)?);
        let inner = Inner::new(consumer, &stop).map_err(cannot)?;
        Ok(Box::into_raw(Box::new(Self {
            made_in: process::id(),
            busy: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop,
            inner: UnsafeCell::new(inner),
        })))
    }
}

/// Uses a consumer, alone.
///
/// # Safety
/// `consumer` is NULL or lives until this returns.
unsafe fn with<R>(
    consumer: *mut toolb_consumer,
    body: impl FnOnce(&mut Inner) -> Result<R, toolb_status>,
) -> Result<R, toolb_status> {
    // SAFETY: the caller's promise. Only shared references to the consumer are ever made.
    let consumer = unsafe { object(consumer)? };
    if consumer.busy.swap(true, Ordering::Acquire) {
        return Err(used_elsewhere());
    }
    let _alone = Alone(&consumer.busy);
    // SAFETY: whoever found `busy` false is the only one until `_alone` is dropped.
    body(unsafe { &mut *consumer.inner.get() })
}

#[cold]
fn used_elsewhere() -> toolb_status {
    fail(
        toolb_status::TOOLB_BAD_STATE,
        "another thread uses the consumer, or this one from within a handler: attach one per thread",
    )
}

/// Lets the next one in, be it after a panic.
struct Alone<'a>(&'a AtomicBool);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

const _: () = {
    const fn may_move_between_threads<T: Send>() {}
    // One thread at a time, but not always the same.
    may_move_between_threads::<Consumer>();
};
