//! Floor 1: settings and their defaults.
//!
//! [`EngineConfig`] is plain data: whoever runs an engine fills it in, from flags, a file or code,
//! and [`EngineConfig::validate`] says what cannot be meant. [`parse_duration`] and [`parse_size`]
//! read such values as people write them.
#![forbid(unsafe_code)]

mod bus_path;
mod units;

use std::fmt;
use std::time::Duration;

pub use bus_path::default_bus_path;
pub use units::{UnitError, parse_duration, parse_size};

/// The most loops an engine can have; the layout of the bus has room for no more.
pub const MAX_LOOPS: usize = 32;

/// What a request head, written into one record of the bus, may take: 64 KiB of record less 1 KiB
/// for its fixed part, the addresses and the mount point.
const RECORD_ROOM: usize = 63 * 1024;

/// Bytes that a header field takes in the table of a record.
const FIELD_ENTRY: usize = 16;

/// How an engine runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EngineConfig {
    /// Loops, that is I/O threads; `None` leaves it to [`EngineConfig::default_loops`].
    pub loops: Option<usize>,
    /// Consumers that there will be: clients do not get the descriptors that are needed to replace all
    /// of them at once.
    pub consumers: usize,
    /// What clients may send.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Requests that may wait for a consumer, per pool; the next one is answered 503. 0: none waits.
    pub queue_size: usize,
    /// How long a request may wait for a consumer before it is answered 503.
    pub queue_timeout: Duration,
    /// Requests that may be in flight or waiting, per pool; the next one is answered 503.
    pub limit_concurrency: Option<usize>,
    /// Connections that the kernel may hold for a listener before they are accepted.
    pub backlog: u32,
    /// Bytes of one request's body that may be on their way to a consumer.
    pub request_window: u32,
    /// Bytes of one response's body that may be on their way from a consumer.
    pub response_window: u32,
    /// Raw connections that consumers may hold at once; further ones are refused by a reset.
    pub limit_streams: usize,
    /// Whether a consumer that stands still is stuck as soon as it has anything to do. If not, only
    /// when it holds a request past its deadline: consumers that answer one request after the other
    /// do not turn while they do.
    pub stuck_if_busy: bool,
    /// How long a callback of a stream service may run before it is counted as an overrun.
    pub callback_budget: Duration,
    /// Whether each loop stays on a CPU of its own, as far as there are enough.
    pub pin_loops: bool,
    /// The `Server` field of responses; `None` sends none.
    pub server_header: Option<String>,
    /// Whether responses carry a `Date` field.
    pub date_header: bool,
    /// Whether each request is written to standard output.
    pub access_log: bool,
}

/// What clients may send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of a request line (414).
    pub request_line: usize,
    /// Bytes of a request head, request line included (431).
    pub head: usize,
    /// Fields of a request head (431).
    pub fields: usize,
    /// Bytes of a request body (413). 0: no limit.
    pub body: u64,
}

/// How long things may take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// From the first byte of a request, or the start of a connection, to the end of the head (408).
    pub request_header: Duration,
    /// Without a byte of a request body that is waited for (408).
    pub request_body: Duration,
    /// Bytes a second that a request body must bring on average (408). 0: no minimum.
    pub request_body_min_rate: u64,
    /// From the end of the request head to the response head (504). 0: no limit.
    pub response: Duration,
    /// Between two requests on a connection. 0: the connection closes after each response.
    pub keep_alive: Duration,
    /// Without a byte that the client takes while there is something to send.
    pub send_idle: Duration,
    /// Without an event of a raw connection whose consumer did not say how long to wait: then it is
    /// told. 0: no limit.
    pub stream_idle: Duration,
    /// From the wish to stop to the end of what was accepted; whatever is left then is cut off.
    pub graceful_shutdown: Duration,
    /// How long a consumer may stand still, though it has something to do, before it is ended. 0:
    /// nobody looks.
    pub stuck_grace: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            loops: None,
            consumers: 8,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            queue_size: 1024,
            queue_timeout: Duration::from_secs(10),
            limit_concurrency: None,
            backlog: 2048,
            request_window: 64 * 1024,
            response_window: 128 * 1024,
            limit_streams: 512,
            stuck_if_busy: false,
            callback_budget: Duration::from_millis(100),
            pin_loops: false,
            server_header: Some("toolb".to_owned()),
            date_header: true,
            access_log: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line: 8 * 1024,
            head: 16 * 1024,
            fields: 100,
            body: 100 * 1024 * 1024,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_header: Duration::from_secs(30),
            request_body: Duration::from_secs(30),
            request_body_min_rate: 1024,
            response: Duration::from_secs(60),
            keep_alive: Duration::from_secs(5),
            send_idle: Duration::from_secs(30),
            stream_idle: Duration::from_secs(60),
            graceful_shutdown: Duration::from_secs(30),
            stuck_grace: Duration::from_secs(10),
        }
    }
}

impl EngineConfig {
    /// The loops that serve `workers` consumers well on `cores` cores: one for four consumers, at
    /// least one, on at most half of the cores.
    pub fn default_loops(workers: usize, cores: usize) -> usize {
        let most = (cores / 2).clamp(1, MAX_LOOPS);
        (workers / 4).clamp(1, most)
    }

