//! What can be written on the command line.
#![forbid(unsafe_code)]

mod engine;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use toolb_core::config::parse_duration;

pub(crate) use engine::{EngineArgs, Grace, Health, Log, switch};
pub(crate) use values::workers;

use values::{bus, folder, io_threads, port, positive, stream_host, target};

/// Examples come first: who looks for help has something to do.
const TEMPLATE: &str = "\
{about-with-newline}
{usage-heading} {usage}

{before-help}{all-args}{after-help}";

const EXAMPLES: &str = "\
Examples:
  toolb run main:app                 `app` of main.py on http://127.0.0.1:8000
  toolb run main:app --workers 4     four processes
  toolb run main:app --host 0.0.0.0 --port 80
  toolb run main:app --uds /run/app.sock --uds-permissions 660
  toolb run shop.web:create_app --factory --app-dir src

  toolb serve                        only the engine; programs attach ...
  toolb work main:app -w 2           ... such as these two workers";

const NOTES: &str = "toolb run --help shows all options, and so do serve and work.";

const RUN_EXAMPLES: &str = "\
Examples:
  toolb run main:app                 `app` of main.py on http://127.0.0.1:8000
  toolb run main:app --workers 4     four processes, one loop for I/O
  toolb run main:app --port 0        a free port; the first line tells which
  toolb run main:app --host 0.0.0.0 --port 80 --no-access-log
  toolb run main:app --uds /run/app.sock --uds-permissions 660
  toolb run shop.web:create_app --factory --app-dir src
  toolb run main:app --limit-request-body 1GiB --timeout-response 5m
  TOOLB_PORT=9000 WEB_CONCURRENCY=4 toolb run main:app";

const RUN_NOTES: &str = "\
TIME is a duration: 90, 90s, 500ms, 1m, 2h, 1d. SIZE is in bytes: 16384, 16KiB, 100MiB, 1GiB. \
A number in brackets, such as (504), is the status that a request is then answered with.

Each option can come from the environment: --queue-size is TOOLB_QUEUE_SIZE, --no-access-log is \
TOOLB_ACCESS_LOG=false. What is on the command line wins; empty variables do not count.

Signals: Ctrl-C (SIGINT) or SIGTERM stops gracefully, a second one at once.

Exit codes: 0 stopped, 1 stopped but some work was cut off, 2 wrong usage, 3 cannot start, \
128 + n forced by signal n.";

const SERVE_EXAMPLES: &str = "\
Examples:
  toolb serve                        its first lines tell what to start next
  toolb serve --port 0 --bus /run/app/bus
  toolb work main:app --bus /run/app/bus --workers 4
  TOOLB_BUS=/run/app/bus ./consumer  a program of your own, as in C";

const SERVE_NOTES: &str = "\
Requests that come while nobody is attached wait in the queue, for --queue-timeout at most. Only \
programs of the same user (or root) can attach. Signals, exit codes, TIME, SIZE and the \
environment: as toolb run --help has them.";

const WORK_EXAMPLES: &str = "\
Examples:
  toolb work main:app                one worker for `toolb serve`
  toolb work main:app -w 4 --bus /run/app/bus
  toolb work shop.web:create_app --factory --app-dir src";

const WORK_NOTES: &str = "\
The engine may be started later, and may go and come back: the workers wait for it. Ctrl-C or \
SIGTERM lets them finish what they have begun, a second one ends them at once. Exit codes, TIME \
and the environment: as toolb run --help has them.";

/// An application server with a native engine.
#[derive(Debug, Parser)]
#[command(
    name = "toolb",
    bin_name = "toolb",
    version,
    before_help = EXAMPLES,
    help_template = TEMPLATE,
    after_help = NOTES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve an application with worker processes.
    Run(Box<Run>),
    /// Serve with programs that attach by themselves.
    Serve(Box<Serve>),
    /// Run worker processes for `toolb serve`.
    Work(Box<Work>),
}

/// Serve an application with worker processes.
#[derive(Args, Debug)]
#[command(
    before_help = RUN_EXAMPLES,
    help_template = TEMPLATE,
    after_help = RUN_NOTES,
    allow_negative_numbers = true
)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) app: App,
    #[command(flatten)]
    pub(crate) processes: Processes,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) health: Health,
}

/// Serve with programs that attach by themselves.
///
/// An engine without workers of its own: `toolb work` and other programs bring them.
#[derive(Args, Debug)]
#[command(
    before_help = SERVE_EXAMPLES,
    help_template = TEMPLATE,
    after_help = SERVE_NOTES,
    allow_negative_numbers = true
)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) bus: Bus,
    #[command(flatten)]
    pub(crate) streams: StreamPool,
    #[command(flatten)]
    pub(crate) consumers: Consumers,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Run worker processes for `toolb serve`.
