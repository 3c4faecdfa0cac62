//! Raw connections: services and what their callbacks may do with streams.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::time::Duration;

use toolb_core::engine::{
    Callbacks, CloseReason, Context, Listen, Service, ServiceOptions, StreamError, StreamId,
    Streams, Target, Wait,
};

use crate::context;
use crate::guard::{bytes, ends_whole, entry, object, place, put_text, sized, text, text_bytes};
use crate::{toolb_engine, toolb_slice, toolb_status};

/// The name of a raw connection: never 0 and never used again, so that a function that is given the
/// name of one that has ended answers TOOLB_GONE. It means something on the loop that owns the
/// connection only: elsewhere the answer is TOOLB_WRONG_LOOP.
pub type toolb_stream = u64;

/// A time that never ends.
pub const TOOLB_NO_TIMEOUT: u32 = u32::MAX;

/// Why a stream ended. A program must expect numbers it does not know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum toolb_reason {
    /// toolb_stream_close; everything queued has been handed to the system.
    TOOLB_REASON_CLOSED = 1,
    /// The peer ended its side; everything queued has been handed to the system.
    TOOLB_REASON_PEER_CLOSED = 2,
    /// The connection broke.
    TOOLB_REASON_RESET = 3,
    /// toolb_stream_abort.
    TOOLB_REASON_ABORTED = 4,
    /// It was idle for too long and the service has no on_timeout.
    TOOLB_REASON_TIMEOUT = 5,
    /// The peer took nothing of what was queued for too long.
    TOOLB_REASON_SEND_TIMEOUT = 6,
    /// The engine ends.
    TOOLB_REASON_STOPPING = 7,
}

/// Callbacks about one stream.
pub type toolb_stream_callback =
    Option<unsafe extern "C" fn(state: *mut c_void, stream: toolb_stream)>;

/// Callbacks about a loop.
pub type toolb_loop_callback = Option<unsafe extern "C" fn(state: *mut c_void, index: u32)>;

/// A service of raw connections: callbacks, each of which may be NULL, and limits. Set `struct_size`
/// first, and to zero what you do not need.
///
/// Each loop has a `state` of its own. All callbacks of a loop run on its thread, one after the other
/// and to their end, so what only they use needs no locks; and as long as one runs, everything else
/// on its loop waits (one that takes more than `callback_budget_ms` is counted as an overrun). They must not block,
/// throw or longjmp. A function of this library that they call never calls back: what follows from it
/// comes after the callback has returned.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct toolb_service {
    /// `sizeof(toolb_service)`.
    pub struct_size: usize,
    /// Called first, once on each loop, before it accepts a connection: returns the loop's `state`.
    /// NULL: the state of every loop is `user_data`.
    pub on_init: Option<unsafe extern "C" fn(user_data: *mut c_void, index: u32) -> *mut c_void>,
    /// A client has connected.
    pub on_accept: toolb_stream_callback,
    /// There are unread bytes: see toolb_stream_want for when this is called.
    pub on_receive: toolb_stream_callback,
    /// Nothing has happened for as long as toolb_stream_want or `default_timeout_ms` allows; what is
    /// not closed here waits again. NULL: the stream is closed.
    pub on_timeout: toolb_stream_callback,
    /// The stream has ended: called exactly once for each one that was accepted or connected. Its
    /// name becomes invalid when this returns; what came and was not read can still be read here.
    pub on_close: Option<
        unsafe extern "C" fn(state: *mut c_void, stream: toolb_stream, reason: toolb_reason),
    >,
    /// An outgoing connection is there.
    pub on_connect: toolb_stream_callback,
    /// An outgoing connection came to nothing; its name becomes invalid when this returns, and no
    /// on_close follows. `error` is a number of errno.h: ETIMEDOUT after the time given, ECANCELED
    /// if it was closed or the engine ends.
    pub on_connect_fail:
        Option<unsafe extern "C" fn(state: *mut c_void, stream: toolb_stream, error: c_int)>,
    /// The loop ends: the last call, once on each loop, after every stream has been closed. The place
    /// to free `state`.
    pub on_exit: toolb_loop_callback,
    /// Milliseconds that a stream may be idle when its callbacks do not say; 0: 60000,
    /// TOOLB_NO_TIMEOUT: for ever.
    pub default_timeout_ms: u32,
    /// Bytes that are read ahead of the callbacks, and so the most that toolb_stream_peek shows;
    /// 0: 262144.
    pub receive_limit: u32,
    /// Bytes that toolb_stream_send may have queued; 0: 262144.
    pub send_limit: u32,
    /// Not 0: a stream goes on when the peer ends its side. on_receive then tells of that end (see
    /// toolb_stream_ended), and the service closes when it has sent its last. 0: the stream closes by
    /// itself once on_receive has told of everything that came.
    pub half_open: u32,
    /// After toolb_stream_send answered TOOLB_FULL: half of the room is free again.
    pub on_writable: toolb_stream_callback,
    /// The engine has stopped accepting and ends when all connections have, at the latest after its
    /// grace time: a service whose streams do not end by themselves says goodbye here.
    pub on_drain: toolb_loop_callback,
}

