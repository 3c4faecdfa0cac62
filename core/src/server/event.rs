//! What a server tells the person who runs it.
#![forbid(unsafe_code)]

mod line;

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::Toll;
use crate::log::{self, Level};

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
        /// It takes the place of another, or of its own former process.
        again: bool,
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
    /// An engine without workers of its own is open.
    Open {
        /// Where, as a client writes it.
        addresses: Vec<String>,
        /// Where consumers attach.
        bus: PathBuf,
        /// How many loops.
        loops: usize,
    },
    /// All workers are ready for the first time, to serve an engine elsewhere.
    Working {
        /// How many workers.
        workers: usize,
        /// Where the engine is looked for.
        bus: String,
    },
    /// All workers have found the engine elsewhere, for the first time or again.
    Attached {
        /// How many workers.
        workers: usize,
        /// Where the engine is.
        bus: String,
    },
    /// No worker has an engine: they look for one.
    Waiting {
        /// How many workers.
        workers: usize,
        /// Where they look.
        bus: String,
        /// What they find there.
        why: String,
    },
    /// The bus socket, which somebody had removed or replaced, is there again.
    BusAgain {
        /// Where.
        bus: PathBuf,
    },
    /// Somebody has removed or replaced the bus socket, and it cannot be bound again for now.
    BusLost {
        /// Where it was.
        bus: PathBuf,
        /// Why it cannot, and how to mend it.
        why: String,
    },
    /// A consumer that came by itself takes requests.
    Joined {
        /// What it calls itself.
        name: String,
        /// Its process.
        pid: u32,
        /// How many take requests now.
        consumers: usize,
        /// So many others have come since the last one that was told of.
        others: u64,
    },
    /// A consumer that came by itself has gone.
    Left {
        /// What it calls itself.
        name: String,
        /// Its process.
        pid: u32,
        /// It had said so, or had been told to.
        asked: bool,
        /// What became of its requests.
        toll: Toll,
        /// How many take requests now.
        consumers: usize,
        /// So many others have gone since the last one that was told of.
        others: u64,
    },
    /// For some time nobody has been there to take requests that came.
    Deserted {
        /// So many wait.
        waiting: usize,
        /// So many were answered 503 meanwhile.
        refused: u64,
        /// Where consumers attach.
        bus: Option<PathBuf>,
    },
    /// A consumer that came by itself was sent away.
    Refused {
        /// What it calls itself; empty if it has not said.
        name: String,
        /// Its process.
        pid: u32,
        /// What it did.
        why: String,
        /// What became of its requests.
        toll: Toll,
        /// So many others were sent away since the last one that was told of.
        others: u64,
    },
    /// A worker takes long to start.
    Slow {
        /// Which worker.
        worker: usize,
        /// Its process.
        pid: u32,
        /// It has attached to the bus: its application is what takes long.
        attached: bool,
        /// For how long it has been starting.
        since: Duration,
    },
    /// A worker has work to do and stands still: it is made to say where, and ended.
    Stuck {
        /// Which worker.
        worker: usize,
        /// Its process.
        pid: u32,
        /// For how long it has stood still, at least.
        since: Duration,
        /// It was stopped from outside, and so cannot say where it is.
        stopped: bool,
    },
    /// A worker turns, but holds on to many requests that nobody waits for: another takes its place
    /// as soon as it has finished the others.
    Crowded {
        /// Which worker.
        worker: usize,
        /// Its process.
        pid: u32,
        /// How many requests it holds on to.
        left: usize,
        /// How many it has room for.
        slots: usize,
    },
    /// A worker has ended, and the server is not to end.
    Lost {
        /// Which worker.
        worker: usize,
        /// Its process; `None` if there has not been one.
        pid: Option<u32>,
        /// It had said so, and ended well: somebody has asked it to, or its application has.
        asked: bool,
        /// How it ended.
        why: String,
        /// What became of its requests.
        toll: Toll,
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
    /// The time is over, and what is left of connections and consumers is cut off.
    CutOff {
        /// Some connections were still busy.
        connections: bool,
        /// So many requests were not answered yet.
        requests: u64,
        /// Consumers that had not finished.
        consumers: usize,
        /// How long they were given; `None`: the person who runs the server would not wait.
        limit: Option<Duration>,
    },
    /// Requests did not come to their end in time: their handlers were cancelled or killed.
    Unfinished {
        /// How many.
        requests: u64,
        /// How long they were given.
        limit: Duration,
    },
    /// Everything has ended.
    Stopped,
}

