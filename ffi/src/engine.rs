//! Engines.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use toolb_core::config::EngineConfig;
use toolb_core::engine::{ControlEvent, Engine, EventFd, Handler, Listen, Routes};

use crate::exchange::CHandler;
use crate::guard::{entry, object, place, put_text, text};
use crate::stream::CService;
use crate::{toolb_handler, toolb_status};

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
    /// Bytes of a request's body, at most; 100 MiB by default.
    pub limit_request_body: u64,
    /// Milliseconds that a kept-alive connection may be idle; 5000 by default.
    pub timeout_keep_alive_ms: u32,
    /// Milliseconds for what was accepted to end after a stop; 30000 by default.
    pub timeout_graceful_shutdown_ms: u32,
}

/// An engine. Made by toolb_engine_new, freed by toolb_engine_free. Configured by one thread before
/// it runs; toolb_engine_stop and the functions that ask may be called by any thread.
pub struct toolb_engine {
    state: Mutex<State>,
    stop: EventFd,
    stopping: AtomicBool,
}

struct State {
    phase: Phase,
    config: EngineConfig,
    listeners: Vec<Listen>,
    services: Vec<(Option<Listen>, Arc<CService>)>,
    routes: Routes,
    engine: Option<Engine>,
    error: String,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    New,
    Running,
    Ended,
}

impl toolb_engine {
    /// Keeps a service until the engine starts.
    pub(crate) fn add_service(
        &self,
        listen: Option<Listen>,
        service: CService,
    ) -> Result<(), toolb_status> {
        let mut state = self.state();
        state.configurable()?;
        state.services.push((listen, Arc::new(service)));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left half done is still only configuration.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn configurable(&mut self) -> Result<(), toolb_status> {
        match self.phase {
            Phase::New => Ok(()),
            _ => Err(self.fail(toolb_status::TOOLB_BAD_STATE, "the engine has been started")),
        }
    }

    fn fail(&mut self, status: toolb_status, text: impl ToString) -> toolb_status {
        self.error = text.to_string();
        status
    }
}

/// Makes an engine with the given settings (NULL: all defaults) and stores it in `out`, which the
/// caller then owns.
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
        let mut config = EngineConfig::default();
        if !options.is_null() {
            // SAFETY: the caller's promise; only the size is read before it is known.
            let size = unsafe { (&raw const (*options).struct_size).read() };
            let first_version = offset_of!(toolb_options, timeout_graceful_shutdown_ms) + 4;
            if size < first_version {
                return Err(toolb_status::TOOLB_BAD_STRUCT_SIZE);
            }
            // SAFETY: the struct has at least the fields of the first version.
            apply(unsafe { &*options }, &mut config);
        }
        config
            .validate()
            .map_err(|_| toolb_status::TOOLB_BAD_ARGUMENT)?;
        let stop = EventFd::new().map_err(|_| toolb_status::TOOLB_CANNOT_START)?;
        *out = Box::into_raw(Box::new(toolb_engine {
            state: Mutex::new(State {
                phase: Phase::New,
                config,
                listeners: Vec::new(),
                services: Vec::new(),
                routes: Routes::default(),
                engine: None,
                error: String::new(),
            }),
            stop,
            stopping: AtomicBool::new(false),
        }));
        Ok(())
    })
}

fn apply(options: &toolb_options, config: &mut EngineConfig) {
    let set = |value: u32| (value != 0).then_some(value);
    config.loops = set(options.loops).map(|loops| loops as usize);
    config.backlog = set(options.backlog).unwrap_or(config.backlog);
    if options.limit_request_body != 0 {
        config.limits.body = options.limit_request_body;
    }
    let ms = |value: u32| Duration::from_millis(u64::from(value));
    if let Some(value) = set(options.timeout_keep_alive_ms) {
        config.timeouts.keep_alive = ms(value);
    }
    if let Some(value) = set(options.timeout_graceful_shutdown_ms) {
        config.timeouts.graceful_shutdown = ms(value);
    }
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
    entry(|| {
        // SAFETY: the caller's promise.
        let (engine, host) = unsafe { (object(engine)?, text(host)?) };
        let mut state = engine.state();
        state.configurable()?;
        state.listeners.push(Listen::Tcp {
            host: host.to_owned(),
            port,
        });
        Ok(())
    })
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
    entry(|| {
        // SAFETY: the caller's promise.
        let (engine, method, pattern) = unsafe { (object(engine)?, text(method)?, text(pattern)?) };
        let call = handler.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        let mut state = engine.state();
        state.configurable()?;
        let handler: Arc<dyn Handler> = Arc::new(CHandler { call, user_data });
        match state.routes.inline.insert(method, pattern, handler) {
            Ok(()) => Ok(()),
            Err(error) => Err(state.fail(toolb_status::TOOLB_BAD_ARGUMENT, error)),
        }
    })
}

