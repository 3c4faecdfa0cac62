//! What callbacks may do with raw connections.

use std::ffi::{c_char, c_int, c_void};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::time::Duration;

use toolb_core::engine::{StreamError, StreamId, Streams, Target, Wait};

use crate::context;
use crate::guard::{bytes, entry, place, put_text, text};
use crate::last_error::fail;
use crate::{toolb_slice, toolb_status};

/// The name of a raw connection: never 0 and never used again, so that a function that is given the
/// name of one that has ended answers TOOLB_GONE. It means something on the loop that owns the
/// connection only: elsewhere the answer is TOOLB_WRONG_LOOP.
pub type toolb_stream = u64;

/// A time that never ends.
pub const TOOLB_NO_TIMEOUT: u32 = u32::MAX;

/// Arms one next event of a stream: on_receive when at least one byte is unread (be it an old one:
/// then in the next turn of the loop), on_close, or on_timeout when neither has come after
/// `timeout_ms` (0: the service's default; TOOLB_NO_TIMEOUT: never). The last call counts.
///
/// Without it on_receive comes when new bytes come, under the default timeout; bytes that a callback
/// left unread are then not told of again by themselves. Callbacks of the stream's loop only.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_stream_want(stream: toolb_stream, timeout_ms: u32) -> toolb_status {
    act(|streams| streams.want(StreamId::from_raw(stream), wait(timeout_ms)))
}

/// As toolb_stream_want, but on_receive comes when at least `least` bytes are unread, or the peer has
/// ended its side: what a protocol with lengths wants. TOOLB_BAD_ARGUMENT above the service's
/// receive_limit. Callbacks of the stream's loop only.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_stream_want_bytes(
    stream: toolb_stream,
    least: usize,
    timeout_ms: u32,
) -> toolb_status {
    act(|streams| streams.want_bytes(StreamId::from_raw(stream), least, wait(timeout_ms)))
}

/// Moves unread bytes, at most `capacity`, to `buffer` and stores in `got` how many; 0 if there are
/// none now. Never blocks. Callbacks of the stream's loop only.
///
/// # Safety
/// `buffer` has room for `capacity` bytes; `got` may be written. Each may be NULL, which is answered
/// by TOOLB_NULL_ARGUMENT (`buffer` unless `capacity` is 0).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_recv(
    stream: toolb_stream,
    buffer: *mut c_void,
    capacity: usize,
    got: *mut usize,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let got = unsafe { place(got)? };
        *got = 0;
        if buffer.is_null() && capacity > 0 {
            return Err(toolb_status::TOOLB_NULL_ARGUMENT);
        }
        with(|streams| {
            let stream = StreamId::from_raw(stream);
            let unread = streams.peek(stream)?;
            let count = unread.len().min(capacity);
            if count > 0 {
                // SAFETY: the buffer has room for `capacity` bytes; it may be uninitialised, and
                // should it overlap what it is read from, this is the caller's memory all the same.
                unsafe { std::ptr::copy(unread.as_ptr(), buffer.cast(), count) };
            }
            streams.consume(stream, count)?;
            *got = count;
            Ok(())
        })
    })
}

/// Stores in `out` the unread bytes, without copying them. They stay where they are until the
/// callback that runs returns, whatever it does meanwhile. Callbacks of the stream's loop only.
///
/// # Safety
/// `out` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_peek(
    stream: toolb_stream,
    out: *mut toolb_slice,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { place(out)? };
        *out = crate::exchange::slice(&[]);
        with(|streams| {
            *out = crate::exchange::slice(streams.peek(StreamId::from_raw(stream))?);
            Ok(())
        })
    })
}

/// Takes `count` unread bytes as read. TOOLB_BAD_ARGUMENT if there are fewer. Callbacks of the
/// stream's loop only.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_stream_consume(stream: toolb_stream, count: usize) -> toolb_status {
    act(|streams| streams.consume(StreamId::from_raw(stream), count))
}

/// Queues all of `data`, which is copied, or nothing; what is queued goes out at the end of the
/// loop's turn. TOOLB_FULL: there is no room now, on_writable will tell when half of it is free.
/// TOOLB_BAD_ARGUMENT: `len` is more than the service's send_limit. TOOLB_GONE: the stream is ending.
/// Callbacks of the stream's loop only.
///
/// # Safety
/// `data` points to `len` bytes; NULL is answered by TOOLB_NULL_ARGUMENT unless `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_send(
    stream: toolb_stream,
    data: *const c_void,
    len: usize,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let data = unsafe { bytes(data, len)? };
        with(|streams| streams.send(StreamId::from_raw(stream), data))
    })
}

/// Stores in `out` how many queued bytes have not been handed to the system. Callbacks of the
/// stream's loop only.
///
/// # Safety
/// `out` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_unsent(
    stream: toolb_stream,
    out: *mut usize,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { place(out)? };
        with(|streams| {
            *out = streams.unsent(StreamId::from_raw(stream))?;
            Ok(())
        })
    })
}

/// Stores in `out` 1 if nothing more comes from the peer, so that what toolb_stream_peek shows is all,
/// or else 0. Callbacks of the stream's loop only.
///
/// # Safety
/// `out` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_ended(stream: toolb_stream, out: *mut c_int) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { place(out)? };
        with(|streams| {
            *out = c_int::from(streams.ended(StreamId::from_raw(stream))?);
            Ok(())
        })
    })
}

