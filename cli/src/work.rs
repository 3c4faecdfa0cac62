//! `toolb work`.
#![forbid(unsafe_code)]

use std::env;
use std::time::Duration;

use toolb_core::config::default_bus_path;
use toolb_core::log;
use toolb_core::server::{self, WorkOptions};

use crate::WorkerCommand;
use crate::args::Work;
use crate::workers::{command, worker_count};

/// Runs workers until a signal ends it; `Err` is what is wrong with the usage.
pub(crate) fn work(args: &Work, worker: &WorkerCommand) -> Result<i32, String> {
    let workers = worker_count(args.processes.workers, env::var_os("WEB_CONCURRENCY"))?;
    let bus = args.bus.bus.clone().unwrap_or_else(default_bus_path);
    log::set_level(args.log.log_level);
    let options = WorkOptions {
        bus: bus.into_os_string(),
        workers,
        command: command(&args.app, &args.log, worker),
        start_timeout: Duration::from_secs(600),
        graceful_shutdown: args.grace.timeout_graceful_shutdown,
        stuck_grace: args.health.timeout_worker_healthcheck,
    };
    let outcome = server::work(options, |event| event.log());
    Ok(outcome.exit_code())
}
