//! What can be written on the command line about an engine.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use toolb_core::config::{parse_duration, parse_size};
use toolb_core::log::Level;

use super::values::{count, host, level, mode, port, positive, positive_u32, size};

/// Everything an engine is told, but its number of loops.
#[derive(Args, Debug)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    pub(crate) listen: Listening,
    #[command(flatten)]
    pub(crate) queue: Queue,
    #[command(flatten)]
    pub(crate) limits: RequestLimits,
    #[command(flatten)]
    pub(crate) timeouts: TimeLimits,
    #[command(flatten)]
    pub(crate) grace: Grace,
    #[command(flatten)]
    pub(crate) log: Log,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Listening")]
pub(crate) struct Listening {
    /// The address to listen on; 0.0.0.0 for all of this machine
    #[arg(long, env = "TOOLB_HOST", default_value = "127.0.0.1", value_parser = host)]
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
    /// Connections that the kernel may hold until they are accepted
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
    /// The longest request line: method, target and version (414)
    #[arg(
        long,
        env = "TOOLB_LIMIT_REQUEST_LINE",
        value_name = "SIZE",
        default_value = "8KiB",
        value_parser = size
    )]
    pub(crate) limit_request_line: usize,
    /// The longest head: request line and headers together (431)
    #[arg(
        long,
        env = "TOOLB_LIMIT_REQUEST_HEAD",
        value_name = "SIZE",
        default_value = "16KiB",
        value_parser = size
    )]
    pub(crate) limit_request_head: usize,
    /// The most header fields (431)
    #[arg(
        long,
        env = "TOOLB_LIMIT_REQUEST_FIELDS",
        value_name = "N",
        default_value = "100",
        value_parser = positive
    )]
    pub(crate) limit_request_fields: usize,
    /// The largest body (413); 0: no limit
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
    /// How long the head of a request may take to arrive (408)
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_REQUEST_HEADER",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_request_header: Duration,
    /// How long a client may send nothing of a body that is not complete (408)
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_REQUEST_BODY",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_request_body: Duration,
    /// How long the application may take to begin its response (504); 0: no limit
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_RESPONSE",
        value_name = "TIME",
        default_value = "60s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_response: Duration,
    /// How long a connection is kept for the next request; 0: one request a connection
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_KEEP_ALIVE",
        value_name = "TIME",
        default_value = "5s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_keep_alive: Duration,
    /// How long a client may take nothing of what there is to send; then it is cut off
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_SEND",
        value_name = "TIME",
        default_value = "30s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_send: Duration,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Timeouts")]
pub(crate) struct Grace {
    /// How long accepted requests may take to finish after a signal to stop; then they are cut off
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
#[command(next_help_heading = "Timeouts")]
pub(crate) struct Health {
    /// How long a worker with work to do may stand still; then it is replaced; 0: for ever
    #[arg(
        long,
        env = "TOOLB_TIMEOUT_WORKER_HEALTHCHECK",
        value_name = "TIME",
        default_value = "10s",
        value_parser = parse_duration
    )]
    pub(crate) timeout_worker_healthcheck: Duration,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Log {
    /// How much is written to standard error
    #[arg(
        long,
        env = "TOOLB_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_parser = level()
    )]
    pub(crate) log_level: Level,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Write each request to standard output, in the combined format [default: on in a terminal]
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
    /// Do not write them
    #[arg(long, overrides_with = "access_log")]
    pub(crate) no_access_log: bool,
    /// Send `Server: toolb`, unless the application sends one [default: on]
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
    /// Never add it
    #[arg(long, overrides_with = "server_header")]
    pub(crate) no_server_header: bool,
    /// Send `Date`, unless the application sends one [default: on]
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
    /// Never add it
    #[arg(long, overrides_with = "date_header")]
    pub(crate) no_date_header: bool,
}

/// `--x`, `--no-x`, or neither.
pub(crate) fn switch(on: Option<bool>, off: bool, default: bool) -> bool {
    !off && on.unwrap_or(default)
}