#[derive(Args, Debug)]
#[command(
    before_help = WORK_EXAMPLES,
    help_template = TEMPLATE,
    after_help = WORK_NOTES,
    allow_negative_numbers = true
)]
pub(crate) struct Work {
    #[command(flatten)]
    pub(crate) app: App,
    #[command(flatten)]
    pub(crate) bus: Bus,
    #[command(flatten)]
    pub(crate) processes: Processes,
    #[command(flatten)]
    pub(crate) grace: Grace,
    #[command(flatten)]
    pub(crate) health: Health,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Application")]
pub(crate) struct App {
    /// The application: a module, a colon, and its name there (dots allowed)
    #[arg(value_name = "MODULE:ATTR", value_parser = target, help_heading = "Arguments")]
    pub(crate) target: String,
    /// MODULE:ATTR is a function that makes the application: call it [default: off]
    #[arg(long, env = "TOOLB_FACTORY", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) factory: bool,
    /// The folder to look for modules in first
    #[arg(long, env = "TOOLB_APP_DIR", value_name = "DIR", default_value = ".", value_parser = folder)]
    pub(crate) app_dir: PathBuf,
    /// The path the application is mounted at (ASGI root_path) [default: none]
    #[arg(
        long,
        env = "TOOLB_ROOT_PATH",
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) root_path: String,
    /// Run the application's start-up and shutdown events; auto: if it has any
    #[arg(long, env = "TOOLB_LIFESPAN", default_value = "auto")]
    pub(crate) lifespan: Lifespan,
    /// The event loop of the workers; auto: uvloop if it is installed
    #[arg(long = "loop", env = "TOOLB_LOOP", default_value = "auto")]
    pub(crate) event_loop: EventLoop,
    /// The Python that runs the workers [default: that of toolb, an active or local .venv, python3]
    #[arg(long, env = "TOOLB_PYTHON", value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Bus")]
pub(crate) struct Bus {
    /// The socket at which engine and consumers meet; without $XDG_RUNTIME_DIR it is /run/user/UID/toolb/bus, or toolb-UID/bus in $TMPDIR or /tmp [default: $XDG_RUNTIME_DIR/toolb/bus]
    #[arg(long, env = "TOOLB_BUS", value_name = "FILE", value_parser = bus)]
    pub(crate) bus: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Raw connections")]
pub(crate) struct StreamPool {
    /// A port whose connections go to consumers as they are; 0 picks a free one [default: none]
    #[arg(long, env = "TOOLB_STREAM_PORT", value_name = "PORT", value_parser = port)]
    pub(crate) stream_port: Option<u16>,
    /// The address of that port
    #[arg(
        long,
        env = "TOOLB_STREAM_HOST",
        value_name = "HOST",
        default_value = "127.0.0.1",
        value_parser = stream_host
    )]
    pub(crate) stream_host: String,
    /// A Unix socket whose connections go to consumers as they are [default: none]
    #[arg(long, env = "TOOLB_STREAM_UDS", value_name = "FILE")]
    pub(crate) stream_uds: Option<PathBuf>,
    /// Raw connections at once; more are reset
    #[arg(
        long,
        env = "TOOLB_LIMIT_STREAMS",
        value_name = "N",
        default_value = "512",
        value_parser = positive
    )]
    pub(crate) limit_streams: usize,
    /// Without a byte of a raw connection, until its consumer is told; 0: no limit
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_STREAM_IDLE",
        value_name = "TIME",
        default_value = "60s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_stream_idle: Duration,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Processes and threads")]
pub(crate) struct Processes {
    /// Worker processes [default: $WEB_CONCURRENCY or 1]
    #[arg(long, short = 'w', env = "TOOLB_WORKERS", value_name = "N", value_parser = workers)]
    pub(crate) workers: Option<usize>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Processes and threads")]
pub(crate) struct Threads {
    /// Threads of the engine that own connections [default: a quarter of the workers, at most half of the cores]
    #[arg(long, env = "TOOLB_IO_THREADS", value_name = "N", value_parser = io_threads)]
    pub(crate) io_threads: Option<usize>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Processes and threads")]
pub(crate) struct Consumers {
    /// Programs that may be attached at once
    #[arg(
        long,
        env = "TOOLB_LIMIT_CONSUMERS",
        value_name = "N",
        default_value = "256",
        value_parser = workers
    )]
    pub(crate) limit_consumers: usize,
    /// Threads of the engine that own connections
    #[arg(
        long,
        env = "TOOLB_IO_THREADS",
        value_name = "N",
        default_value = "1",
        value_parser = io_threads
    )]
    pub(crate) io_threads: usize,
}

/// `--lifespan`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Lifespan {
    Auto,
    On,
    Off,
}

/// `--loop`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum EventLoop {
    Auto,
    Asyncio,
    Uvloop,
}

/// The name of a choice, as it is written.
pub(crate) fn name_of(choice: impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
