//! `toolb run`.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process;
use std::thread;

use clap::parser::ValueSource;
use clap::{ArgMatches, ValueEnum};
use toolb_core::config::{EngineConfig, Limits, Timeouts};
use toolb_core::engine::Listen;
use toolb_core::log::{self, Level};
use toolb_core::server::{self, Event, RunOptions};

use crate::WorkerCommand;
use crate::args::{Run, name_of, switch, workers};
use crate::python::{self, Surroundings};

/// Serves until a signal ends it; `Err` is what is wrong with the usage.
pub(crate) fn run(args: &Run, matches: &ArgMatches, worker: &WorkerCommand) -> Result<i32, String> {
    let options = options(args, matches, worker)?;
    log::set_level(args.output.log_level);
    let outcome = server::run(options, |event| tell(&event, &args.app.target));
    Ok(outcome.exit_code())
}

fn options(args: &Run, matches: &ArgMatches, worker: &WorkerCommand) -> Result<RunOptions, String> {
    let count = worker_count(args.processes.workers, env::var_os("WEB_CONCURRENCY"))?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let engine = engine_config(args, count, cores, io::stdout().is_terminal());
    engine.validate().map_err(|error| format!("--{error}"))?;
    let listeners = vec![listener(args, matches)?];
    let mut options = RunOptions::new(engine, listeners, command(args, worker));
    options.workers = count;
    Ok(options)
}

fn engine_config(args: &Run, workers: usize, cores: usize, terminal: bool) -> EngineConfig {
    let (limits, timeouts, output) = (&args.limits, &args.timeouts, &args.output);
    let defaults = EngineConfig::default();
    let server_header = switch(output.server_header, output.no_server_header, true);
    let loops = args.processes.io_threads;
    EngineConfig {
        loops: Some(loops.unwrap_or_else(|| EngineConfig::default_loops(workers, cores))),
        limits: Limits {
            request_line: limits.limit_request_line,
            head: limits.limit_request_head,
            fields: limits.limit_request_fields,
            body: limits.limit_request_body,
        },
        timeouts: Timeouts {
            request_header: timeouts.timeout_request_header,
            request_body: timeouts.timeout_request_body,
            response: timeouts.timeout_response,
            keep_alive: timeouts.timeout_keep_alive,
            graceful_shutdown: timeouts.timeout_graceful_shutdown,
            ..defaults.timeouts
        },
        queue_size: args.queue.queue_size,
        queue_timeout: args.queue.queue_timeout,
        limit_concurrency: args.queue.limit_concurrency,
        backlog: args.listen.backlog,
        server_header: defaults.server_header.filter(|_| server_header),
        date_header: switch(output.date_header, output.no_date_header, true),
        access_log: switch(output.access_log, output.no_access_log, terminal),
        request_window: defaults.request_window,
        response_window: defaults.response_window,
    }
}

/// `--workers`, `WEB_CONCURRENCY`, or 1.
fn worker_count(asked: Option<usize>, platform: Option<OsString>) -> Result<usize, String> {
    match (asked, platform) {
        (Some(count), _) => Ok(count),
        (None, Some(text)) if !text.is_empty() => {
            let text = text.to_string_lossy();
            workers(&text).map_err(|why| format!("WEB_CONCURRENCY: {text:?}: {why}"))
        }
        _ => Ok(1),
    }
}

fn listener(args: &Run, matches: &ArgMatches) -> Result<Listen, String> {
    let listen = &args.listen;
    let written = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    match &listen.uds {
        Some(path) => {
            for (id, flag) in [("host", "--host"), ("port", "--port")] {
                if written("uds") && written(id) {
                    return Err(format!("--uds: cannot be used with {flag}; leave one out"));
                }
            }
            Ok(Listen::Uds {
                path: path.clone(),
                permissions: listen.uds_permissions,
            })
        }
        None if written("uds_permissions") => {
            Err("--uds-permissions: needs --uds, the socket they are for".to_owned())
        }
        None => Ok(Listen::Tcp {
            host: listen.host.clone(),
            port: listen.port,
        }),
    }
}

fn command(args: &Run, worker: &WorkerCommand) -> server::WorkerCommand {
    let app = &args.app;
    let active = env::var_os("VIRTUAL_ENV");
    let around = Surroundings {
        own: match worker {
            WorkerCommand::Python(path) => Some(path),
            WorkerCommand::Find => None,
        },
        active: active.as_deref(),
        app_dir: &app.app_dir,
    };
    let python = python::find(app.python.as_deref(), &around, Path::exists);
    let if_ended = format!(
        "if it has no module toolb, install it with {} -m pip install toolb or choose another \
         Python with --python",
        python.display()
    );
    server::WorkerCommand {
        program: python.into_os_string(),
        args: worker_args(args),
        if_not_run: Some("choose a Python with --python or TOOLB_PYTHON".to_owned()),
        if_ended: Some(if_ended),
    }
}

fn worker_args(args: &Run) -> Vec<OsString> {
    fn choice(value: impl ValueEnum) -> OsString {
        name_of(value).into()
    }
    let app = &args.app;
    let mut list: Vec<OsString> = vec![
        "-m".into(),
        "toolb.worker".into(),
        app.target.clone().into(),
        "--loop".into(),
        choice(app.event_loop),
        "--lifespan".into(),
        choice(app.lifespan),
        "--app-dir".into(),
        app.app_dir.clone().into(),
        "--root-path".into(),
        app.root_path.clone().into(),
        "--log-level".into(),
        args.output.log_level.name().into(),
    ];
    if app.factory {
        list.push("--factory".into());
    }
    list
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
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
        event => log::write(event.level(), format_args!("{event}")),
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
