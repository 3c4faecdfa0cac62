//! Engines: the entry points.

mod object;

use std::ffi::{c_char, c_void};
use std::io;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use toolb_core::engine::{Engine, Handler, Listen, Routes, Snapshot};
use toolb_core::server::{Embedded, GateOptions, Stop};

use crate::context;
use crate::guard::{entry, object, place, put_text, quiet, text, text_bytes};
use crate::handler::CHandler;
use crate::last_error::{fail, last_text};
use crate::options::{self, toolb_options};
use crate::{toolb_handler, toolb_route, toolb_status};

pub use object::toolb_engine;
pub(crate) use object::with_engine;
use object::{Phase, State};

/// Makes an engine with the given settings (NULL: all defaults) and stores it in `out`, which the
/// caller then owns; NULL if it fails. TOOLB_BAD_ARGUMENT for a setting that cannot be meant:
/// toolb_engine_error, of NULL, and toolb_last_error say which.
///
/// # Safety
/// `options` is NULL or points to a toolb_options; `out` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_new(
    options: *const toolb_options,
    out: *mut *mut toolb_engine,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let out = unsafe { place(out)? };
        *out = std::ptr::null_mut();
        // SAFETY: the caller's promise.
        let config = unsafe { options::config(options)? };
        let stop = Arc::new(Stop::new().map_err(cannot_start)?);
        *out = Box::into_raw(Box::new(toolb_engine {
            started_in: AtomicU32::new(0),
            state: Mutex::new(State {
                phase: Phase::New,
                config,
                listeners: Vec::new(),
                services: Vec::new(),
                streams: Vec::new(),
                routes: Routes::default(),
                gate: GateOptions::new(None),
                engine: None,
                counted: Snapshot::default(),
                error: String::new(),
            }),
            stop,
        }));
        Ok(())
    })
}

/// Adds an address to listen on: a host name or address, and a port (0: a free one is picked, see
/// toolb_engine_address). The address is bound when the engine starts. The text is copied.
///
/// # Safety
/// `engine` is a live engine; `host` is NUL-terminated. Each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_listen(
    engine: *mut toolb_engine,
    host: *const c_char,
    port: u16,
) -> toolb_status {
    let listen = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let host = unsafe { text(host)? }.to_owned();
        engine.listen(Listen::Tcp { host, port })
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, listen) }
}

/// Adds a Unix stream socket to listen on. `mode` is that of the socket file, such as 0660; 0 leaves
/// it to the umask. A socket that a dead server left behind is replaced; the file is removed when
/// the engine ends. The text is copied.
///
/// # Safety
/// `engine` is a live engine; `path` is NUL-terminated. Each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_listen_unix(
    engine: *mut toolb_engine,
    path: *const c_char,
    mode: u32,
) -> toolb_status {
    let listen = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let path = unsafe { text_bytes(path)? };
        engine.listen(engine.unix(path, mode)?)
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, listen) }
}

/// Adds a route: requests with this method ("GET", or "*" for all) and a path that fits the pattern
/// ("/", "/user/{id}", "/files/{*rest}") are answered by `handler`, which gets `user_data`. A HEAD
/// is answered by the handler of GET. The texts are copied; `user_data` is borrowed until the engine
/// is freed and used from all loop threads at once.
///
/// # Safety
/// `engine` is a live engine; the texts are NUL-terminated; `handler` is a function of that type.
/// Each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_route(
    engine: *mut toolb_engine,
    method: *const c_char,
    pattern: *const c_char,
    handler: toolb_handler,
    user_data: *mut c_void,
) -> toolb_status {
    let route = toolb_route::plain(handler, user_data);
    // SAFETY: the caller's promise; the route is whole.
    unsafe { toolb_engine_add_route(engine, method, pattern, &route) }
}