    /// Finds the first setting that cannot be meant.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let timeouts = &self.timeouts;
        if let Some(loops) = self.loops {
            within("io-threads", loops, 1, MAX_LOOPS)?;
        }
        within("limit-request-line", limits.request_line, 64, RECORD_ROOM)?;
        within("limit-request-head", limits.head, 128, RECORD_ROOM)?;
        within("limit-request-fields", limits.fields, 1, 2048)?;
        if limits.request_line > limits.head {
            return Err(ConfigError::new(
                "limit-request-line",
                format!(
                    "{} is more than limit-request-head ({}), of which the request line is a part",
                    limits.request_line, limits.head
                ),
            ));
        }
        // The decoded path travels beside the head, hence the request line counts twice.
        let record = limits.head + limits.request_line + limits.fields * FIELD_ENTRY;
        if record > RECORD_ROOM {
            return Err(ConfigError::new(
                "limit-request-head",
                format!(
                    "limit-request-head + limit-request-line + {FIELD_ENTRY} x limit-request-fields \
                     is {record} bytes; it may be at most {RECORD_ROOM}"
                ),
            ));
        }
        for (name, value) in [
            ("timeout-request-header", timeouts.request_header),
            ("timeout-request-body", timeouts.request_body),
            ("timeout-send", timeouts.send_idle),
            ("queue-timeout", self.queue_timeout),
        ] {
            if value.is_zero() {
                return Err(ConfigError::new(name, "must be more than 0".to_owned()));
            }
        }
        if self.limit_concurrency == Some(0) {
            let text = "0 would refuse every request; leave it out for no limit".to_owned();
            return Err(ConfigError::new("limit-concurrency", text));
        }
        within("queue-size", self.queue_size, 0, 1 << 20)?;
        within("backlog", self.backlog, 1, i32::MAX as u32)?;
        within("request window", self.request_window, 4096, 1 << 30)?;
        within("response window", self.response_window, 4096, 1 << 30)?;
        match &self.server_header {
            Some(name) if name.is_empty() || !name.bytes().all(|b| matches!(b, b' '..=b'~')) => {
                let text = "must be printable ASCII and not empty".to_owned();
                Err(ConfigError::new("server-header", text))
            }
            _ => Ok(()),
        }
    }
}

/// A setting that cannot be meant: which one, and what is allowed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// By the name of its flag, without the dashes.
    setting: &'static str,
    text: String,
}

impl ConfigError {
    fn new(setting: &'static str, text: String) -> Self {
        Self { setting, text }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.text)
    }
}

impl std::error::Error for ConfigError {}

fn within<T: PartialOrd + fmt::Display>(
    setting: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), ConfigError> {
    if value < least || value > most {
        let text = format!("{value} is not between {least} and {most}");
        return Err(ConfigError::new(setting, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut EngineConfig)) -> String {
        let mut config = EngineConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(EngineConfig::default().validate(), Ok(()));
    }

    #[test]
    fn loops_follow_workers_and_cores() {
        let cases = [
            ((1, 2), 1),
            ((4, 2), 1),
            ((8, 2), 1),
            ((8, 4), 2),
            ((8, 64), 2),
            ((64, 16), 8),
            ((1024, 256), MAX_LOOPS),
            ((1, 1), 1),
        ];
        for ((workers, cores), loops) in cases {
            assert_eq!(EngineConfig::default_loops(workers, cores), loops);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let cases = [
            (
                refused(|c| c.loops = Some(0)),
                "io-threads: 0 is not between 1 and 32",
            ),
            (
                refused(|c| c.loops = Some(33)),
                "io-threads: 33 is not between 1 and 32",
            ),
            (
                refused(|c| c.queue_timeout = Duration::ZERO),
                "queue-timeout: must be more than 0",
            ),
            (
                refused(|c| c.limits.request_line = 20_000),
                "limit-request-line: 20000 is more than limit-request-head (16384), of which the \
                 request line is a part",
            ),
            (
                refused(|c| c.backlog = 0),
                "backlog: 0 is not between 1 and 2147483647",
            ),
            (
                refused(|c| c.limit_concurrency = Some(0)),
                "limit-concurrency: 0 would refuse every request; leave it out for no limit",
            ),
            (
                refused(|c| c.server_header = Some("a\r\nb".to_owned())),
                "server-header: must be printable ASCII and not empty",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_request_head_always_fits_a_record() {
        let text = refused(|c| c.limits.head = 62 * 1024);
        assert!(text.starts_with("limit-request-head: "), "{text}");
        let text = refused(|c| c.limits.fields = 2048 + 1);
        assert!(text.starts_with("limit-request-fields: "), "{text}");
        let mut config = EngineConfig::default();
        config.limits.head = 48 * 1024;
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn zero_means_off_where_it_says_so() {
        let mut config = EngineConfig::default();
        config.limits.body = 0;
        config.timeouts.response = Duration::ZERO;
        config.timeouts.request_body_min_rate = 0;
        config.timeouts.keep_alive = Duration::ZERO;
        config.timeouts.stream_idle = Duration::ZERO;
        config.timeouts.graceful_shutdown = Duration::ZERO;
        config.timeouts.stuck_grace = Duration::ZERO;
        config.queue_size = 0;
        assert_eq!(config.validate(), Ok(()));
    }
}
