//! `toolb work`: workers for an engine that is elsewhere, and may come and go.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::time::Duration;

use super::event::{Event, Outcome};
use super::fleet::Patience;
use super::home::Home;
use super::supervisor::{Setup, Supervisor};
use super::{WorkerCommand, outcome_of, prepare_process, system};

/// What [`work`] runs.
#[derive(Clone, Debug)]
pub struct WorkOptions {
    /// The address of the engine's bus; workers find it in `TOOLB_BUS`.
    pub bus: OsString,
    /// How many workers.
    pub workers: usize,
    /// The program of a worker.
    pub command: WorkerCommand,
    /// How long the application in a worker may take to start.
    pub start_timeout: Duration,
    /// How long workers may take to finish when asked to stop.
    pub graceful_shutdown: Duration,
    /// How long a worker may stand still before it is ended. 0: nobody looks.
    pub stuck_grace: Duration,
}

/// Runs workers until a signal ends it, and tells `tell` what happens meanwhile. Signals as for
/// [`run`](super::run).
///
/// The workers attach to the engine themselves, wait for it when it is not there, and tell here,
/// over the socket that `TOOLB_SUPERVISOR` names as `fd:N`, whether their application has started.
pub fn work(options: WorkOptions, tell: impl FnMut(Event)) -> Outcome {
    outcome_of(tell, |tell| try_work(options, tell))
}

fn try_work(options: WorkOptions, tell: &mut dyn FnMut(Event)) -> Result<Outcome, String> {
    let (signals, open_files) = prepare_process()?;
    let setup = Setup {
        command: options.command,
        workers: options.workers,
        patience: Patience {
            hello: options.start_timeout,
            start: options.start_timeout,
            graceful: options.graceful_shutdown,
            stuck: options.stuck_grace,
            asks: true,
            ..Patience::default()
        },
        open_files,
    };
    let home = Home::Elsewhere(options.bus);
    let mut supervisor = Supervisor::new(home, signals, setup, tell).map_err(system)?;
    supervisor.run().map_err(system)
}