ends_whole!(toolb_service, on_drain: *const ());

/// Adds a service for raw connections that come to a host name or address and a port (0: a free one
/// is picked, see toolb_engine_address: services come after what toolb_engine_listen added, as
/// "tcp://127.0.0.1:9000"). With `host` NULL it has no address and lives on connections that it makes.
/// The address is bound when the engine starts. `service` and `host` are copied; `user_data` is
/// borrowed until the engine is freed and goes to on_init on all loop threads at once.
///
/// # Safety
/// `engine` is a live engine; `host` is NUL-terminated; `service` points to a toolb_service whose
/// callbacks are functions of those types. Each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_service(
    engine: *mut toolb_engine,
    host: *const c_char,
    port: u16,
    service: *const toolb_service,
    user_data: *mut c_void,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (engine, service) = unsafe { (object(engine)?, CService::read(service, user_data)?) };
        let listen = match host.is_null() {
            true => None,
            false => Some(Listen::Tcp {
                // SAFETY: the caller's promise.
                host: unsafe { text(host)? }.to_owned(),
                port,
            }),
        };
        engine.add_service(listen, service)
    })
}

/// Adds a service for raw connections that come to a Unix stream socket, whose file gets the
/// permissions `mode` (0: those that the umask leaves). Otherwise as toolb_engine_service.
///
/// # Safety
/// As for toolb_engine_service; `path` is NUL-terminated or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_service_unix(
    engine: *mut toolb_engine,
    path: *const c_char,
    mode: u32,
    service: *const toolb_service,
    user_data: *mut c_void,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (engine, path, service) = unsafe {
            (
                object(engine)?,
                text_bytes(path)?,
                CService::read(service, user_data)?,
            )
        };
        let listen = engine.unix(path, mode)?;
        engine.add_service(Some(listen), service)
    })
}

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
        let data = unsafe { bytes(data.cast(), len)? };
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
                Err(_) => return Err(toolb_status::TOOLB_BAD_ARGUMENT),
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

/// A service as C describes it.
pub(crate) struct CService {
    service: toolb_service,
    user_data: *mut c_void,
}

impl CService {
    /// Copies the description.
    ///
    /// # Safety
    /// `service` is NULL or points to a toolb_service.
    unsafe fn read(
        service: *const toolb_service,
        user_data: *mut c_void,
    ) -> Result<Self, toolb_status> {
        let first_version = offset_of!(toolb_service, on_drain) + size_of::<toolb_loop_callback>();
        // SAFETY: the caller's promise; zeros are no callbacks and defaults.
        let service = unsafe { sized(service, first_version)? };
        let service = service.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        Ok(Self { service, user_data })
    }

    pub(crate) fn options(&self) -> ServiceOptions {
        let default = ServiceOptions::default();
        let size = |value: u32, default| match value {
            0 => default,
            _ => value as usize,
        };
        ServiceOptions {
            default_timeout: match self.service.default_timeout_ms {
                0 => default.default_timeout,
                TOOLB_NO_TIMEOUT => None,
                value => Some(ms(value)),
            },
            receive_limit: size(self.service.receive_limit, default.receive_limit),
            send_limit: size(self.service.send_limit, default.send_limit),
            half_open: self.service.half_open != 0,
        }
    }
}

// SAFETY: the documentation of `toolb_engine_service` makes the data's owner promise that it may be
// used from all loop threads.
unsafe impl Send for CService {}
// SAFETY: as above.
unsafe impl Sync for CService {}

