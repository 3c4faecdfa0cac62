//! A line of the access log, in the "combined" format of Apache and nginx.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::sys::clock::{self, Local};

use super::{End, Entry};

impl Entry {
    /// Appends its line.
    pub(super) fn write(&self, line: &mut String, time: &str) {
        line.push_str(self.peer.as_deref().unwrap_or("unix:"));
        line.push_str(" - - [");
        line.push_str(time);
        line.push_str("] \"");
        push_quoted(line, self.said.line());
        // Writing to a string does not fail.
        let _ = write!(line, "\" {} {} \"", self.status, self.bytes);
        push_quoted(line, self.said.referer());
        line.push_str("\" \"");
        push_quoted(line, self.said.user_agent());
        let seconds = self.elapsed as f64 / 1e9;
        let _ = writeln!(line, "\" {seconds:.6}{}", self.end.mark());
    }
}

impl End {
    /// What stands at the end of a line.
    fn mark(self) -> &'static str {
        match self {
            Self::Cut => " cut",
            Self::Left => " left",
            Self::Whole => "",
        }
    }
}

/// What stands between quotes; `-` if there is nothing. Quotes, and what no log should hold, as nginx
/// writes it: `\x22`.
fn push_quoted(line: &mut String, bytes: &[u8]) {
    match bytes.is_empty() {
        true => line.push('-'),
        false => push_escaped(line, bytes),
    }
}

pub(super) fn push_escaped(line: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | ..=0x1F | 0x7F.. => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            _ => line.push(char::from(byte)),
        }
    }
}

/// From the clock of deadlines to the time of the day, formatted once a second.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// What the clock of deadlines lags behind the other one.
    behind: u64,
    second: u64,
    text: String,
}

impl Times {
    /// Looks at both clocks: the time of the day can be set.
    pub(super) fn look(&mut self) {
        self.behind = clock::unix_nanos().wrapping_sub(clock::now());
    }

    pub(super) fn at(&mut self, instant: u64) -> &str {
        let second = instant.wrapping_add(self.behind) / 1_000_000_000;
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = clf(&clock::local(second));
        }
        &self.text
    }
}

/// As Apache writes it: `10/Oct/2000:13:55:36 -0700`.
fn clf(time: &Local) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = usize::from(time.month).clamp(1, 12) - 1;
    let (sign, hours, minutes) = time.offset();
    format!(
        "{:02}/{}/{}:{:02}:{:02}:{:02} {sign}{hours:02}{minutes:02}",
        time.day, MONTHS[month], time.year, time.hour, time.minute, time.second
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    fn line(entry: &Entry) -> String {
        let mut line = String::new();
        entry.write(&mut line, "10/Oct/2000:13:55:36 -0700");
        line
    }

    #[test]
    fn a_line_is_in_the_combined_format_with_the_time_it_took() {
        assert_eq!(
            line(&entry(200)),
            "127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 12 \"http://x/\" \
             \"curl/8\" 0.001500\n"
        );
    }

    #[test]
    fn a_response_without_its_end_is_marked_after_all_the_rest() {
        let marked = |end| line(&Entry { end, ..entry(200) });
        assert!(marked(End::Whole).ends_with("\"curl/8\" 0.001500\n"));
        assert!(marked(End::Cut).ends_with("\"curl/8\" 0.001500 cut\n"));
        assert!(marked(End::Left).ends_with("\"curl/8\" 0.001500 left\n"));
    }

    #[test]
    fn what_is_missing_is_a_dash() {
        let mut entry = entry(400);
        entry.said.clear();
        entry.peer = None;
        assert_eq!(
            line(&entry),
            "unix: - - [10/Oct/2000:13:55:36 -0700] \"-\" 400 12 \"-\" \"-\" 0.001500\n"
        );
        entry.said.set_line(b"GET /");
        assert!(line(&entry).contains("\"GET /\" 400 12 \"-\" \"-\""));
        entry.said.set_fields(b"", b"agent");
        assert!(line(&entry).contains("\"GET /\" 400 12 \"-\" \"agent\""));
    }

    #[test]
    fn nothing_a_client_says_can_end_a_line_or_a_quote() {
        let mut entry = entry(200);
        entry.said.set_line(b"GET /\xE4\" HTTP/1.1");
        entry.said.set_fields(b"a\\b", b"\x1b[31m\n\" 200 0");
        assert!(line(&entry).ends_with(
            "\"GET /\\xE4\\x22 HTTP/1.1\" 200 12 \"a\\x5Cb\" \"\\x1B[31m\\x0A\\x22 200 0\" 0.001500\n"
        ));
        assert_eq!(line(&entry).lines().count(), 1);
    }

    #[test]
    fn times_have_their_offset() {
        let time = Local {
            year: 2026,
            month: 11,
            day: 2,
            hour: 3,
            minute: 4,
            second: 5,
            east: -(3 * 3600 + 30 * 60),
        };
        assert_eq!(clf(&time), "02/Nov/2026:03:04:05 -0330");
    }
}
