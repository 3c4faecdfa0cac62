//! Services of raw connections, as C describes them, and the calls of their callbacks.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::mem::offset_of;

use toolb_core::engine::{
    Callbacks, CloseReason, Context, Listen, Service, ServiceOptions, StreamId,
};

use crate::context;
use crate::engine::with_engine;
use crate::guard::{ends_whole, sized, text, text_bytes};
use crate::stream::{TOOLB_NO_TIMEOUT, ms, toolb_stream};
use crate::{toolb_engine, toolb_status};

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
/// on its loop waits (one that takes more than `callback_budget_ms` is counted as an overrun). They
/// must not block, throw or longjmp. A function of this library that they call never calls back: what
/// follows from it comes after the callback has returned.
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
    let add = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let service = unsafe { CService::read(service, user_data)? };
        let listen = match host.is_null() {
            true => None,
            false => Some(Listen::Tcp {
                // SAFETY: the caller's promise.
                host: unsafe { text(host)? }.to_owned(),
                port,
            }),
        };
        engine.add_service(listen, service)
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, add) }
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
    let add = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let (path, service) = unsafe { (text_bytes(path)?, CService::read(service, user_data)?) };
        let listen = engine.unix(path, mode)?;
        engine.add_service(Some(listen), service)
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, add) }
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
