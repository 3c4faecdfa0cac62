//! The access log: one line a request, formatted and written by a thread of its own, so that a slow
//! terminal or disk never holds a loop up. What does not fit its queue is dropped and counted.
//!
//! A line is in the "combined" format of Apache and nginx, which every tool reads, with the seconds
//! that the request took at its end, and a word after them if the response did not come to its end.
#![forbid(unsafe_code)]

mod line;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::sys::{clock, signal, stdout};

use super::{Throttle, warning};

use line::{Times, push_escaped};

/// Lines that may wait to be written.
const QUEUE: usize = 8192;
/// And bytes of what clients have said in them.
const QUEUE_BYTES: usize = 4 << 20;
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

/// How a response ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The server broke it off.
    Cut,
    /// The client left before it had all of it.
    Left,
    /// As it should.
    Whole,
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
    /// Whether all of the response was there.
    pub end: End,
}

impl Entry {
    /// Bytes that it has from the heap.
    fn weight(&self) -> usize {
        self.said.bytes.capacity() + self.peer.as_ref().map_or(0, |peer| peer.len())
    }
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
    /// What they weigh, and those that are about to join them.
    weight: AtomicUsize,
    dropped: AtomicU64,
    asleep: AtomicBool,
    closed: AtomicBool,
}

impl AccessLog {
    /// Starts the writer, which writes to standard output.
    pub fn start() -> Self {
        Self::to(stdout::write)
    }

    /// Starts one whose lines can be read.
    #[cfg(test)]
    pub(crate) fn to_memory() -> (Self, Arc<Mutex<Vec<u8>>>) {
        let memory = Arc::<Mutex<Vec<u8>>>::default();
        let lines = memory.clone();
        let log = Self::to(move |bytes: &[u8]| {
            lines.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        });
        (log, memory)
    }

