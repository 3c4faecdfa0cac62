//! Floor 1: log sinks.
#![forbid(unsafe_code)]

pub mod access;

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::sys::clock::{self, Local};
use crate::sys::stderr;

/// How much a line matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Level {
    /// The server cannot go on.
    Critical,
    /// Something failed that should not.
    Error,
    /// Something looks wrong.
    Warning,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    const ALL: [(Self, &str); 6] = [
        (Self::Critical, "critical"),
        (Self::Error, "error"),
        (Self::Warning, "warning"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];

    /// Its name, as `--log-level` takes it.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(_, name)| *name == text);
        found.map(|(level, _)| *level).ok_or_else(|| {
            format!("{text:?} is no log level; use critical, error, warning, info, debug or trace")
        })
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// From now on lines that matter less than `level` are not written.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of `level` are written.
pub fn is_enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line to standard error, if that does not mean to wait: a loop that waited for whoever
/// reads the log would hold up all of its clients.
pub fn write(level: Level, text: fmt::Arguments<'_>) {
    if !is_enabled(level) {
        return;
    }
    say(&format!("toolb {}: {text}\n", level.name()));
}

/// Writes `text`, line ends included, in the same way, whatever the level. Unless a person reads it,
/// at a terminal, each line begins with the time.
pub fn say(text: &str) {
    if io::stderr().is_terminal() {
        return stderr::write("", text);
    }
    let now = clock::unix_nanos();
    let stamp = stamp(&clock::local(now / 1_000_000_000), now / 1_000_000 % 1000);
    let lines = text.split_inclusive('\n');
    let text: String = lines.flat_map(|line| [&*stamp, line]).collect();
    stderr::write(&stamp, &text);
}

/// Keeps a warning that others can cause as often as they like from filling the log.
///
/// A few lines may come at once, then one a second.
#[derive(Debug)]
pub struct Throttle {
    /// When the lines that were written would have been, a second apart, on the clock of deadlines.
    next: AtomicU64,
    left_out: AtomicU64,
    ahead: u64,
}

impl Throttle {
    /// Nothing was written yet; a few lines may come at once.
    pub const fn new() -> Self {
        Self::of(FEW)
    }

    /// So many may.
    pub const fn of(few: u64) -> Self {
        Self {
            next: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            ahead: few.saturating_sub(1) * PAUSE,
        }
    }

    /// Whether a line may be written at the time `now`: how many were left out before it.
    pub fn admit(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        let taken = || {
            let order = Ordering::Relaxed;
            let after = next.max(now) + PAUSE;
            self.next.compare_exchange(next, after, order, order)
        };
        if now + self.ahead < next || taken().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

/// Lines that are throttled come this far apart, but for the first few.
const PAUSE: u64 = 1_000_000_000;
const FEW: u64 = 10;

/// Writes one line, unless there were many like it just now; the next one tells how many were left
/// out. Whether it was written.
pub fn limited(throttle: &Throttle, level: Level, text: fmt::Arguments<'_>) -> bool {
    if !is_enabled(level) {
        return false;
    }
    match throttle.admit(clock::now()) {
        None => return false,
        Some(0) => write(level, text),
        Some(count) => write(level, format_args!("{text} ({count} more like it before)")),
    }
    true
}

/// The time and a blank, as RFC 3339 has it: `2026-11-02T03:04:05.678+01:00 `.
fn stamp(time: &Local, millis: u64) -> String {
    let (sign, hours, minutes) = time.offset();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{millis:03}{sign}{hours:02}:{minutes:02} ",
        time.year, time.month, time.day, time.hour, time.minute, time.second
    )
}

/// Writes a line of the level `Error`.
pub fn error(text: fmt::Arguments<'_>) {
    write(Level::Error, text);
}

/// Writes a line of the level `Warning`.
pub fn warning(text: fmt::Arguments<'_>) {
    write(Level::Warning, text);
}

/// Writes a line of the level `Info`.
pub fn info(text: fmt::Arguments<'_>) {
    write(Level::Info, text);
}

/// Writes a line of the level `Debug`.
pub fn debug(text: fmt::Arguments<'_>) {
    write(Level::Debug, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_a_time_of_rfc_3339() {
        let time = Local {
            year: 2026,
            month: 11,
            day: 2,
            hour: 3,
            minute: 4,
            second: 5,
            east: 5 * 3600 + 45 * 60,
        };
        assert_eq!(stamp(&time, 6), "2026-11-02T03:04:05.006+05:45 ");
        let west = Local { east: -60, ..time };
        assert_eq!(stamp(&west, 678), "2026-11-02T03:04:05.678-00:01 ");
    }

    #[test]
    fn what_is_throttled_is_counted() {
        let throttle = Throttle::of(1);
        assert_eq!(throttle.admit(5), Some(0));
        for now in [5, 6, PAUSE + 4] {
            assert_eq!(throttle.admit(now), None);
        }
        assert_eq!(throttle.admit(PAUSE + 5), Some(3));
        assert_eq!(throttle.admit(3 * PAUSE), Some(0));
    }

    #[test]
    fn a_few_come_at_once() {
        let throttle = Throttle::of(3);
        let admitted = |now| throttle.admit(now * PAUSE).is_some();
        let told: Vec<_> = [9, 9, 9, 9, 10, 10, 11, 14, 14, 14, 14]
            .map(admitted)
            .to_vec();
        let [yes, no] = [true, false];
        assert_eq!(told, [yes, yes, yes, no, yes, no, yes, yes, yes, yes, no]);
    }

    #[test]
    fn levels_go_by_their_names() {
        for (level, name) in Level::ALL {
            assert_eq!(name.parse(), Ok(level));
            assert_eq!(level.name(), name);
        }
        let error = "loud".parse::<Level>().unwrap_err();
        assert!(error.contains("loud") && error.contains("debug"), "{error}");
    }
}
