//! What can be written on the command line.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use toolb_core::config::{parse_duration, parse_size};
use toolb_core::log::Level;

const EXAMPLES: &str = "\
Examples:
  toolb run main:app                     serve `app` of main.py on http://127.0.0.1:8000
  toolb run main:app --workers 4         four processes
  toolb run main:app --host 0.0.0.0 --port 80
  toolb run main:app --uds /run/app.sock --uds-permissions 660
  toolb run shop.web:create_app --factory --app-dir src

toolb run --help shows all options.";

const RUN_EXAMPLES: &str = "\
Examples:
  toolb run main:app                     `app` of main.py on http://127.0.0.1:8000
  toolb run main:app --workers 4         four processes, one loop for I/O
  toolb run main:app --port 0            a free port; the first line tells which
  toolb run main:app --host 0.0.0.0 --port 80 --no-access-log
  toolb run main:app --uds /run/app.sock --uds-permissions 660
  toolb run shop.web:create_app --factory --app-dir src
  toolb run main:app --limit-request-body 1GiB --timeout-response 5m
  TOOLB_PORT=9000 WEB_CONCURRENCY=4 toolb run main:app

Durations: 90, 90s, 500ms, 1m, 2h, 1d. Sizes: 16384, 16KiB, 100MiB, 1GiB.
Each option can come from the environment: --queue-size is TOOLB_QUEUE_SIZE, --no-access-log is
TOOLB_ACCESS_LOG=false. What is on the command line wins.
Signals: Ctrl-C (SIGINT) or SIGTERM stops gracefully, a second one at once.
Exit codes: 0 stopped, 2 wrong usage, 3 cannot start, 128 + n forced by signal n.";

/// An application server with a native engine.
#[derive(Debug, Parser)]
#[command(
    name = "toolb",
    bin_name = "toolb",
    version,
    after_help = EXAMPLES,
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
}

/// Serve an application with worker processes.
#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) app: App,
    #[command(flatten)]
    pub(crate) listen: Listening,
    #[command(flatten)]
    pub(crate) processes: Processes,
    #[command(flatten)]
    pub(crate) queue: Queue,
    #[command(flatten)]
    pub(crate) limits: RequestLimits,
    #[command(flatten)]
    pub(crate) timeouts: TimeLimits,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Application")]
pub(crate) struct App {
    /// The application: a module, a colon, and its name there (dots allowed)
    #[arg(value_name = "MODULE:ATTR", value_parser = target, help_heading = "Arguments")]
    pub(crate) target: String,
    /// Call the application to get the real one
    #[arg(long, env = "TOOLB_FACTORY", value_parser = BoolishValueParser::new(), action = ArgAction::SetTrue)]
    pub(crate) factory: bool,
    /// Look for modules here first
    #[arg(long, env = "TOOLB_APP_DIR", value_name = "DIR", default_value = ".")]
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
    /// The event loop of a worker; auto: uvloop if it is installed
    #[arg(long = "loop", env = "TOOLB_LOOP", default_value = "auto")]
    pub(crate) event_loop: EventLoop,
    /// The Python that runs the workers [default: that of toolb, an active or local .venv, python3]
    #[arg(long, env = "TOOLB_PYTHON", value_name = "FILE")]
    pub(crate) python: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Listening")]
pub(crate) struct Listening {
    /// The address to listen on; 0.0.0.0 for all of this machine
    #[arg(long, env = "TOOLB_HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// The port to listen on; 0 picks a free one
    #[arg(long, env = "TOOLB_PORT", default_value = "8000", value_parser = port)]
    pub(crate) port: u16,
    /// A Unix socket to listen on instead of host and port [default: none]
    #[arg(long, env = "TOOLB_UDS", value_name = "FILE")]
    pub(crate) uds: Option<PathBuf>,
    /// Its permissions, octal, such as 660 [default: as the umask says]
    #[arg(long, env = "TOOLB_UDS_PERMISSIONS", value_name = "MODE", value_parser = mode)]
    pub(crate) uds_permissions: Option<u32>,
    /// Connections that may wait to be accepted
    #[arg(
        long,
        env = "TOOLB_BACKLOG",
        value_name = "N",
        default_value = "2048",
        value_parser = positive_u32
    )]
    pub(crate) backlog: u32,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Processes and threads")]
pub(crate) struct Processes {
    /// Worker processes [default: $WEB_CONCURRENCY or 1]
    #[arg(long, env = "TOOLB_WORKERS", value_name = "N", value_parser = workers)]
    pub(crate) workers: Option<usize>,
    /// Threads for connections [default: a quarter of the workers, at most half of the cores]
    #[arg(long, env = "TOOLB_IO_THREADS", value_name = "N", value_parser = io_threads)]
    pub(crate) io_threads: Option<usize>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Overload")]
pub(crate) struct Queue {
    /// Requests that may wait for a worker; more are answered 503
    #[arg(
        long,
        env = "TOOLB_QUEUE_SIZE",
        value_name = "N",
        default_value = "1024",
        value_parser = count
    )]
    pub(crate) queue_size: usize,
    /// How long a request may wait for a worker before it is answered 503
    #[arg(
        long,
        env = "TOOLB_QUEUE_TIMEOUT",
        value_name = "TIME",
        default_value = "10s",
        value_parser = parse_duration
    )]
    pub(crate) queue_timeout: Duration,
    /// Requests in flight and waiting; more are answered 503 at once [default: none]
    #[arg(long, env = "TOOLB_LIMIT_CONCURRENCY", value_name = "N", value_parser = positive)]
    pub(crate) limit_concurrency: Option<usize>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits on requests")]
