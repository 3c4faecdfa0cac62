//! Settings of a consumer.

use std::ffi::c_char;
use std::mem::offset_of;
use std::time::Duration;

use toolb_core::consumer::ConsumerOptions;

use crate::guard::{ends_whole, sized, text};
use crate::last_error::fail;
use crate::toolb_status;

/// What a consumer says about itself; 0 and NULL leave a setting at its default. Set `struct_size`
/// first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct toolb_consumer_options {
    /// `sizeof(toolb_consumer_options)`.
    pub struct_size: usize,
    /// What to call it in logs; "c" by default. Copied.
    pub name: *const c_char,
    /// The pool it belongs to; "main" by default. Copied.
    pub pool: *const c_char,
    /// Exchanges that may exist at once, at most 65535; 1024 by default.
    pub slots: u32,
    /// Exchanges that the program may hold at once, at most 65535; as many as slots by default.
    pub concurrency: u32,
    /// Requests that may be sent ahead of those it has begun, at most 65535; 16 by default. With 1,
    /// no request waits behind a slow one as long as another consumer is free.
    pub window: u32,
    /// Milliseconds that the engine may take to answer; 10000 by default.
    pub attach_timeout_ms: u32,
    /// Milliseconds to wait for an engine that is not there yet; by default it must be there.
    pub attach_patience_ms: u32,
    /// Raw connections that it takes at once, among its exchanges, at most 65535; by default it takes
    /// none. They come as TOOLB_EVENT_STREAM_OPEN from engines with a toolb_engine_stream_pool.
    pub streams: u32,
}

ends_whole!(toolb_consumer_options, streams: u32);

/// The options behind a pointer; NULL for all defaults.
///
/// # Safety
/// `options` is NULL or points to a `toolb_consumer_options` of the size it says, whose texts are
/// NUL-terminated.
pub(crate) unsafe fn consumer_options(
    options: *const toolb_consumer_options,
) -> Result<ConsumerOptions, toolb_status> {
    let mut taken = ConsumerOptions {
        language: String::from("c"),
        name: String::from("c"),
        ..ConsumerOptions::default()
    };
    // SAFETY: the caller's promise.
    let Some(options) = (unsafe { sized(options, OPTIONS_FIRST_VERSION)? }) else {
        return Ok(taken);
    };
    for (given, taken) in [
        (options.name, &mut taken.name),
        (options.pool, &mut taken.pool),
    ] {
        if !given.is_null() {
            // SAFETY: the caller's promise.
            *taken = unsafe { text(given)? }.to_owned();
        }
    }
    let number = |what: &str, value: u32, default: u16| match value {
        0 => Ok(default),
        _ => u16::try_from(value).map_err(|_| {
            let text = format_args!("{what} is {value}, and can be 65535 at most");
            fail(toolb_status::TOOLB_BAD_ARGUMENT, text)
        }),
    };
    taken.slots = number("slots", options.slots, taken.slots)?;
    taken.concurrency = number("concurrency", options.concurrency, taken.slots)?;
    taken.window = number("window", options.window, taken.window)?;
    taken.streams = number("streams", options.streams, taken.streams)?;
    if options.attach_timeout_ms != 0 {
        taken.timeout = Duration::from_millis(u64::from(options.attach_timeout_ms));
    }
    Ok(taken)
}

/// How long to wait for an engine.
///
/// # Safety
/// As for [`consumer_options`].
pub(super) unsafe fn attach_patience(
    options: *const toolb_consumer_options,
) -> Result<Duration, toolb_status> {
    // SAFETY: the caller's promise.
    let options = unsafe { sized(options, OPTIONS_FIRST_VERSION)? };
    let patience = options.map_or(0, |options| options.attach_patience_ms);
    Ok(Duration::from_millis(u64::from(patience)))
}

const OPTIONS_FIRST_VERSION: usize = offset_of!(toolb_consumer_options, streams) + 4;
