//! What an engine has counted.

use std::mem::offset_of;

use toolb_core::engine::Snapshot;

use crate::engine::with_engine;
use crate::guard::{ends_whole, fill};
use crate::{toolb_engine, toolb_status};

/// What an engine has counted since its start, summed over its loops. Set `struct_size` before each
/// call; fields are only ever added at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct toolb_stats {
    /// `sizeof(toolb_stats)`.
    pub struct_size: usize,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub connections_active: u64,
    /// Requests whose head was read.
    pub requests: u64,
    /// Responses with a status of 200 to 299.
    pub responses_2xx: u64,
    /// Responses with a status of 300 to 399.
    pub responses_3xx: u64,
    /// Responses with a status of 400 to 499.
    pub responses_4xx: u64,
    /// Responses with a status of 500 to 599.
    pub responses_5xx: u64,
    /// Requests answered 504.
    pub timed_out: u64,
    /// Requests answered 503 as the queue was full or the limit reached.
    pub overloaded: u64,
    /// Requests answered 503 as they waited too long for a consumer.
    pub queue_timeouts: u64,
    /// Requests answered 502 as their consumer died.
    pub worker_died: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes sent to clients.
    pub bytes_out: u64,
    /// Raw connections accepted for services.
    pub streams_accepted: u64,
    /// Raw connections that services have made.
    pub streams_connected: u64,
    /// Raw connections open now.
    pub streams_active: u64,
    /// Callbacks of stream services that ran for too long.
    pub stream_overruns: u64,
}

ends_whole!(toolb_stats, stream_overruns: u64);

/// Fills `out` with what the engine has counted; zeros before it runs, the last numbers after its
/// end. Any thread.
///
/// # Safety
/// `engine` is a live engine or NULL; `out` points to a toolb_stats of the size it says, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_stats(
    engine: *const toolb_engine,
    out: *mut toolb_stats,
) -> toolb_status {
    let tell = |engine: &toolb_engine| {
        let counted = engine.counted();
        let first_version = offset_of!(toolb_stats, bytes_out) + size_of::<u64>();
        // SAFETY: the caller's promise.
        unsafe { fill(out, first_version, &toolb_stats::from(&counted)) }
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, tell) }
}

impl From<&Snapshot> for toolb_stats {
    fn from(counted: &Snapshot) -> Self {
        Self {
            struct_size: size_of::<Self>(),
            accepted: counted.accepted,
            // Loops count on while they are summed.
            connections_active: counted.accepted.saturating_sub(counted.closed),
            requests: counted.requests,
            responses_2xx: counted.responses_2xx,
            responses_3xx: counted.responses_3xx,
            responses_4xx: counted.responses_4xx,
            responses_5xx: counted.responses_5xx,
            timed_out: counted.timed_out,
            overloaded: counted.overloaded,
            queue_timeouts: counted.queue_timeouts,
            worker_died: counted.worker_died,
            bytes_in: counted.bytes_in,
            bytes_out: counted.bytes_out,
            streams_accepted: counted.streams_accepted,
            streams_connected: counted.streams_connected,
            streams_active: (counted.streams_accepted + counted.streams_connected)
                .saturating_sub(counted.streams_closed),
            stream_overruns: counted.stream_overruns,
        }
    }
}