/// Binds the addresses and starts the loops; returns when it accepts connections. The caller then
/// calls toolb_engine_run, or goes on and calls toolb_engine_stop later.
///
/// # Safety
/// `engine` is a live engine or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_start(engine: *mut toolb_engine) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| start(unsafe { object(engine)? }))
}

fn start(handle: &toolb_engine) -> Result<(), toolb_status> {
    let mut state = handle.state();
    state.configurable()?;
    if state.listeners.is_empty() && state.services.is_empty() {
        let text =
            "there is no address to listen on and no service; call toolb_engine_listen first";
        return Err(state.fail(toolb_status::TOOLB_BAD_STATE, text));
    }
    let routes = std::mem::take(&mut state.routes);
    state.phase = Phase::Ended;
    let mut engine = match Engine::bind(state.config.clone(), routes, &state.listeners) {
        Ok(engine) => engine,
        Err(error) => return Err(state.fail(toolb_status::TOOLB_CANNOT_START, error)),
    };
    for (listen, service) in std::mem::take(&mut state.services) {
        let options = service.options();
        if let Err(error) = engine.add_service(listen.as_ref(), service, options) {
            return Err(state.fail(toolb_status::TOOLB_CANNOT_START, error));
        }
    }
    if let Err(error) = engine.start() {
        return Err(state.fail(toolb_status::TOOLB_CANNOT_START, error));
    }
    state.engine = Some(engine);
    state.phase = Phase::Running;
    Ok(())
}

/// Starts the engine unless it is started, and serves until toolb_engine_stop is called; then lets
/// what was accepted end, at most for the grace time.
///
/// # Safety
/// `engine` is a live engine or NULL, not to be freed before this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_run(engine: *mut toolb_engine) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let handle = unsafe { object(engine)? };
        let phase = handle.state().phase;
        match phase {
            Phase::New => start(handle)?,
            Phase::Running => {}
            Phase::Ended => return Err(not_running(handle)),
        }
        while !handle.stopping.load(Ordering::SeqCst) {
            // A signal or an error of poll ends the wait early: then look again.
            let _ = handle.stop.wait(None);
        }
        end(handle)
    })
}

fn not_running(handle: &toolb_engine) -> toolb_status {
    let text = "the engine has ended; make a new one";
    handle.state().fail(toolb_status::TOOLB_BAD_STATE, text)
}

/// Drains and ends a running engine.
fn end(handle: &toolb_engine) -> Result<(), toolb_status> {
    let (engine, grace) = {
        let mut state = handle.state();
        let grace = state.config.timeouts.graceful_shutdown;
        state.phase = Phase::Ended;
        (state.engine.take(), grace)
    };
    let Some(mut engine) = engine else {
        return Err(not_running(handle));
    };
    engine.drain();
    let until = Instant::now() + grace;
    loop {
        engine.control_events().drain();
        while let Some(event) = engine.next_control_event() {
            if event == ControlEvent::Idle {
                engine.stop();
                return Ok(());
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            engine.stop();
            return Ok(());
        }
        let _ = engine.control_events().wait(Some(left));
    }
}

/// Makes toolb_engine_run return. Any thread, any number of times, and from signal handlers.
///
/// # Safety
/// `engine` is a live engine or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_stop(engine: *mut toolb_engine) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let handle = unsafe { object(engine)? };
        // An atomic store and a write: both are safe in a signal handler.
        handle.stopping.store(true, Ordering::SeqCst);
        let _ = handle.stop.signal();
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
    entry(|| {
        // SAFETY: the caller's promise.
        let state = unsafe { object(engine)? }.state();
        let running = state.engine.as_ref().ok_or(toolb_status::TOOLB_BAD_STATE)?;
        let addresses = running.addresses();
        let address = addresses.get(index).ok_or(toolb_status::TOOLB_NOT_FOUND)?;
        // SAFETY: the caller's promise.
        unsafe { put_text(address, buffer, capacity, needed) }
    })
}

/// Copies the text of the engine's last error, one line that says what to do, to `buffer`; empty if
/// there was none. `needed`, if not NULL, gets the size it takes.
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
    entry(|| {
        // SAFETY: the caller's promise.
        let state = unsafe { object(engine)? }.state();
        // SAFETY: the caller's promise.
        unsafe { put_text(&state.error, buffer, capacity, needed) }
    })
}

/// Ends the engine at once if it still runs, and frees it. NULL is allowed. Not while
/// toolb_engine_run runs, and not from a handler.
///
/// # Safety
/// `engine` is NULL or was made by toolb_engine_new and not freed before; nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_engine_free(engine: *mut toolb_engine) {
    if engine.is_null() {
        return;
    }
    entry(|| {
        // SAFETY: the caller's promise: it came from `Box::into_raw` and is freed once.
        drop(unsafe { Box::from_raw(engine) });
        Ok(())
    });
}