pub(crate) struct RequestLimits {
    /// The request line: method, target and version (414)
    #[arg(
        long,
        env = "TOOLB_LIMIT_REQUEST_LINE",
        value_name = "SIZE",
        default_value = "8KiB",
        value_parser = size
    )]
    pub(crate) limit_request_line: usize,
    /// Request line and headers together (431)
    #[arg(
        long,
        env = "TOOLB_LIMIT_REQUEST_HEAD",
        value_name = "SIZE",
        default_value = "16KiB",
        value_parser = size
    )]
    pub(crate) limit_request_head: usize,
    /// Header fields (431)
    #[arg(
        long,
        env = "TOOLB_LIMIT_REQUEST_FIELDS",
        value_name = "N",
        default_value = "100",
        value_parser = positive
    )]
    pub(crate) limit_request_fields: usize,
    /// The request body (413); 0: no limit
    #[arg(
        long,
        env = "TOOLB_LIMIT_REQUEST_BODY",
        value_name = "SIZE",
        default_value = "100MiB",
        value_parser = parse_size
    )]
    pub(crate) limit_request_body: u64,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Timeouts")]
pub(crate) struct TimeLimits {
    /// Until the head of a request is there (408)
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_REQUEST_HEADER",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_request_header: Duration,
    /// Without a byte of a request body (408)
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_REQUEST_BODY",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_request_body: Duration,
    /// Until the application begins its response (504); 0: no limit
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_RESPONSE",
        value_name = "TIME",
        default_value = "60s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_response: Duration,
    /// Between two requests on a connection; 0: one request a connection
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_KEEP_ALIVE",
        value_name = "TIME",
        default_value = "5s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_keep_alive: Duration,
    /// For what has been accepted, after the wish to stop
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_GRACEFUL_SHUTDOWN",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_graceful_shutdown: Duration,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// What is written to standard error
    #[arg(
        long,
        env = "TOOLB_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = level()
    )]
    pub(crate) log_level: Level,
    /// Write each request to standard output [default: on in a terminal]
    #[arg(
        long,
        env = "TOOLB_ACCESS_LOG",
        action = ArgAction::Set,
        num_args = 0,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        overrides_with = "no_access_log"
    )]
    pub(crate) access_log: Option<bool>,
    /// Do not
    #[arg(long, overrides_with = "access_log")]
    pub(crate) no_access_log: bool,
    /// Send a Server header [default: on]
    #[arg(
        long,
        env = "TOOLB_SERVER_HEADER",
        action = ArgAction::Set,
        num_args = 0,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        overrides_with = "no_server_header"
    )]
    pub(crate) server_header: Option<bool>,
    /// Do not
    #[arg(long, overrides_with = "server_header")]
    pub(crate) no_server_header: bool,
    /// Send a Date header [default: on]
    #[arg(
        long,
        env = "TOOLB_DATE_HEADER",
        action = ArgAction::Set,
        num_args = 0,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        overrides_with = "no_date_header"
    )]
    pub(crate) date_header: Option<bool>,
    /// Do not
    #[arg(long, overrides_with = "date_header")]
    pub(crate) no_date_header: bool,
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

/// `--x`, `--no-x`, or neither.
pub(crate) fn switch(on: Option<bool>, off: bool, default: bool) -> bool {
    !off && on.unwrap_or(default)
}

pub(crate) fn workers(text: &str) -> Result<usize, String> {
    ranged(text, 1, 1024)
}

/// The module and the attribute of an application.
fn target(text: &str) -> Result<String, String> {
    let parts = text.split_once(':');
    if let Some((module, attr)) = parts
        && !module.is_empty()
        && !attr.is_empty()
        && !module.ends_with(".py")
        && !text.contains(['/', ' '])
    {
        return Ok(text.to_owned());
    }
    let (module, attr) = parts.unwrap_or((text, "app"));
    let module = module
        .trim_end_matches(".py")
        .trim_start_matches("./")
        .replace('/', ".");
    let module = if module.is_empty() { "main" } else { &module };
    let attr = if attr.is_empty() { "app" } else { attr };
    Err(format!(
        "expected a module and a name in it, such as {module}:{attr}"
    ))
}

fn port(text: &str) -> Result<u16, String> {
    let wrong = |_| "expected 0 to 65535 (0 picks a free port)".to_owned();
    text.parse().map_err(wrong)
}

fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected octal permissions such as 660".to_owned()),
    }
}

fn io_threads(text: &str) -> Result<usize, String> {
    ranged(text, 1, toolb_core::config::MAX_LOOPS)
}

fn count(text: &str) -> Result<usize, String> {
    ranged(text, 0, 1 << 20)
}

fn positive(text: &str) -> Result<usize, String> {
    ranged(text, 1, i32::MAX as usize)
}

fn positive_u32(text: &str) -> Result<u32, String> {
    positive(text).map(|value| value as u32)
}

fn size(text: &str) -> Result<usize, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}

fn ranged(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("expected a number from {least} to {most}")),
    }
}

fn level() -> impl TypedValueParser<Value = Level> {
    let names = ["critical", "error", "warning", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Level>())
}
