//! Settings of an engine.

use std::ffi::c_char;
use std::mem::offset_of;
use std::time::Duration;

use toolb_core::config::EngineConfig;

use crate::guard::{ends_whole, sized, text};
use crate::last_error::fail;
use crate::toolb_status;

/// For options that say so: none of it.
pub const TOOLB_OFF: u32 = u32::MAX;

/// Settings of an engine; 0 leaves a setting at its default. Set `struct_size` first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct toolb_options {
    /// `sizeof(toolb_options)`.
    pub struct_size: usize,
    /// I/O threads; 1 by default.
    pub loops: u32,
    /// Connections the kernel may hold before they are accepted; 2048 by default.
    pub backlog: u32,
    /// Bytes of a request's body, at most (413); 100 MiB by default.
    pub limit_request_body: u64,
    /// Milliseconds that a kept-alive connection may be idle; 5000 by default. TOOLB_OFF closes
    /// every connection after one response.
    pub timeout_keep_alive_ms: u32,
    /// Milliseconds for what was accepted to end after a stop; 30000 by default. TOOLB_OFF: none.
    pub timeout_graceful_shutdown_ms: u32,
    /// Bytes of a request line, at most (414); 8 KiB by default.
    pub limit_request_line: u32,
    /// Bytes of a request head, at most (431); 16 KiB by default.
    pub limit_request_head: u32,
    /// Fields of a request, at most (431); 100 by default.
    pub limit_request_fields: u32,
    /// Milliseconds for a request head to arrive (408); 30000 by default.
    pub timeout_request_header_ms: u32,
    /// Milliseconds without a byte of a request's body (408); 30000 by default.
    pub timeout_request_body_ms: u32,
    /// Bytes a second that a request's body must bring on average (408); 1024 by default. TOOLB_OFF:
    /// no minimum.
    pub request_body_min_rate: u32,
    /// Milliseconds from the end of a request head to the head of its response (504); 60000 by
    /// default. TOOLB_OFF: no limit.
    pub timeout_response_ms: u32,
    /// Milliseconds without a byte that a client takes while there is something to send; 30000 by
    /// default.
    pub timeout_send_idle_ms: u32,
    /// Requests that may wait for a consumer (503); 1024 by default. TOOLB_OFF: none waits.
    pub queue_size: u32,
    /// Milliseconds that a request may wait for a consumer (503); 10000 by default.
    pub queue_timeout_ms: u32,
    /// Requests with consumers, or waiting for one, at most (503); no limit by default.
    pub limit_concurrency: u32,
    /// Bytes of a request's body that may be on their way to a consumer; 64 KiB by default.
    pub request_window: u32,
    /// Bytes of a response that may wait for its client, from a consumer or a token; 128 KiB by
    /// default.
    pub response_window: u32,
    /// 1 writes each request to standard output.
    pub access_log: u32,
    /// 1 leaves the Date field out of responses.
    pub no_date: u32,
    /// 1 keeps each loop on a CPU of its own, as far as there are enough.
    pub pin_loops: u32,
    /// Milliseconds that a callback of a stream service may run before it is counted as an overrun;
    /// 100 by default.
    pub callback_budget_ms: u32,
    /// Raw connections that are with consumers, or wait for one, at most; more are reset. 512 by
    /// default.
    pub limit_streams: u32,
    /// Milliseconds without an event of a raw connection with a consumer that did not say how long to
    /// wait (TOOLB_EVENT_STREAM_TIMEOUT); 60000 by default. TOOLB_OFF: no limit.
    pub timeout_stream_idle_ms: u32,
    /// The Server field of responses; NULL for "toolb", "" for none. Copied.
    pub server: *const c_char,
}

ends_whole!(toolb_options, server: *const c_char);

/// The settings that `options` stands for.
///
/// # Safety
/// `options` is NULL or points to a toolb_options of the size it says.
pub(crate) unsafe fn config(options: *const toolb_options) -> Result<EngineConfig, toolb_status> {
    let first_version = offset_of!(toolb_options, limit_request_line);
    let mut config = EngineConfig::default();
    // SAFETY: the caller's promise.
    let Some(options) = (unsafe { sized(options, first_version)? }) else {
        return Ok(config);
    };
    apply(&options, &mut config);
    if !options.server.is_null() {
        // SAFETY: the caller's promise: it is a text.
        let server = unsafe { text(options.server)? };
        config.server_header = (!server.is_empty()).then(|| server.to_owned());
    }
    match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, error)),
    }
}

fn apply(options: &toolb_options, config: &mut EngineConfig) {
    let (limits, timeouts) = (&mut config.limits, &mut config.timeouts);
    config.loops = (options.loops != 0).then_some(options.loops as usize);
    if options.limit_request_body != 0 {
        limits.body = options.limit_request_body;
    }
    config.limit_concurrency =
        (options.limit_concurrency != 0).then_some(options.limit_concurrency as usize);
    config.access_log = options.access_log != 0;
    config.date_header = options.no_date == 0;
    config.pin_loops = options.pin_loops != 0;

    let numbers = [
        (options.backlog, &mut config.backlog),
        (options.request_window, &mut config.request_window),
        (options.response_window, &mut config.response_window),
    ];
    for (value, setting) in numbers {
        if value != 0 {
            *setting = value;
        }
    }
    let sizes = [
        (options.limit_request_line, &mut limits.request_line),
        (options.limit_request_head, &mut limits.head),
        (options.limit_request_fields, &mut limits.fields),
        (options.limit_streams, &mut config.limit_streams),
    ];
    for (value, setting) in sizes {
        if value != 0 {
            *setting = value as usize;
        }
    }
    let times = [
        (options.timeout_keep_alive_ms, &mut timeouts.keep_alive),
        (
            options.timeout_graceful_shutdown_ms,
            &mut timeouts.graceful_shutdown,
        ),
        (
            options.timeout_request_header_ms,
            &mut timeouts.request_header,
        ),
        (options.timeout_request_body_ms, &mut timeouts.request_body),
        (options.timeout_response_ms, &mut timeouts.response),
        (options.timeout_send_idle_ms, &mut timeouts.send_idle),
        (options.timeout_stream_idle_ms, &mut timeouts.stream_idle),
        (options.queue_timeout_ms, &mut config.queue_timeout),
        (options.callback_budget_ms, &mut config.callback_budget),
    ];
    for (value, setting) in times {
        match value {
            0 => {}
            // Where it may not be off, the check of the settings says so.
            TOOLB_OFF => *setting = Duration::ZERO,
            ms => *setting = Duration::from_millis(u64::from(ms)),
        }
    }
    match options.request_body_min_rate {
        0 => {}
        TOOLB_OFF => timeouts.request_body_min_rate = 0,
        rate => timeouts.request_body_min_rate = u64::from(rate),
    }
    match options.queue_size {
        0 => {}
        TOOLB_OFF => config.queue_size = 0,
        size => config.queue_size = size as usize,
    }
}
