//! Floor 1: log sinks.
//!
//! What the server has to say goes through [`Logger`], a line at a time and at once, to standard
//! error. Requests go through [`access::AccessLog`], in batches and never in the way, to standard
//! output.
#![forbid(unsafe_code)]

use std::{
    fmt::{self, Display, Write as _},
    io::{IsTerminal, Write as _},
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub mod access;

/// How much a line matters; the greater, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The server cannot go on.
    Critical,
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warning,
    /// What the server is up to.
    Info,
    /// For finding out what goes wrong.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All levels, from the one that matters most.
    pub const ALL: [Self; 6] = [
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// The level's name, as it is written and read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The escape sequence that colours it.
    fn colour(self) -> &'static str {
        match self {
            Self::Critical => "\x1b[1;31m",
            Self::Error => "\x1b[31m",
            Self::Warning => "\x1b[33m",
            Self::Info => "\x1b[32m",
            Self::Debug => "\x1b[36m",
            Self::Trace => "\x1b[34m",
        }
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(name))
            .ok_or(UnknownLevel)
    }
}

/// No level has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLevel;

impl Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a log level; there are critical, error, warning, info, debug and trace")
    }
}

impl std::error::Error for UnknownLevel {}

/// Writes lines like `2026-11-21 10:00:00.123 [info] text`, in UTC, to standard error. There is one
/// for the process, see [`logger`].
#[derive(Debug)]
pub struct Logger {
    level: AtomicU8,
    coloured: bool,
}

/// The process's logger.
pub fn logger() -> &'static Logger {
    static LOGGER: LazyLock<Logger> = LazyLock::new(|| Logger {
        level: AtomicU8::new(Level::Info as u8),
        coloured: allows_colour(&std::io::stderr()),
    });
    &LOGGER
}

/// Whether what is written there should be coloured: a terminal, and `NO_COLOR` is not set.
pub fn allows_colour(stream: &impl IsTerminal) -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal()
}

impl Logger {
    /// Writes lines of this level and of those that matter more. Info, until set.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// Whether lines of that level are written; to spare the work of making one.
    pub fn is_enabled(&self, level: Level) -> bool {
        level as u8 <= self.level.load(Ordering::Relaxed)
    }

    /// Writes a line, if its level is enabled. Line breaks and other control characters in the text
    /// are escaped, so a line is a line.
    pub fn log(&self, level: Level, text: impl Display) {
        if !self.is_enabled(level) {
            return;
        }
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let line = format_line(since_epoch, level, self.coloured, text);
        // In one piece, so that lines of several processes do not mix. Nobody to tell if it fails.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Logs that the server cannot go on.
pub fn critical(text: impl Display) {
    logger().log(Level::Critical, text);
}

/// Logs a failure.
pub fn error(text: impl Display) {
    logger().log(Level::Error, text);
}

/// Logs something that is not as it should be.
pub fn warning(text: impl Display) {
    logger().log(Level::Warning, text);
}

/// Logs what the server is up to.
pub fn info(text: impl Display) {
    logger().log(Level::Info, text);
}

/// Logs what helps to find out what goes wrong.
pub fn debug(text: impl Display) {
    logger().log(Level::Debug, text);
}

/// Logs whatever happens.
pub fn trace(text: impl Display) {
    logger().log(Level::Trace, text);
}

fn format_line(since_epoch: Duration, level: Level, coloured: bool, text: impl Display) -> String {
    let mut line = String::with_capacity(128);
    let (colour, plain) = if coloured {
        (level.colour(), "\x1b[0m")
    } else {
        ("", "")
    };
    // Writing to a string fails only if the text's own formatting does; then half a line is better
    // than none.
    let _ = write!(line, "{} [{colour}{level}{plain}] ", Utc(since_epoch));
    let _ = write!(Escaped(&mut line), "{text}");
    line.push('\n');
    line
}

/// A time since 1970, written as date and time of day.
struct Utc(Duration);

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}",
            self.0.subsec_millis()
        )
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(day: u64) -> (u64, u64, u64) {
    // Years that begin in March have the leap day at their end; 400 of them are 146,097 days.
    // See "chrono-Compatible Low-Level Date Algorithms" by Howard Hinnant, civil_from_days.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next_year, month, day_of_month)
}

/// Escapes control characters on the way.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(|c: char| c.is_control() && c != '\t') {
            match part.char_indices().next_back() {
                Some((at, last)) if last.is_control() && last != '\t' => {
                    self.0.push_str(&part[..at]);
                    self.0.extend(last.escape_default());
                }
                _ => self.0.push_str(part),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_date_level_and_text() {
        let time = Duration::from_millis(1_795_255_200_123);
        assert_eq!(
            format_line(time, Level::Info, false, "started"),
            "2026-11-21 10:00:00.123 [info] started\n"
        );
        assert_eq!(
            format_line(time, Level::Error, true, "failed"),
            "2026-11-21 10:00:00.123 [\x1b[31merror\x1b[0m] failed\n"
        );
    }

    #[test]
    fn a_line_stays_a_line() {
        let line = format_line(
            Duration::ZERO,
            Level::Warning,
            false,
            "a\nb\r\n\tc \x1b[31m\u{85}ü",
        );
        assert_eq!(
            line,
            "1970-01-01 00:00:00.000 [warning] a\\nb\\r\\n\tc \\u{1b}[31m\\u{85}ü\n"
        );
    }

    #[test]
    fn dates_are_right_at_the_edges() {
        for (day, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (10_956, (1999, 12, 31)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn levels_are_read_as_they_are_written() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!("INFO".parse(), Ok(Level::Info));
        assert_eq!("loud".parse::<Level>(), Err(UnknownLevel));
    }

    #[test]
    fn a_level_enables_those_that_matter_more() {
        let logger = Logger {
            level: AtomicU8::new(0),
            coloured: false,
        };
        logger.set_level(Level::Warning);
        let enabled = Level::ALL.map(|level| logger.is_enabled(level));
        assert_eq!(enabled, [true, true, true, false, false, false]);
    }
}