/// Adds a route as toolb_engine_route does, with all that a route can have. The struct is copied.
///
/// # Safety
/// `engine` is a live engine; the texts are NUL-terminated; `route` points to a toolb_route of the
/// size it says. Each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_add_route(
    engine: *mut toolb_engine,
    method: *const c_char,
    pattern: *const c_char,
    route: *const toolb_route,
) -> toolb_status {
    let add = |engine: &toolb_engine| {
        // SAFETY: the caller's promise.
        let (method, pattern) = unsafe { (text(method)?, text(pattern)?) };
        // SAFETY: the caller's promise.
        let handler: Arc<dyn Handler> = Arc::new(unsafe { CHandler::read(route)? });
        let mut state = engine.state();
        state.configurable()?;
        match state.routes.inline.insert(method, pattern, handler) {
            Ok(()) => Ok(()),
            Err(error) => Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, error)),
        }
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, add) }
}

/// Binds the addresses and starts the loops; returns when it accepts connections. The caller then
/// calls toolb_engine_run, or goes on and calls toolb_engine_stop later. From then on the engine
/// belongs to this process: fork() and daemon() come before.
///
/// # Safety
/// `engine` is a live engine or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_start(engine: *mut toolb_engine) -> toolb_status {
    let start = |handle: &toolb_engine| start(handle);
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, start) }
}

/// There is no descriptor for its stop.
fn cannot_start(error: io::Error) -> toolb_status {
    let text = format!("cannot start: {error}; raise the limit on open files (ulimit -n)");
    fail(toolb_status::TOOLB_CANNOT_START, text)
}

fn start(handle: &toolb_engine) -> Result<(), toolb_status> {
    let (config, routes, listeners, services, streams, gate) = {
        let mut state = handle.state();
        state.configurable()?;
        state.check_addresses()?;
        handle.stop.part().map_err(cannot_start)?;
        state.phase = Phase::Starting;
        handle.started_in.store(process::id(), Ordering::SeqCst);
        (
            state.config.clone(),
            std::mem::take(&mut state.routes),
            std::mem::take(&mut state.listeners),
            std::mem::take(&mut state.services),
            std::mem::take(&mut state.streams),
            state.gate.clone(),
        )
    };
    let grace = config.timeouts.graceful_shutdown;
    let prepare = |engine: &mut Engine| {
        engine.let_go_by(|context, drop| context::enter(context, drop));
        for (listen, service) in services {
            let options = service.options();
            engine.add_service(listen.as_ref(), service, options)?;
        }
        streams
            .iter()
            .try_for_each(|listen| engine.add_stream_pool(listen))
    };
    // Callbacks run before this returns: nothing is locked that they may ask for.
    let started = Embedded::start_prepared(config, routes, &listeners, &gate, prepare);
    let mut state = handle.state();
    match started {
        Ok(engine) => {
            engine.obey(&handle.stop, grace);
            state.engine = Some(Arc::new(engine));
            state.phase = Phase::Running;
            Ok(())
        }
        Err(error) => {
            state.phase = Phase::Ended;
            handle.started_in.store(0, Ordering::SeqCst);
            Err(fail(toolb_status::TOOLB_CANNOT_START, error))
        }
    }
}

/// Starts the engine unless it is started, and serves until toolb_engine_stop is called; then lets
/// what was accepted end, at most for the grace time. TOOLB_BAD_STATE from a callback, and in a
/// process that was forked after the start.
///
/// # Safety
/// `engine` is a live engine or NULL, not to be freed before this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_run(engine: *mut toolb_engine) -> toolb_status {
    let run = |handle: &toolb_engine| {
        if context::is_inside() {
            let text = "a callback cannot wait for the end of its own engine";
            return Err(fail(toolb_status::TOOLB_BAD_STATE, text));
        }
        let phase = handle.state().phase;
        match phase {
            Phase::New => start(handle)?,
            Phase::Running => {}
            Phase::Starting | Phase::Ending | Phase::Ended => return Err(not_running()),
        }
        handle.stop.wait();
        end(handle)
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, run) }
}

fn not_running() -> toolb_status {
    let text = "the engine runs elsewhere or has ended; make a new one";
    fail(toolb_status::TOOLB_BAD_STATE, text)
}

