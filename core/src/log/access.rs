//! The access log: one line a request, formatted and written by a thread of its own, so that a slow
//! terminal or disk never holds a loop up. What does not fit its queue is dropped and counted.
//!
//! A line is in the "combined" format of Apache and nginx, which every tool reads, with the seconds
//! that the request took at its end.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::sys::clock::{self, Local};

use super::{Level, Throttle, limited};

/// Lines that may wait to be written.
const QUEUE: usize = 8192;
/// What waits at the end gets so long to be written.
const LAST: Duration = Duration::from_secs(1);

/// So much of a target is repeated in a line of the other log.
const TARGET: usize = 200;

/// What a client has said, as far as a log repeats it: the request line, and what it came from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said {
    bytes: Vec<u8>,
    line: usize,
    referer: usize,
}

impl Said {
    /// Nothing, in the same memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.line, self.referer) = (0, 0);
    }

    /// The request line, or what is known of it.
    #[inline]
    pub fn set_line(&mut self, line: &[u8]) {
        self.clear();
        self.bytes.extend_from_slice(line);
        self.line = line.len();
    }

    /// The fields, after the line.
    pub fn set_fields(&mut self, referer: &[u8], user_agent: &[u8]) {
        self.bytes.truncate(self.line);
        self.bytes.extend_from_slice(referer);
        self.referer = self.bytes.len();
        self.bytes.extend_from_slice(user_agent);
    }

    /// The request line, empty if there was none.
    pub fn line(&self) -> &[u8] {
        &self.bytes[..self.line]
    }

    /// Method and target, as far as they are known and fit a line.
    pub fn request(&self) -> String {
        let mut words = self.line().split(|&byte| byte == b' ');
        let (method, target) = (words.next(), words.next());
        let mut text = String::new();
        if let (Some(method), Some(target)) = (method, target) {
            push_escaped(&mut text, method);
            text.push(' ');
            push_escaped(&mut text, &target[..target.len().min(TARGET)]);
        }
        text
    }

    fn referer(&self) -> &[u8] {
        self.bytes.get(self.line..self.referer).unwrap_or_default()
    }

    fn user_agent(&self) -> &[u8] {
        let start = self.referer.max(self.line);
        &self.bytes[start..]
    }
}

/// A request that is over.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The address of the client; `None` on a Unix socket.
    pub peer: Option<Box<str>>,
    /// What it said.
    pub said: Said,
    /// The status of the response.
    pub status: u16,
    /// Bytes of its body.
    pub bytes: u64,
    /// When it was over, on the clock of deadlines.
    pub at: u64,
    /// How long it took, in nanoseconds.
    pub elapsed: u64,
}

/// Where loops leave the lines of their requests.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Option<Thread>,
    /// Hangs up when the writer has ended.
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
struct Shared {
    entries: ArrayQueue<Entry>,
    dropped: AtomicU64,
    asleep: AtomicBool,
    closed: AtomicBool,
}

impl AccessLog {
    /// Starts the writer, which writes to standard output.
    pub fn start() -> Self {
        Self::to(io::stdout())
    }

    /// Leaves one request.
    pub fn push(&self, entry: Entry) {
        if self.shared.entries.push(entry).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Lines that did not fit, or that could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn to(sink: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            entries: ArrayQueue::new(QUEUE),
            dropped: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let of_writer = shared.clone();
        let (alive, ended): (Sender<()>, _) = mpsc::channel();
        let writer = thread::Builder::new()
            .name("toolb-access-log".into())
            .spawn(move || {
                of_writer.write_to(sink);
                drop(alive);
            })
            .ok();
        Self {
            shared,
            writer: writer.map(|writer| writer.thread().clone()),
            ended: Mutex::new(ended),
        }
    }

    fn wake(&self) {
        if let Some(writer) = &self.writer {
            writer.unpark();
        }
    }
}

impl Drop for AccessLog {
    /// Writes what waits, unless nobody reads it.
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.wake();
        if let Ok(ended) = self.ended.get_mut() {
            let _ = ended.recv_timeout(LAST);
        }
    }
}

impl Shared {
    fn write_to(&self, mut sink: impl Write) {
        let mut batch = String::new();
        let mut times = Times::default();
        let mut reported = 0;
        loop {
            let closed = self.closed.load(Ordering::SeqCst);
            times.look();
            while let Some(entry) = self.entries.pop() {
                entry.write(&mut batch, times.at(entry.at));
                if batch.len() > 64 * 1024 {
                    break;
                }
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > reported {
                static TOLD: Throttle = Throttle::new();
                let count = dropped - reported;
                let text = format_args!("{count} lines of the access log were dropped");
                if limited(&TOLD, Level::Warning, text) {
                    reported = dropped;
                }
            }
            if !batch.is_empty() {
                let written = sink.write_all(batch.as_bytes()).and_then(|()| sink.flush());
                if written.is_err() {
                    // A log that cannot be written must not stop the server.
                    let lines = batch.lines().count() as u64;
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                }
                batch.clear();
                continue;
            }
            if closed {
                return;
            }
            self.asleep.store(true, Ordering::Relaxed);
            std::sync::atomic::fence(Ordering::SeqCst);
            if self.entries.is_empty() && !self.closed.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep.store(false, Ordering::Relaxed);
        }
    }
}

impl Entry {
    /// Appends its line.
    fn write(&self, line: &mut String, time: &str) {
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
        let _ = writeln!(line, "\" {seconds:.6}");
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

fn push_escaped(line: &mut String, bytes: &[u8]) {
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
struct Times {
    /// What the clock of deadlines lags behind the other one.
    behind: u64,
    second: u64,
    text: String,
}

impl Times {
    /// Looks at both clocks: the time of the day can be set.
    fn look(&mut self) {
        self.behind = clock::unix_nanos().wrapping_sub(clock::now());
    }

    fn at(&mut self, instant: u64) -> &str {
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
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn entry(status: u16) -> Entry {
        let mut said = Said::default();
        said.set_line(b"GET / HTTP/1.1");
        said.set_fields(b"http://x/", b"curl/8");
        Entry {
            peer: Some("127.0.0.1".into()),
            said,
            status,
            bytes: 12,
            at: clock::now(),
            elapsed: 1_500_000,
        }
    }

    fn line(entry: &Entry) -> String {
        let mut line = String::new();
        entry.write(&mut line, "10/Oct/2000:13:55:36 -0700");
        line
    }

    #[test]
    fn all_lines_are_written_before_the_log_is_gone() {
        let sink = Sink::default();
        let log = AccessLog::to(sink.clone());
        for status in 200..300 {
            log.push(entry(status));
        }
        drop(log);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 100);
        assert!(lines[99].starts_with("127.0.0.1 - - ["), "{}", lines[99]);
        assert!(lines[99].contains("\" 299 12 \""), "{}", lines[99]);
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
    fn the_request_is_named_without_its_version() {
        let mut said = Said::default();
        assert_eq!(said.request(), "");
        said.set_line(b"GET /a\"b HTTP/1.1");
        assert_eq!(said.request(), "GET /a\\x22b");
        said.set_line(format!("GET {}", "x".repeat(1000)).as_bytes());
        assert_eq!(said.request().len(), "GET ".len() + TARGET);
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
