//! Floor 1: log sinks.
#![forbid(unsafe_code)]

pub mod access;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

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

/// Writes `text`, line ends included, in the same way, whatever the level.
pub fn say(text: &str) {
    stderr::write(text);
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
    fn levels_go_by_their_names() {
        for (level, name) in Level::ALL {
            assert_eq!(name.parse(), Ok(level));
            assert_eq!(level.name(), name);
        }
        let error = "loud".parse::<Level>().unwrap_err();
        assert!(error.contains("loud") && error.contains("debug"), "{error}");
    }
}
