//! Floor 6: the whole as a user meets it.
//!
//! [`run`] is `toolb run`: an engine in this process, workers as processes of their own, and a
//! control thread, the calling one, that watches over them until a signal ends it all. [`serve()`] and
//! [`work()`] are the two halves of it in processes of their own, and [`Embedded`] is an engine in a
//! program of one's own.
#![forbid(unsafe_code)]

mod backoff;
mod door;
mod embedded;
mod event;
mod fleet;
mod gate;
mod greet;
mod home;
mod host;
mod serve;
mod supervisor;
mod work;

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use crate::config::EngineConfig;
use crate::engine::{AddressOptions, Engine, Listen, Routes};
use crate::sys::{process, shortage, signal};

pub use embedded::{Embedded, Stop};
pub use event::{Event, Outcome};
pub use gate::GateOptions;
pub use serve::{ServeOptions, serve};
pub use work::{WorkOptions, work};

use fleet::Patience;
use home::{Here, Home};
use supervisor::{Setup, Supervisor};

/// The options that say where HTTP comes.
const ADDRESS: AddressOptions = AddressOptions {
    host: "--host",
    port: "--port",
    uds: "--uds",
};

/// Two signals this close are one wish: `timeout` and others signal a process and then its group.
const ECHO: Duration = Duration::from_millis(100);

/// So much of a grace time is left when those who have not finished are told to: they cancel what they
/// work on, and then the application ends.
fn last_part(grace: Duration) -> Duration {
    (grace / 2).min(LAST_PART)
}

/// No more than this is needed.
const LAST_PART: Duration = Duration::from_secs(5);

/// What [`run`] runs.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The engine's settings; its graceful shutdown and stuck grace bind the workers too.
    pub engine: EngineConfig,
    /// Where to listen.
    pub listeners: Vec<Listen>,
    /// How many workers.
    pub workers: usize,
    /// The program of a worker.
    pub command: WorkerCommand,
    /// How long a worker may take to attach to the bus.
    pub hello_timeout: Duration,
    /// How long the application in a worker may take to start.
    pub start_timeout: Duration,
}

impl RunOptions {
    /// The defaults for all that is not given: one worker, 60 s to attach, 10 min to start.
    pub fn new(engine: EngineConfig, listeners: Vec<Listen>, command: WorkerCommand) -> Self {
        Self {
            engine,
            listeners,
            workers: 1,
            command,
            hello_timeout: Duration::from_secs(60),
            start_timeout: Duration::from_secs(600),
        }
    }
}

/// How to start a worker. It finds its end of the control socket in `TOOLB_BUS`, as `fd:N`.
#[derive(Clone, Debug, Default)]
pub struct WorkerCommand {
    /// The program, looked up in `PATH` if it has no slash.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What to try if the program cannot be run: the end of a line for a person.
    pub if_not_run: Option<String>,
    /// What to try if it ends before it is ready, likewise.
    pub if_ended: Option<String>,
}

/// Runs a server until a signal ends it, and tells `tell` what happens meanwhile.
///
/// `SIGINT`, `SIGTERM` and (unless it is ignored) `SIGHUP` end it gracefully: no more connections,
/// what was accepted is answered, the workers finish. A second signal cuts that short. The signals
/// are blocked in the calling thread until `run` returns; no other thread should take them.
pub fn run(options: RunOptions, tell: impl FnMut(Event)) -> Outcome {
    outcome_of(tell, |tell| try_run(options, tell))
}

fn try_run(options: RunOptions, tell: &mut dyn FnMut(Event)) -> Result<Outcome, String> {
    let (signals, open_files) = prepare_process()?;
    let patience = Patience {
        hello: options.hello_timeout,
        start: options.start_timeout,
        graceful: options.engine.timeouts.graceful_shutdown,
        stuck: options.engine.timeouts.stuck_grace,
        ..Patience::default()
    };
    let routes = Routes {
        pool: true,
        ..Routes::default()
    };
    let engine = Engine::bind(options.engine, routes, &options.listeners)
        .map_err(|error| error.naming(&ADDRESS))?;
    let setup = Setup {
        command: options.command,
        workers: options.workers,
        patience,
        open_files,
    };
    let home = Home::Here(Box::new(Here::new(engine, options.workers)));
    let mut supervisor = Supervisor::new(home, signals, setup, tell).map_err(system)?;
    supervisor.run().map_err(system)
}

/// What comes of serving. If it cannot begin, that is told like everything else.
fn outcome_of(
    mut tell: impl FnMut(Event),
    serve: impl FnOnce(&mut dyn FnMut(Event)) -> Result<Outcome, String>,
) -> Outcome {
    serve(&mut tell).unwrap_or_else(|why| {
        tell(Event::StartFailed(why));
        Outcome::StartFailed
    })
}

/// What a program does before its first thread: threads inherit the mask of signals. Returns these,
/// and what the soft limit of open files was: connections need more, workers keep what the user has
/// set for them.
fn prepare_process() -> Result<(signal::Signals, Option<u64>), String> {
    process::fill_standard_descriptors().map_err(system)?;
    // Before the others are blocked, so that it still is when they are let through again.
    signal::survive_large_files();
    let mut wanted = vec![signal::SIGINT, signal::SIGTERM];
    if !signal::is_ignored(signal::SIGHUP) {
        wanted.push(signal::SIGHUP);
    }
    let signals = signal::Signals::block(&wanted).map_err(system)?;
    signal::keep_exit_statuses();
    Ok((signals, process::raise_open_files().ok()))
}

fn system(error: io::Error) -> String {
    shortage::explain(&error)
}