    /// Leaves one request.
    pub fn push(&self, entry: Entry) {
        self.shared.leave(entry);
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Lines that did not fit, or that could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn to(sink: impl Sink + 'static) -> Self {
        let shared = Arc::new(Shared {
            entries: ArrayQueue::new(QUEUE),
            weight: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let of_writer = shared.clone();
        let (alive, ended): (Sender<()>, _) = mpsc::channel();
        let writer = thread::Builder::new()
            .name("toolb-access-log".into())
            .spawn(move || {
                signal::survive_writes();
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
    fn leave(&self, entry: Entry) {
        let weight = entry.weight();
        let others = self.weight.fetch_add(weight, Ordering::Relaxed);
        if others + weight > QUEUE_BYTES || self.entries.push(entry).is_err() {
            self.weight.fetch_sub(weight, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self) -> Option<Entry> {
        let entry = self.entries.pop()?;
        self.weight.fetch_sub(entry.weight(), Ordering::Relaxed);
        Some(entry)
    }

    fn write_to(&self, sink: impl Sink) {
        let mut batch = String::new();
        let mut times = Times::default();
        let mut pen = Pen { sink, torn: false };
        let mut losses = Losses::default();
        loop {
            let closed = self.closed.load(Ordering::SeqCst);
            times.look();
            while let Some(entry) = self.take() {
                entry.write(&mut batch, times.at(entry.at));
                if batch.len() > 64 * 1024 {
                    break;
                }
            }
            losses.tell(self.dropped.load(Ordering::Relaxed), closed);
            if !batch.is_empty() {
                if let Err((lines, error)) = pen.write(batch.as_bytes()) {
                    // A log that cannot be written must not stop the server.
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                    losses.why = Some(error);
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

/// Takes some of the bytes it is given, and says how many.
trait Sink: FnMut(&[u8]) -> io::Result<usize> + Send {}

impl<F: FnMut(&[u8]) -> io::Result<usize> + Send> Sink for F {}

/// Writes lines, and knows whether the last one has its end.
struct Pen<S> {
    sink: S,
    /// Only a part of the last line was written.
    torn: bool,
}

impl<S: Sink> Pen<S> {
    /// Writes these lines. If not all of them were, how many and why. The next one does not go on
    /// where one was torn.
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let failed = |rest: &[u8], error| {
            let lost = rest.iter().filter(|&&byte| byte == b'\n').count();
            Err((lost as u64, error))
        };
        if self.torn
            && let Err(error) = self.put(b"\n")
        {
            return failed(lines, error);
        }
        let mut at = 0;
        while at < lines.len() {
            match self.put(&lines[at..]) {
                Ok(took) => at += took,
                Err(error) => return failed(&lines[at..], error),
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let took = (self.sink)(bytes)?;
        match bytes[..took].last() {
            Some(last) => self.torn = *last != b'\n',
            None => return Err(io::ErrorKind::WriteZero.into()),
        }
        Ok(took)
    }
}

/// What was told of lines that are not there.
#[derive(Default)]
struct Losses {
    told: u64,
    /// The error that some of those met of which nothing was told yet.
    why: Option<io::Error>,
}

impl Losses {
    /// So many are not there by now. `last`: there will be no other occasion to tell.
    fn tell(&mut self, dropped: u64, last: bool) {
        static TOLD: Throttle = Throttle::of(1);
        let count = dropped - self.told;
        // Those left out are counted already.
        if count > 0 && (last || TOLD.admit(clock::now()).is_some()) {
            warning(format_args!("{}", lost(count, self.why.take().as_ref())));
            self.told = dropped;
        }
    }
}

/// What is told of so many lines that are not there.
fn lost(count: u64, why: Option<&io::Error>) -> String {
    let (lines, they, them) = match count {
        1 => ("1 line of the access log was".to_owned(), "it", "it"),
        _ => (
            format!("{count} lines of the access log were"),
            "they",
            "them",
        ),
    };
    match why {
        Some(error) => {
            format!("{lines} dropped, as {they} could not be written to standard output: {error}")
        }
        None => format!("{lines} dropped, as {they} came faster than standard output took {them}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there is only so much room, and what was written.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn of(room: usize) -> Self {
            Self(Arc::new(Mutex::new((room, Vec::new()))))
        }

        fn grow(&self, room: usize) {
            self.0.lock().unwrap().0 += room;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }

        fn sink(&self) -> impl Sink + use<> {
            let disk = self.0.clone();
            move |bytes: &[u8]| {
                let (room, text) = &mut *disk.lock().unwrap();
                let took = bytes.len().min(*room);
                if took == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                *room -= took;
                text.extend_from_slice(&bytes[..took]);
                Ok(took)
            }
        }
    }

    pub(super) fn entry(status: u16) -> Entry {
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
            end: End::Whole,
        }
    }

    #[test]
    fn all_lines_are_written_before_the_log_is_gone() {
        let disk = Disk::of(1 << 20);
        let log = AccessLog::to(disk.sink());
        for status in 200..300 {
            log.push(entry(status));
        }
        drop(log);
        let text = disk.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 100);
        assert!(lines[99].starts_with("127.0.0.1 - - ["), "{}", lines[99]);
        assert!(lines[99].contains("\" 299 12 \""), "{}", lines[99]);
    }

    #[test]
    fn what_waits_for_a_reader_is_bounded_in_bytes_and_in_lines() {
        for (length, most) in [(1, QUEUE), (16 * 1024, QUEUE_BYTES / (16 * 1024) - 1)] {
            // Nothing is written before the test says so.
            let (stands, standing) = mpsc::channel();
            let (go, gone) = mpsc::channel::<()>();
            let log = AccessLog::to(move |bytes: &[u8]| {
                let _ = stands.send(());
                let _ = gone.recv();
                Ok(bytes.len())
            });
            let weight = || log.shared.weight.load(Ordering::Relaxed);
            let mut entry = entry(200);
            entry.said.set_line(&vec![b'x'; length]);
            log.push(entry.clone());
            standing.recv().unwrap();
            while log.dropped() == 0 {
                log.push(entry.clone());
            }
            assert_eq!((log.shared.entries.len(), log.dropped()), (most, 1));
            assert!(weight() <= QUEUE_BYTES);
            drop(go);
            while weight() > 0 {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_line_that_was_torn_is_not_continued_by_the_next() {
        let disk = Disk::of(0);
        let mut pen = Pen {
            sink: disk.sink(),
            torn: false,
        };
        let lost = |outcome: Result<(), (u64, io::Error)>| outcome.map_err(|(lost, _)| lost);
        assert_eq!(lost(pen.write(b"one\n")), Err(1));
        disk.grow(6);
        assert_eq!(lost(pen.write(b"two\nthree\nfour\n")), Err(2));
        assert_eq!(lost(pen.write(b"five\nsix\n")), Err(2));
        // There is room for the end of the torn line, and no more.
        disk.grow(1);
        assert_eq!(lost(pen.write(b"seven\n")), Err(1));
        disk.grow(100);
        assert_eq!(lost(pen.write(b"eight\n")), Ok(()));
        assert_eq!(disk.text(), "two\nth\neight\n");
    }

    #[test]
    fn what_was_lost_is_told_of_as_one_or_many() {
        let full = io::Error::from_raw_os_error(28);
        let why = "could not be written to standard output: No space left on device (os error 28)";
        assert_eq!(
            lost(1, Some(&full)),
            format!("1 line of the access log was dropped, as it {why}")
        );
        assert_eq!(
            lost(2, Some(&full)),
            format!("2 lines of the access log were dropped, as they {why}")
        );
        let text =
            "1 line of the access log was dropped, as it came faster than standard output took it";
        assert_eq!(lost(1, None), text);
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
}
