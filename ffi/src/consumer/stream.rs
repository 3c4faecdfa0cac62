//! What a program waits for on a stream that its consumer holds.

use toolb_core::consumer::WantError;

use super::turn::Inner;
use super::{toolb_consumer, with};
use crate::guard::entry;
use crate::last_error::fail;
use crate::stream::wait;
use crate::toolb_status;

/// Arms one next event of a stream: TOOLB_EVENT_STREAM_DATA when something comes or its client ends
/// its side, or TOOLB_EVENT_STREAM_TIMEOUT when neither has come after `timeout_ms` (0: the engine's
/// `timeout_stream_idle_ms`; TOOLB_NO_TIMEOUT: never). The last call counts, and no timeout of an
/// earlier one comes after it.
///
/// Without it data comes as it comes, under the engine's time, which begins anew with every event and
/// with every byte that the client takes. The engine keeps the time, so a program that blocks in
/// toolb_consumer_wait is woken by it. TOOLB_GONE: the client has gone. TOOLB_BAD_STATE: it is a
/// request, it was ended, or the engine is too old to keep the time.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_want(
    consumer: *mut toolb_consumer,
    exchange: u64,
    timeout_ms: u32,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.want(exchange, 1, timeout_ms)) })
}

/// As toolb_exchange_want, but TOOLB_EVENT_STREAM_DATA comes when at least `least` bytes are there that
/// came with no event before, all in one `data`, or the client has ended its side: what a protocol with
/// lengths wants. Parts of a message, however it was cut on its way, neither come nor put the timeout
/// off; after a TOOLB_EVENT_STREAM_TIMEOUT they do, unless the program wants something else.
/// TOOLB_BAD_ARGUMENT above the engine's `request_window` (64 KiB by default). Fewer bytes come if there
/// is no room for so many beside those that toolb_exchange_pause holds back.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_want_bytes(
    consumer: *mut toolb_consumer,
    exchange: u64,
    least: usize,
    timeout_ms: u32,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.want(exchange, least, timeout_ms)) })
}

impl Inner {
    fn want(&mut self, number: u64, least: usize, timeout_ms: u32) -> Result<(), toolb_status> {
        let (id, _) = self.open(number)?;
        let wanted = self.consumer.want(id, least, wait(timeout_ms));
        wanted.map_err(|error| match error {
            // Known here before the event tells of it.
            WantError::Disconnected => toolb_status::TOOLB_GONE,
            WantError::TooMuch => fail(toolb_status::TOOLB_BAD_ARGUMENT, error),
            WantError::Unknown => toolb_status::TOOLB_NOT_FOUND,
            WantError::AlreadyEnded | WantError::NotAStream | WantError::Unsupported => {
                fail(toolb_status::TOOLB_BAD_STATE, error)
            }
        })
    }
}
