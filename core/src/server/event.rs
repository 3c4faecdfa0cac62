//! What a server tells the person who runs it.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::log::Level;

/// What happens while a server runs. `Display` gives one line for a person to read.
///
/// Workers are numbered from 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A worker process has been started.
    Spawned {
        /// Which worker.
        worker: usize,
        /// Its process.
        pid: u32,
    },
    /// The application in a worker has started.
    Ready {
        /// Which worker.
        worker: usize,
        /// Its process.
        pid: u32,
        /// How long it took.
        took: Duration,
    },
    /// All workers are ready for the first time.
    Serving {
        /// Where, as a client writes it.
        addresses: Vec<String>,
        /// How many workers.
        workers: usize,
        /// How many loops.
        loops: usize,
    },
    /// A worker takes long to start.
    Slow {
        /// Which worker.
        worker: usize,
        /// Its process.
        pid: u32,
        /// For how long it has been starting.
        since: Duration,
    },
    /// A worker has ended unasked.
    Lost {
        /// Which worker.
        worker: usize,
        /// Its process; `None` if there has not been one.
        pid: Option<u32>,
        /// How it ended.
        why: String,
        /// When another takes its place; `None`: not any more.
        again: Option<Duration>,
    },
    /// The server cannot start: why, and how to mend it.
    StartFailed(String),
    /// The server has been asked to stop and finishes what it has accepted.
    Stopping {
        /// The signal that asked.
        signal: &'static str,
        /// For how long at most.
        limit: Duration,
    },
    /// Workers are killed, by request or because the time is over.
    Cut {
        /// How many.
        workers: usize,
        /// How long they were given; `None`: the person who runs the server would not wait.
        limit: Option<Duration>,
    },
    /// Everything has ended.
    Stopped,
}

impl Event {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Spawned { .. } | Self::Ready { .. } => Level::Debug,
            Self::Serving { .. } | Self::Stopping { .. } | Self::Stopped => Level::Info,
            Self::Slow { .. } | Self::Lost { .. } | Self::Cut { .. } => Level::Warning,
            Self::StartFailed(_) => Level::Error,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawned { worker, pid } => write!(f, "worker {worker} (pid {pid}) is starting"),
            Self::Ready { worker, pid, took } => {
                let took = took.as_secs_f64();
                write!(f, "worker {worker} (pid {pid}) is ready after {took:.1} s")
            }
            Self::Serving {
                addresses,
                workers,
                loops,
            } => write!(
                f,
                "serving on {} ({}, {})",
                addresses.join(", "),
                counted(*workers, "worker"),
                counted(*loops, "loop")
            ),
            Self::Slow { worker, pid, since } => write!(
                f,
                "worker {worker} (pid {pid}) has been starting for {} s; requests wait until it is ready",
                since.as_secs()
            ),
            Self::Lost {
                worker,
                pid,
                why,
                again,
            } => {
                write!(f, "worker {worker}")?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                write!(f, " {why}")?;
                match again {
                    Some(delay) => write!(f, "; another starts in {} ms", delay.as_millis()),
                    None => Ok(()),
                }
            }
            Self::StartFailed(why) => write!(f, "cannot start: {why}"),
            Self::Stopping { signal, limit } => write!(
                f,
                "{signal}: finishing what has been accepted, for {} s at most; a second signal cuts it off",
                limit.as_secs_f64()
            ),
            Self::Cut {
                workers,
                limit: Some(limit),
            } => write!(
                f,
                "{} did not finish within {} s and {} killed; --timeout-graceful-shutdown gives more time",
                counted(*workers, "worker"),
                limit.as_secs_f64(),
                if *workers == 1 { "is" } else { "are" }
            ),
            Self::Cut {
                workers,
                limit: None,
            } => write!(f, "second signal: killing {}", counted(*workers, "worker")),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// How a server came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It was asked to stop.
    Stopped,
    /// It could not start; an [`Event::StartFailed`] has told why.
    StartFailed,
    /// It was made to stop by a second signal, this one.
    Forced(i32),
}

impl Outcome {
    /// The exit code for it: 0; 3; 128 and the number of the signal.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Stopped => 0,
            Self::StartFailed => 3,
            Self::Forced(signal) => 128 + signal,
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
