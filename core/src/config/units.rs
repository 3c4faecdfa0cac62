//! Durations and sizes as people write them.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

/// The longest duration that is taken: a year.
const MAX_MILLIS: u64 = 365 * 24 * 3600 * 1000;

/// Reads a duration: `90` and `90s` are seconds, `500ms`, `1m`, `2h` and `1d` what they say.
/// Fractions are taken (`0.5`, `1.5m`), down to the millisecond.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text);
    let unit = match unit {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err(UnitError::Duration),
    };
    let millis = scaled(number, unit).ok_or(UnitError::Duration)?;
    if millis > MAX_MILLIS {
        return Err(UnitError::DurationTooLong);
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes: `16384`, `16KiB`, `100MiB`, `1GiB`; `16K`, `100M`, `1G` mean the same.
/// Units of a thousand (`KB`) are refused, because they would be taken for the others.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(UnitError::Size),
    };
    scaled(number, unit).ok_or(UnitError::Size)
}

/// What was expected instead of what was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UnitError {
    /// Not a duration.
    Duration,
    /// Longer than a year.
    DurationTooLong,
    /// Not a size.
    Size,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duration => "expected a duration such as 90, 90s, 1m, 2h, 1d or 500ms",
            Self::DurationTooLong => "expected a duration of at most 365d",
            Self::Size => "expected a size such as 16384, 16KiB or 100MiB",
        })
    }
}

impl std::error::Error for UnitError {}

/// Number and unit; blanks around either do not count.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `number` x `unit` if that is a whole number: a tiny value must not become 0, which means off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let tenths = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = fraction.parse().ok()?;
    let rest = fraction * u128::from(unit);
    if !rest.is_multiple_of(tenths) {
        return None;
    }
    whole.checked_mul(unit)?.checked_add((rest / tenths) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("0", 0),
            ("90", 90_000),
            ("90s", 90_000),
            (" 90 s ", 90_000),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("500ms", 500),
            ("0.5", 500),
            ("1.5m", 90_000),
            ("0.001", 1),
            ("365d", MAX_MILLIS),
        ];
        for (text, millis) in cases {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration() {
        let cases = [
            "",
            "s",
            "-1",
            "1 minute",
            "1w",
            "1.2.3",
            ".5",
            "1.",
            "1e3",
            "+1",
            "99999999999999999999",
            "0.1234567890",
            "0.0001",
        ];
        for text in cases {
            assert_eq!(parse_duration(text), Err(UnitError::Duration), "{text}");
        }
        assert_eq!(parse_duration("366d"), Err(UnitError::DurationTooLong));
    }

    #[test]
    fn sizes() {
        let cases = [
            ("0", 0),
            ("16384", 16_384),
            ("16KiB", 16_384),
            ("16k", 16_384),
            ("16 kib", 16_384),
            ("100MiB", 104_857_600),
            ("1.5GiB", 1_610_612_736),
            ("2T", 2 << 40),
            ("12B", 12),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size() {
        let cases = [
            "",
            "KiB",
            "-1",
            "16KB",
            "1MB",
            "16Ki",
            "18446744073709551616",
            "99999999T",
            "0.1KiB",
        ];
        for text in cases {
            assert_eq!(parse_size(text), Err(UnitError::Size), "{text}");
        }
    }
}