/// Drains and ends a running engine, which can be asked until it has ended.
fn end(handle: &toolb_engine) -> Result<(), toolb_status> {
    let (engine, grace) = {
        let mut state = handle.state();
        let engine = match state.phase {
            Phase::Running => state.engine.clone(),
            _ => None,
        };
        if engine.is_some() {
            state.phase = Phase::Ending;
        }
        (engine, state.config.timeouts.graceful_shutdown)
    };
    let Some(engine) = engine else {
        return Err(not_running());
    };
    engine.end(grace);
    let mut state = handle.state();
    state.counted = engine.engine().stats();
    state.engine = None;
    state.phase = Phase::Ended;
    handle.started_in.store(0, Ordering::SeqCst);
    Ok(())
}

/// Begins the end of a running engine: nobody is accepted any more, what was accepted is finished,
/// at most for the grace time, and consumers are told to finish. Then toolb_engine_run returns. An
/// engine that was only started comes to its end in the same way; toolb_engine_free cuts off what is
/// left of it. Asked before the start, it holds from the start on. Any thread, any number of times,
/// and from signal handlers. A process that was forked after the start cannot stop the engine of its
/// parent: TOOLB_BAD_STATE.
///
/// # Safety
/// `engine` is a live engine or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_stop(engine: *mut toolb_engine) -> toolb_status {
    // In a signal handler nothing can be said.
    quiet(|| {
        // SAFETY: the caller's promise.
        let engine = unsafe { object(engine)? };
        if engine.foreign_process().is_some() {
            return Err(toolb_status::TOOLB_BAD_STATE);
        }
        engine.stop.ask();
        Ok(())
    })
}

/// Copies the address number `index` that a running engine listens on, such as
/// "http://127.0.0.1:8080", to `buffer`. `needed`, if not NULL, gets the size it takes.
///
/// # Safety
/// `engine` is a live engine or NULL; `buffer` has room for `capacity` bytes; `needed` may be
/// written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_address(
    engine: *const toolb_engine,
    index: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> toolb_status {
    let copy = |engine: &toolb_engine| {
        let running = engine.running()?;
        let addresses = running.engine().addresses();
        let address = addresses.get(index).ok_or(toolb_status::TOOLB_NOT_FOUND)?;
        // SAFETY: the caller's promise.
        unsafe { put_text(address, buffer, capacity, needed) }
    };
    // SAFETY: the caller's promise.
    unsafe { with_engine(engine, copy) }
}

/// Copies what the last call for this engine that failed was about, one line that says what to do, to
/// `buffer`; empty if none has. With `engine` NULL, as after toolb_engine_new that failed, it is what
/// toolb_last_error tells. `needed`, if not NULL, gets the size it takes.
///
/// # Safety
/// As for toolb_engine_address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_error(
    engine: *const toolb_engine,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> toolb_status {
    quiet(|| {
        // SAFETY: the caller's promise.
        let text = unsafe { engine.as_ref() }.map_or_else(last_text, toolb_engine::error);
        // SAFETY: the caller's promise.
        unsafe { put_text(&text, buffer, capacity, needed) }
    })
}

/// Ends the engine at once if it still runs, and frees it. NULL is allowed. Not while
/// toolb_engine_run runs. TOOLB_BAD_STATE, and nothing is freed, for an engine that was started, from
/// a callback on a loop. It does nothing in a process that was forked after the start: that one's
/// copy goes when it ends, and the engine, with its files, is left to the process that started it.
///
/// # Safety
/// `engine` is NULL or was made by toolb_engine_new and not freed before; nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_free(engine: *mut toolb_engine) -> toolb_status {
    entry(|| {
        if engine.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let handle = unsafe { object(engine)? };
        // Its threads, sockets and files are those of another process, which go on. What this one
        // has of them goes with it.
        if handle.foreign_process().is_some() {
            return Ok(());
        }
        // A loop cannot wait for its own end.
        if context::is_inside() && handle.state().phase != Phase::New {
            let text = "a callback cannot free its own engine, as it would wait for itself";
            return Err(fail(toolb_status::TOOLB_BAD_STATE, text));
        }
        // Callbacks may use the handle until the last loop has ended.
        if let Ok(running) = handle.running() {
            running.end(Duration::ZERO);
        }
        // SAFETY: the caller's promise: it came from `Box::into_raw` and is freed once.
        drop(unsafe { Box::from_raw(engine) });
        Ok(())
    })
}