/// Ends a stream once everything queued has been sent; on_receive comes no more, on_close does, after
/// the running callback. Closing again is allowed. Callbacks of the stream's loop only.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_stream_close(stream: toolb_stream) -> toolb_status {
    act(|streams| streams.close(StreamId::from_raw(stream)))
}

/// Ends a stream at once by a reset; what is queued is lost. on_close comes after the running
/// callback. Also while it is closing. Callbacks of the stream's loop only.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_stream_abort(stream: toolb_stream) -> toolb_status {
    act(|streams| streams.abort(StreamId::from_raw(stream)))
}

/// Begins to connect to a numeric address, such as "127.0.0.1" or "::1", and a port, or to a Unix
/// socket ("unix:/path", whatever the port), and stores the stream in `out`. Either on_connect or
/// on_connect_fail follows, once, after the running callback; toolb_stream_send queues meanwhile.
///
/// The stream belongs to the service whose callback runs; in timers and request handlers to the
/// engine's only service (TOOLB_BAD_STATE if it has several). `timeout_ms` is the time for connecting
/// (0: 30000, TOOLB_NO_TIMEOUT: the system's). `user_data` is borrowed: see toolb_stream_user.
/// TOOLB_BAD_ARGUMENT: no such address. TOOLB_GONE: the engine ends. Callbacks on a loop only.
///
/// # Safety
/// `host` is NUL-terminated; `out` may be written. Each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_connect(
    host: *const c_char,
    port: u16,
    timeout_ms: u32,
    user_data: *mut c_void,
    out: *mut toolb_stream,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (host, out) = unsafe { (text(host)?, place(out)?) };
        *out = 0;
        let target = match host.strip_prefix("unix:") {
            Some(path) => Target::Unix(PathBuf::from(path)),
            None => match host.parse::<IpAddr>() {
                Ok(address) => Target::Tcp(SocketAddr::new(address, port)),
                Err(_) => {
                    let text = format!(
                        "{host:?} is no numeric address, such as 127.0.0.1 or ::1, nor \"unix:\" \
                         and a path: names are not looked up on a loop"
                    );
                    return Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, text));
                }
            },
        };
        let timeout = match timeout_ms {
            0 => CONNECT_TIMEOUT,
            TOOLB_NO_TIMEOUT => Duration::MAX,
            _ => ms(timeout_ms),
        };
        with(|streams| {
            let tag = user_data.expose_provenance();
            *out = streams.connect(&target, timeout, tag)?.raw();
            Ok(())
        })
    })
}

/// Keeps a pointer with a stream; it is borrowed. Callbacks of the stream's loop only.
///
/// # Safety
/// The pointer is only stored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_set_user(
    stream: toolb_stream,
    user_data: *mut c_void,
) -> toolb_status {
    let tag = user_data.expose_provenance();
    act(|streams| streams.set_tag(StreamId::from_raw(stream), tag))
}

/// The pointer that was kept with a stream; NULL if there is none, if the stream has gone, and
/// outside of callbacks of its loop.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_stream_user(stream: toolb_stream) -> *mut c_void {
    let mut tag = 0;
    let status = act(|streams| {
        tag = streams.tag(StreamId::from_raw(stream))?;
        Ok(())
    });
    match status {
        toolb_status::TOOLB_OK => std::ptr::with_exposed_provenance_mut(tag),
        _ => null_mut(),
    }
}

/// Copies the peer's address, such as `127.0.0.1:50000` or `[::1]:50000`, or "unix:" on a Unix
/// socket, to `buffer`. `needed`, if not NULL, gets the size it takes; 64 is enough. Callbacks of the
/// stream's loop only.
///
/// # Safety
/// `buffer` has room for `capacity` bytes; `needed` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_stream_peer(
    stream: toolb_stream,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> toolb_status {
    entry(|| {
        let mut peer = None;
        with(|streams| {
            peer = streams.peer(StreamId::from_raw(stream))?;
            Ok(())
        })?;
        let shown = peer.map_or_else(|| "unix:".to_owned(), |peer| peer.to_string());
        // SAFETY: the caller's promise.
        unsafe { put_text(&shown, buffer, capacity, needed) }
    })
}

impl From<StreamError> for toolb_status {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Full => Self::TOOLB_FULL,
            StreamError::Gone => Self::TOOLB_GONE,
            StreamError::TooMuch => {
                let text = "more bytes than are unread, or than the service's receive_limit or \
                            send_limit allows";
                fail(Self::TOOLB_BAD_ARGUMENT, text)
            }
            StreamError::UnknownService => {
                let text = "the engine has no service that the stream could belong to, or several: \
                            connect in a callback of its service";
                fail(Self::TOOLB_BAD_STATE, text)
            }
            StreamError::WrongLoop => Self::TOOLB_WRONG_LOOP,
        }
    }
}

/// Runs an operation on the streams of the loop whose callback this thread is in.
fn act(action: impl FnOnce(&mut Streams) -> Result<(), StreamError>) -> toolb_status {
    entry(|| with(action))
}

fn with(action: impl FnOnce(&mut Streams) -> Result<(), StreamError>) -> Result<(), toolb_status> {
    context::with(|context| action(context.streams()))?.map_err(toolb_status::from)
}

pub(crate) fn wait(timeout_ms: u32) -> Wait {
    match timeout_ms {
        0 => Wait::Default,
        TOOLB_NO_TIMEOUT => Wait::Forever,
        _ => Wait::For(ms(timeout_ms)),
    }
}

pub(crate) fn ms(value: u32) -> Duration {
    Duration::from_millis(u64::from(value))
}

/// For connecting, if none is given.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
