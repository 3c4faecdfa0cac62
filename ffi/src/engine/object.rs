//! What an engine is to C: its configuration, then what runs, and the process that it runs in.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use toolb_core::config::EngineConfig;
use toolb_core::consumer::{Consumer, ConsumerOptions};
use toolb_core::engine::{Listen, Routes, Snapshot};
use toolb_core::server::{Embedded, GateOptions, Stop};

use crate::guard::{entry, object};
use crate::last_error::{fail, last_text};
use crate::service::CService;
use crate::toolb_status;

/// An engine. Made by toolb_engine_new, freed by toolb_engine_free. Configured by one thread before
/// it runs; toolb_engine_stop and the functions that ask may be called by any thread.
///
/// An engine lives in the process that started it, as its threads do: fork, or call daemon(), before
/// toolb_engine_start, not after it. In a process that was forked later all functions answer
/// TOOLB_BAD_STATE and leave the engine of the other process alone.
pub struct toolb_engine {
    /// The process that its threads are in; 0 while it has none.
    pub(super) started_in: AtomicU32,
    pub(super) state: Mutex<State>,
    pub(super) stop: Arc<Stop>,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) config: EngineConfig,
    pub(super) listeners: Vec<Listen>,
    pub(super) services: Vec<(Option<Listen>, Arc<CService>)>,
    /// Where raw connections for consumers come.
    pub(super) streams: Vec<Listen>,
    pub(super) routes: Routes,
    /// How consumers come.
    pub(super) gate: GateOptions,
    /// Until it has ended. It is used outside of the lock: what asks it may be a callback on one of
    /// its loops, and what starts or ends it waits for those.
    pub(super) engine: Option<Arc<Embedded>>,
    /// What the engine had counted when it ended.
    pub(super) counted: Snapshot,
    pub(super) error: String,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Phase {
    New,
    Starting,
    Running,
    Ending,
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

    /// A Unix socket to listen on, if that can be meant.
    pub(crate) fn unix(&self, path: &[u8], mode: u32) -> Result<Listen, toolb_status> {
        if path.is_empty() || mode > 0o7777 {
            let text = "a Unix socket has a path, and a mode such as 0660";
            return Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, text));
        }
        Ok(Listen::Uds {
            path: OsStr::from_bytes(path).into(),
            permissions: (mode != 0).then_some(mode),
        })
    }

    /// Refuses to go on in a process that was forked off that of the start. There the threads are
    /// not, and a lock may be held by one that is not either: this comes first.
    fn check_process(&self) -> Result<(), toolb_status> {
        match self.foreign_process() {
            None => Ok(()),
            Some(process) => Err(fail(toolb_status::TOOLB_BAD_STATE, foreign(process))),
        }
    }

    /// The text of its last error.
    pub(super) fn error(&self) -> String {
        match self.foreign_process() {
            // What all that was called here has failed for.
            Some(process) => foreign(process),
            None => self.state().error.clone(),
        }
    }

    /// The process in which the engine was started, if that is not this one. An atomic load and a
    /// system call: both are safe in a signal handler.
    pub(super) fn foreign_process(&self) -> Option<u32> {
        let started_in = self.started_in.load(Ordering::SeqCst);
        (started_in != 0 && started_in != process::id()).then_some(started_in)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left half done is still only configuration.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl toolb_engine {
    pub(super) fn listen(&self, listen: Listen) -> Result<(), toolb_status> {
        let mut state = self.state();
        state.configurable()?;
        state.listeners.push(listen);
        Ok(())
    }

    /// Sends what no route matches to consumers, who attach at this path, if there is one.
    pub(crate) fn open_pool(&self, bus: Option<PathBuf>) -> Result<(), toolb_status> {
        let mut state = self.state();
        state.configurable()?;
        if bus.as_ref().is_some_and(|path| !path.is_absolute()) {
            let text =
                "the path of a bus begins with a slash: consumers look for it from elsewhere";
            return Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, text));
        }
        state.routes.pool = true;
        state.gate.path = bus;
        Ok(())
    }

    /// Passes the raw connections of an address on to consumers.
    pub(crate) fn pass_streams(&self, listen: Listen) -> Result<(), toolb_status> {
        let mut state = self.state();
        state.configurable()?;
        state.streams.push(listen);
        Ok(())
    }

    /// Makes the consumer of this process.
    pub(crate) fn attach(&self, options: &ConsumerOptions) -> Result<Consumer, toolb_status> {
        let phase = self.state().phase;
        let Some(engine) = self.running().ok().filter(|_| phase == Phase::Running) else {
            let text = "the engine does not run: a consumer of this process comes after its start";
            return Err(fail(toolb_status::TOOLB_BAD_STATE, text));
        };
        engine
            .attach(options)
            .map_err(|error| fail(toolb_status::TOOLB_CANNOT_ATTACH, error))
    }

    /// Where consumers of a running engine attach.
    pub(crate) fn bus(&self) -> Result<PathBuf, toolb_status> {
        let running = self.running()?;
        let bus = running.bus().ok_or(toolb_status::TOOLB_NOT_FOUND)?;
        Ok(bus.to_owned())
    }

    /// The counters of the engine, or those that it had when it ended.
    pub(crate) fn counted(&self) -> Snapshot {
        let state = self.state();
        match &state.engine {
            Some(engine) => engine.engine().stats(),
            None => state.counted.clone(),
        }
    }

    /// The engine from its start until it has ended.
    pub(super) fn running(&self) -> Result<Arc<Embedded>, toolb_status> {
        let engine = self.state().engine.clone();
        engine.ok_or_else(|| {
            let text = "the engine does not run: it has not been started, or has ended";
            fail(toolb_status::TOOLB_BAD_STATE, text)
        })
    }
}

impl State {
    pub(super) fn configurable(&self) -> Result<(), toolb_status> {
        match self.phase {
            Phase::New => Ok(()),
            _ => Err(fail(
                toolb_status::TOOLB_BAD_STATE,
                "the engine has been started",
            )),
        }
    }

    /// Whether there is anything to serve, and somebody to serve it.
    pub(super) fn check_addresses(&self) -> Result<(), toolb_status> {
        let text = if !self.streams.is_empty() && !self.routes.pool {
            "nobody would serve its streams: call toolb_engine_pool, where consumers attach"
        } else if self.listeners.is_empty() && self.services.is_empty() && self.streams.is_empty() {
            "there is no address to listen on and no service; call toolb_engine_listen first"
        } else {
            return Ok(());
        };
        Err(fail(toolb_status::TOOLB_BAD_STATE, text))
    }
}

/// The line for whoever uses an engine that another process has started.
fn foreign(process: u32) -> String {
    format!(
        "the engine was started in process {process}, which is not this one, {}: start it after the \
         fork",
        process::id(),
    )
}

/// Runs an entry point of an engine, in the process that it belongs to. What it fails with is what
/// toolb_engine_error tells of.
///
/// # Safety
/// `engine` is a live engine or NULL.
pub(crate) unsafe fn with_engine(
    engine: *const toolb_engine,
    body: impl FnOnce(&toolb_engine) -> Result<(), toolb_status>,
) -> toolb_status {
    let status = entry(|| {
        // SAFETY: the caller's promise.
        let engine = unsafe { object(engine)? };
        engine.check_process()?;
        body(engine)
    });
    // SAFETY: the caller's promise.
    let engine = unsafe { engine.as_ref() };
    let engine = engine.filter(|engine| engine.foreign_process().is_none());
    if let (Some(engine), true) = (engine, status != toolb_status::TOOLB_OK) {
        engine.state().error = last_text();
    }
    status
}
