//! What happens as a line for a person to read.
#![forbid(unsafe_code)]

use std::fmt;

use crate::engine::Toll;

use super::super::door::LOOK;
use super::Event;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawned { worker, pid } => write!(f, "worker {worker} (pid {pid}) is starting"),
            Self::Ready {
                worker, pid, took, ..
            } => {
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
            Self::Open {
                addresses,
                bus,
                loops,
            } => write!(
                f,
                "serving on {} ({}); consumers attach at {}",
                addresses.join(", "),
                counted(*loops, "loop"),
                bus.display()
            ),
            Self::Working { workers, bus } => {
                write!(
                    f,
                    "{} ready for an engine at {bus}",
                    counted(*workers, "worker")
                )
            }
            Self::Attached { workers, bus } => write!(
                f,
                "{} attached to the engine at {bus}",
                counted(*workers, "worker")
            ),
            Self::Waiting { workers, bus, why } => write!(
                f,
                "no engine at {bus}: {} looking for one ({why})",
                counted(*workers, "worker")
            ),
            Self::BusAgain { bus } => write!(
                f,
                "somebody removed or replaced the bus socket {}, and it is bound again",
                bus.display()
            ),
            Self::BusLost { bus, why } => write!(
                f,
                "somebody removed or replaced the bus socket {}: nobody new can attach until it can be \
                 bound again, which is tried every {} s ({why})",
                bus.display(),
                LOOK.as_secs()
            ),
            Self::Joined {
                name,
                pid,
                consumers,
                others,
            } => write!(
                f,
                "{name} (pid {pid}) has attached; requests go to {} now{}",
                counted(*consumers, "consumer"),
                left_out(*others)
            ),
            Self::Left {
                name,
                pid,
                asked,
                toll,
                consumers,
                others,
            } => {
                let how = if *asked { "has left" } else { "is gone" };
                write!(f, "{name} (pid {pid}) {how}{}; ", Told(toll))?;
                match consumers {
                    0 => f.write_str("requests wait for another consumer")?,
                    _ => write!(f, "requests go to {} now", counted(*consumers, "consumer"))?,
                }
                f.write_str(&left_out(*others))
            }
            Self::Deserted {
                waiting,
                refused,
                bus,
            } => {
                f.write_str("no consumer is attached, and ")?;
                match waiting {
                    1 => f.write_str("1 request waits")?,
                    _ => write!(f, "{waiting} requests wait")?,
                }
                match refused {
                    0 => {}
                    1 => f.write_str(", 1 was answered 503")?,
                    _ => write!(f, ", {refused} were answered 503")?,
                }
                match bus {
                    Some(bus) => write!(
                        f,
                        "; start one, such as: toolb work MODULE:ATTR --bus {}",
                        bus.display()
                    ),
                    None => f.write_str("; attach one"),
                }
            }
            Self::Refused {
                name,
                pid,
                why,
                toll,
                others,
            } => {
                f.write_str(if name.is_empty() { "a consumer" } else { name })?;
                let told = Told(toll);
                write!(
                    f,
                    " (pid {pid}) was sent away: {why}{told}{}",
                    left_out(*others)
                )
            }
            Self::Slow {
                worker,
                pid,
                attached,
                since,
            } => {
                let what = match attached {
                    true => "its application to start (imports, then its start-up events)",
                    false => "its process to attach to the bus",
                };
                let since = since.as_secs();
                write!(
                    f,
                    "worker {worker} (pid {pid}): still waiting, after {since} s, for {what}"
                )
            }
            Self::Stuck {
                worker,
                pid,
                since,
                stopped: true,
            } => write!(
                f,
                "worker {worker} (pid {pid}) has been stopped (by SIGSTOP, a terminal or a debugger), has stood \
                 still for {} s with work to do and is ended; where it was cannot be told",
                since.as_secs_f64()
            ),
            Self::Stuck {
                worker,
                pid,
                since,
                stopped: false,
            } => write!(
                f,
                "worker {worker} (pid {pid}) has stood still for {} s with work to do and is ended; where it \
                 hangs follows here, on standard error",
                since.as_secs_f64()
            ),
            Self::Crowded {
                worker,
                pid,
                left,
                slots,
            } => write!(
                f,
                "worker {worker} (pid {pid}) goes on with {left} requests that nobody waits for, and has \
                 room for {slots}: it finishes the others and makes room for another worker"
            ),
            Self::Lost {
                worker,
                pid,
                why,
                toll,
                again,
                ..
            } => {
                write!(f, "worker {worker}")?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                write!(f, " {why}{}", Told(toll))?;
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
                "{} did not finish within {} s and {} killed",
                counted(*workers, "worker"),
                limit.as_secs_f64(),
                if *workers == 1 { "is" } else { "are" }
            ),
            Self::Cut {
                workers,
                limit: None,
            } => write!(f, "second signal: killing {}", counted(*workers, "worker")),
            Self::CutOff {
                connections,
                requests,
                consumers,
                limit,
            } => {
                let requests = counted(usize::try_from(*requests).unwrap_or(usize::MAX), "request");
                let what = match (connections, consumers) {
                    (true, 0) => format!("connections with {requests}"),
                    (true, count) => {
                        let consumers = counted(*count, "consumer");
                        format!("connections with {requests} and {consumers}")
                    }
                    (false, count) => counted(*count, "consumer"),
                };
                match limit {
                    Some(limit) => write!(
                        f,
                        "{what} did not finish within {} s and are cut off",
                        limit.as_secs_f64()
                    ),
                    None => write!(f, "second signal: cutting off {what}"),
                }
            }
            Self::Unfinished { requests, limit } => write!(
                f,
                "{} cut off, as the {} s to finish were over",
                match requests {
                    1 => "1 request was".to_owned(),
                    _ => format!("{requests} requests were"),
                },
                limit.as_secs_f64()
            ),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// How many lines of a kind were left out before this one.
fn left_out(others: u64) -> String {
    match others {
        0 => String::new(),
        _ => format!(" ({others} more like it before)"),
    }
}

/// What became of requests, if there were any, as it goes on in a line.
struct Told<'a>(&'a Toll);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Toll { failed, cut, moved } = *self.0;
        let fates = [
            (failed, "answered 502"),
            (cut, "cut off"),
            (moved, "handed to others"),
        ];
        let some = fates.iter().filter(|(count, _)| *count > 0);
        for (place, (count, fate)) in some.enumerate() {
            let (link, what) = match place {
                0 => ("; ", counted(*count, "request")),
                _ => (", ", count.to_string()),
            };
            let verb = if *count == 1 { "was" } else { "were" };
            write!(f, "{link}{what} {verb} {fate}")?;
        }
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
