//! `toolb run`.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, IsTerminal};
use std::process;
use std::thread;

use clap::ArgMatches;
use toolb_core::config::EngineConfig;
use toolb_core::log::{self, Level};
use toolb_core::server::{self, Event, RunOptions};

use crate::WorkerCommand;
use crate::args::Run;
use crate::engine::{engine_config, listener};
use crate::workers::{command, worker_count};

/// Serves until a signal ends it; `Err` is what is wrong with the usage.
pub(crate) fn run(args: &Run, matches: &ArgMatches, worker: &WorkerCommand) -> Result<i32, String> {
    let options = options(args, matches, worker)?;
    log::set_level(args.engine.log.log_level);
    let outcome = server::run(options, |event| tell(&event, &args.app.target));
    Ok(outcome.exit_code())
}

fn options(args: &Run, matches: &ArgMatches, worker: &WorkerCommand) -> Result<RunOptions, String> {
    let count = worker_count(args.processes.workers, env::var_os("WEB_CONCURRENCY"))?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let loops = args.threads.io_threads;
    let loops = loops.unwrap_or_else(|| EngineConfig::default_loops(count, cores));
    let mut engine = engine_config(&args.engine, loops, io::stdout().is_terminal());
    engine.timeouts.stuck_grace = args.health.timeout_worker_healthcheck;
    engine.stuck_if_busy = true;
    engine.consumers = count;
    engine.validate().map_err(|error| format!("--{error}"))?;
    let listeners = vec![listener(&args.engine, matches)?];
    let command = command(&args.app, &args.engine.log, worker);
    let mut options = RunOptions::new(engine, listeners, command);
    options.workers = count;
    Ok(options)
}

fn tell(event: &Event, target: &str) {
    match event {
        Event::Serving {
            addresses,
            workers,
            loops,
        } if log::is_enabled(Level::Info) => {
            let mut text = String::new();
            for address in addresses {
                text += &banner(target, address, *workers, *loops, process::id());
            }
            log::say(&text);
        }
        event => event.log(),
    }
}

fn banner(target: &str, address: &str, workers: usize, loops: usize, pid: u32) -> String {
    let plural = |count| if count == 1 { "" } else { "s" };
    format!(
        "toolb {} serving {target} on {address} ({workers} worker{}, {loops} loop{}, pid {pid}) - stop with Ctrl-C\n",
        env!("CARGO_PKG_VERSION"),
        plural(workers),
        plural(loops),
    )
}

#[cfg(test)]
mod tests;