impl Event {
    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Spawned { .. } | Self::Ready { again: false, .. } => Level::Debug,
            Self::Left { asked: false, .. } | Self::Lost { asked: false, .. } => Level::Warning,
            Self::Ready { again: true, .. }
            | Self::Serving { .. }
            | Self::Open { .. }
            | Self::Working { .. }
            | Self::Attached { .. }
            | Self::Waiting { .. }
            | Self::Joined { .. }
            | Self::Left { .. }
            | Self::Lost { .. }
            | Self::Stopping { .. }
            | Self::Stopped => Level::Info,
            Self::Refused { .. }
            | Self::BusAgain { .. }
            | Self::BusLost { .. }
            | Self::Deserted { .. }
            | Self::Slow { .. }
            | Self::Stuck { .. }
            | Self::Crowded { .. }
            | Self::Cut { .. }
            | Self::Unfinished { .. }
            | Self::CutOff { .. } => Level::Warning,
            Self::StartFailed(_) => Level::Error,
        }
    }

    /// The same, of a worker or a consumer that has gone, with what has become of its requests.
    pub(super) fn with(mut self, the: Toll) -> Self {
        if let Self::Lost { toll, .. } | Self::Left { toll, .. } | Self::Refused { toll, .. } =
            &mut self
        {
            *toll = the;
        }
        self
    }

    /// Writes it to the log, for whoever runs the program: with the option that may help.
    pub fn log(&self) {
        match self.option() {
            Some(option) => log::write(self.level(), format_args!("{self}; {option}")),
            None => self.log_plainly(),
        }
    }

    /// The same for whoever has no options.
    pub(super) fn log_plainly(&self) {
        log::write(self.level(), format_args!("{self}"));
    }

    /// The option of the program that may help.
    fn option(&self) -> Option<&'static str> {
        match self {
            Self::Cut { limit: Some(_), .. }
            | Self::CutOff { limit: Some(_), .. }
            | Self::Unfinished { .. } => Some("--timeout-graceful-shutdown gives more time"),
            Self::BusAgain { .. } => Some("--bus can put it where nobody clears up"),
            _ => None,
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
    /// It was asked to stop, and what was left at the end of the grace time was cut off.
    Cut,
    /// It was made to stop by a second signal, this one.
    Forced(i32),
}

impl Outcome {
    /// The exit code for it: 0; 3; 1; 128 and the number of the signal.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Stopped => 0,
            Self::StartFailed => 3,
            Self::Cut => 1,
            Self::Forced(signal) => 128 + signal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_named_beside_what_happened_not_in_it() {
        let limit = Duration::from_secs(30);
        let cut_off = |limit| Event::CutOff {
            connections: true,
            requests: 2,
            consumers: 0,
            limit,
        };
        let events = [
            Event::Cut {
                workers: 1,
                limit: Some(limit),
            },
            cut_off(Some(limit)),
            Event::Unfinished { requests: 1, limit },
        ];
        for event in events {
            // A program with an engine of its own has no options.
            assert!(!event.to_string().contains("--"), "{event}");
            assert!(event.option().is_some_and(|text| text.starts_with("--")));
        }
        // More time is no help to whoever would not wait.
        assert_eq!(cut_off(None).option(), None);
    }
}