impl Service for CService {
    fn init(&self, context: &mut Context<'_>) -> Box<dyn Callbacks> {
        let index = u32::from(context.loop_index());
        let state = match self.service.on_init {
            // SAFETY: a function of that type, by the promise of whoever added the service.
            Some(init) => context::enter(context, || unsafe { init(self.user_data, index) }),
            None => self.user_data,
        };
        Box::new(CCallbacks {
            service: self.service,
            state,
        })
    }
}

/// The service on one loop.
struct CCallbacks {
    service: toolb_service,
    state: *mut c_void,
}

impl CCallbacks {
    fn tell(&self, callback: toolb_stream_callback, context: &mut Context<'_>, stream: StreamId) {
        if let Some(callback) = callback {
            // SAFETY: a function of that type, by the promise of whoever added the service.
            context::enter(context, || unsafe { callback(self.state, stream.raw()) });
        }
    }

    fn tell_loop(&self, callback: toolb_loop_callback, context: &mut Context<'_>) {
        let index = u32::from(context.loop_index());
        if let Some(callback) = callback {
            // SAFETY: a function of that type, by the promise of whoever added the service.
            context::enter(context, || unsafe { callback(self.state, index) });
        }
    }
}

impl Callbacks for CCallbacks {
    fn accept(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.tell(self.service.on_accept, context, stream);
    }

    fn receive(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.tell(self.service.on_receive, context, stream);
    }

    fn timeout(&mut self, context: &mut Context<'_>, stream: StreamId) {
        match self.service.on_timeout {
            Some(_) => self.tell(self.service.on_timeout, context, stream),
            None => {
                let _ = context.streams().time_out(stream);
            }
        }
    }

    fn writable(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.tell(self.service.on_writable, context, stream);
    }

    fn close(&mut self, context: &mut Context<'_>, stream: StreamId, reason: CloseReason) {
        if let Some(callback) = self.service.on_close {
            let (stream, reason) = (stream.raw(), reason.into());
            // SAFETY: a function of that type, by the promise of whoever added the service.
            context::enter(context, || unsafe { callback(self.state, stream, reason) });
        }
    }

    fn connect(&mut self, context: &mut Context<'_>, stream: StreamId) {
        self.tell(self.service.on_connect, context, stream);
    }

    fn connect_fail(&mut self, context: &mut Context<'_>, stream: StreamId, error: io::Error) {
        if let Some(callback) = self.service.on_connect_fail {
            // The engine makes the error of the system's number.
            let number = error.raw_os_error().unwrap_or(0);
            let stream = stream.raw();
            // SAFETY: a function of that type, by the promise of whoever added the service.
            context::enter(context, || unsafe { callback(self.state, stream, number) });
        }
    }

    fn drain(&mut self, context: &mut Context<'_>) {
        self.tell_loop(self.service.on_drain, context);
    }

    fn exit(&mut self, context: &mut Context<'_>) {
        self.tell_loop(self.service.on_exit, context);
    }
}

impl From<CloseReason> for toolb_reason {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Aborted => Self::TOOLB_REASON_ABORTED,
            CloseReason::Closed => Self::TOOLB_REASON_CLOSED,
            CloseReason::PeerClosed => Self::TOOLB_REASON_PEER_CLOSED,
            CloseReason::Reset => Self::TOOLB_REASON_RESET,
            CloseReason::SendTimeout => Self::TOOLB_REASON_SEND_TIMEOUT,
            CloseReason::Stopping => Self::TOOLB_REASON_STOPPING,
            CloseReason::Timeout => Self::TOOLB_REASON_TIMEOUT,
        }
    }
}

impl From<StreamError> for toolb_status {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Full => Self::TOOLB_FULL,
            StreamError::Gone => Self::TOOLB_GONE,
            StreamError::TooMuch => Self::TOOLB_BAD_ARGUMENT,
            StreamError::UnknownService => Self::TOOLB_BAD_STATE,
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

fn wait(timeout_ms: u32) -> Wait {
    match timeout_ms {
        0 => Wait::Default,
        TOOLB_NO_TIMEOUT => Wait::Forever,
        _ => Wait::For(ms(timeout_ms)),
    }
}

fn ms(value: u32) -> Duration {
    Duration::from_millis(u64::from(value))
}

/// For connecting, if none is given.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
