//! Consumers of an engine in this process: those that attach at a path, and the one that lives here.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use toolb_core::config::default_bus_path;
use toolb_core::engine::Listen;

use crate::consumer::consumer_options;
use crate::engine::with_engine;
use crate::guard::{place, put_text, store, text, text_bytes};
use crate::{toolb_consumer, toolb_consumer_options, toolb_engine, toolb_status};

/// Has the engine send requests that no route matches to consumers, in place of answering 404. They
/// wait while there is no consumer, as `toolb serve` has it. Before the engine starts.
///
/// `bus_path` is where a socket is bound when it starts, for programs of the same user that call
/// toolb_consumer_attach, and for `toolb work`. NULL is the usual place,
/// `$XDG_RUNTIME_DIR/toolb/bus`; an empty text binds none: then there is only the consumer that
/// toolb_engine_consumer makes. An engine that cannot bind it, because another one has, does not
/// start: TOOLB_CANNOT_START. The text is copied.
///
/// # Safety
/// `engine` is a live engine or NULL; `bus_path` is NUL-terminated or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_pool(
    engine: *mut toolb_engine,
    bus_path: *const c_char,
) -> toolb_status {
    let open = |engine: &toolb_engine| {
        let path = match bus_path.is_null() {
            true => Some(default_bus_path()),
            false => {
                // SAFETY: the caller's promise.
                let bytes = unsafe { text_bytes(bus_path)? };
                let path = bytes.strip_prefix(b"unix:").unwrap_or(bytes);
                (!path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
            }
        };
        engine.open_pool(path)
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, open) }
}

/// Passes raw connections on to consumers: who connects to `host` and `port` (0: a free one is picked,
/// see toolb_engine_address) is told of by TOOLB_EVENT_STREAM_OPEN to one that takes streams, and
/// waits while there is none. Each takes one of that consumer's slots as long as it lasts. One that
/// finds no room for `queue_timeout_ms` is reset, and so is one beyond `limit_streams`. Any number of
/// addresses, before the engine starts, which needs toolb_engine_pool, too. The text is copied.
///
/// # Safety
/// `engine` is a live engine; `host` is NUL-terminated. Each may be NULL, which is answered by
/// TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_stream_pool(
    engine: *mut toolb_engine,
    host: *const c_char,
    port: u16,
) -> toolb_status {
    let pass = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let host = unsafe { text(host)? }.to_owned();
        engine.pass_streams(Listen::Tcp { host, port })
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, pass) }
}

/// The same at a Unix socket; `path` and `mode` are as for toolb_engine_listen_unix.
///
/// # Safety
/// `engine` is a live engine; `path` is NUL-terminated. Each may be NULL, which is answered by
/// TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_stream_pool_unix(
    engine: *mut toolb_engine,
    path: *const c_char,
    mode: u32,
) -> toolb_status {
    let pass = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let path = unsafe { text_bytes(path)? };
        engine.pass_streams(engine.unix(path, mode)?)
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, pass) }
}

/// Copies the path at which consumers of a running engine attach to `buffer`; TOOLB_NOT_FOUND if
/// there is none. `needed`, if not NULL, gets the size it takes. Any thread.
///
/// # Safety
/// `engine` is a live engine or NULL; `buffer` has room for `capacity` bytes; `needed` may be
/// written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_bus(
    engine: *const toolb_engine,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> toolb_status {
    let copy = |engine: &toolb_engine| {
        let path = engine.bus()?;
        // SAFETY: the caller's promise.
        unsafe { put_text(&path.to_string_lossy(), buffer, capacity, needed) }
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, copy) }
}

/// Makes a consumer of a running engine in the same process and stores it in `out`, which the caller
/// then owns: the engine hands it requests as it does to programs that attach, without another
/// process. `options` may be NULL. The engine needs toolb_engine_pool first; TOOLB_BAD_STATE if it
/// does not run. There can be one at a time: TOOLB_CANNOT_ATTACH for a second one, as `toolb run`
/// starts workers as processes of their own. Any thread but those of the engine.
///
/// It has to be used on another thread than the one in toolb_engine_run. When the engine is stopped
/// it gets TOOLB_EVENT_DRAIN, and toolb_consumer_run returns; when the engine has been freed, a
/// hang-up. Either may be freed first.
///
/// # Safety
/// `engine` is a live engine; `options` points to a toolb_consumer_options or is NULL; `out` may be
/// written. Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT but for `options`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_consumer(
    engine: *mut toolb_engine,
    options: *const toolb_consumer_options,
    out: *mut *mut toolb_consumer,
) -> toolb_status {
    // SAFETY: the caller's promise.
    unsafe { store(out, std::ptr::null_mut()) };
    let attach = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let (out, options) = unsafe { (place(out)?, consumer_options(options)?) };
        *out = toolb_consumer::new(engine.attach(&options)?)?;
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, attach) }
}
