//! The access log: a line per request, written by a thread of its own.
//!
//! A loop appends lines to its [`Sink`] and flushes that once a turn, which puts all of them into a
//! bounded queue. Nothing there blocks: if the queue is full, the lines are dropped and counted.
#![forbid(unsafe_code)]

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
        mpsc,
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;

/// Batches that may wait for the writer.
const QUEUE: usize = 1024;
/// A sink that holds so many bytes flushes by itself.
const BATCH: usize = 16 * 1024;
/// The writer writes when it has so many bytes, or all there is.
const WRITE: usize = 64 * 1024;
/// While lines keep coming the writer looks every so often, and nobody has to wake it.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the writer tells of dropped lines, at most.
const REPORT: Duration = Duration::from_secs(10);

/// The log's handle: gives sinks to the loops and ends it.
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Thread,
    /// Disconnected when the writer has ended.
    ended: mpsc::Receiver<()>,
}

/// One thread's way into the log. Flushes when dropped.
pub struct Sink {
    shared: Arc<Shared>,
    writer: Thread,
    batch: Batch,
}

/// What a line tells.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The client's address as text; empty on a Unix socket.
    pub peer: &'a [u8],
    /// The client's port; 0 if it has none.
    pub port: u16,
    /// The request's method.
    pub method: &'a [u8],
    /// The request's target as it came.
    pub target: &'a [u8],
    /// The HTTP version, as in `1.1`.
    pub version: &'a str,
    /// The response's status.
    pub status: u16,
    /// From the request's head to the end of the response.
    pub duration: Duration,
}

struct Shared {
    queue: ArrayQueue<Batch>,
    /// Buffers on their way back.
    spare: ArrayQueue<Vec<u8>>,
    /// The writer is about to sleep, or does; whoever turns this off wakes it.
    asleep: AtomicBool,
    stop: AtomicBool,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl AccessLog {
    /// Starts the writer on standard output.
    pub fn start() -> io::Result<Self> {
        Self::start_on(io::stdout())
    }

    /// Starts the writer on something else.
    pub fn start_on(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(QUEUE),
            spare: ArrayQueue::new(QUEUE),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let (alive, ended) = mpsc::channel();
        let handle = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    Writer::new(&shared, output).run();
                    drop(alive);
                }
            })?;
        Ok(Self {
            shared,
            writer: handle.thread().clone(),
            ended,
        })
    }

    /// A sink for one thread.
    pub fn sink(&self) -> Sink {
        Sink {
            shared: Arc::clone(&self.shared),
            writer: self.writer.clone(),
            batch: Batch::default(),
        }
    }

    /// Lines that were lost, because the queue was full or the output failed.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes what was flushed so far and ends the writer; returns the number of dropped lines. An
    /// output that takes nothing, like a pipe nobody reads, is given up after the grace time. Lines
    /// flushed later are lost: the loops end first.
    pub fn shutdown(self, grace: Duration) -> u64 {
        self.stop();
        // Nothing is ever sent: this ends by the writer's end, or by the time.
        let _ = self.ended.recv_timeout(grace);
        self.dropped()
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.writer.unpark();
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Sink {
    /// Appends a line. It is written after the next flush.
    pub fn record(&mut self, entry: &Entry<'_>) {
        entry.append_to(&mut self.batch.bytes);
        self.batch.lines += 1;
        if self.batch.bytes.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands the lines to the writer, and wakes it if it sleeps. Called at the end of a loop's turn.
    pub fn flush(&mut self) {
        if self.batch.lines == 0 {
            return;
        }
        let spare = Batch {
            bytes: self.shared.spare.pop().unwrap_or_default(),
            lines: 0,
        };
        let batch = std::mem::replace(&mut self.batch, spare);
        if let Err(mut refused) = self.shared.queue.push(batch) {
            self.shared
                .dropped
                .fetch_add(refused.lines, Ordering::Relaxed);
            refused.bytes.clear();
            self.batch.bytes = refused.bytes;
            return;
        }
        // The writer says that it sleeps and looks at the queue then; this is the other way round.
        fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::Relaxed)
        {
            self.writer.unpark();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Entry<'_> {
    /// Appends a line like `127.0.0.1:54321 - "GET /x HTTP/1.1" 200 1.234ms`.
    pub fn append_to(&self, line: &mut Vec<u8>) {
        if self.peer.is_empty() {
            line.extend_from_slice(b"unix");
        } else if self.peer.contains(&b':') {
            line.push(b'[');
            append_escaped(line, self.peer);
            line.push(b']');
        } else {
            append_escaped(line, self.peer);
        }
        if self.port != 0 {
            line.push(b':');
            append_number(line, self.port.into(), 1);
        }
        line.extend_from_slice(b" - \"");
        append_escaped(line, self.method);
        line.push(b' ');
        append_escaped(line, self.target);
        line.extend_from_slice(b" HTTP/");
        line.extend_from_slice(self.version.as_bytes());
        line.extend_from_slice(b"\" ");
        append_number(line, self.status.into(), 3);
        line.push(b' ');
        let microseconds = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX);
        append_number(line, microseconds / 1000, 1);
        line.push(b'.');
        append_number(line, microseconds % 1000, 3);
        line.extend_from_slice(b"ms\n");
    }
}

struct Writer<'a, W> {
    shared: &'a Shared,
    output: W,
    /// What is written next.
    bytes: Vec<u8>,
    lines: u64,
    reported: u64,
    report_due: Option<Instant>,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(shared: &'a Shared, output: W) -> Self {
        Self {
            shared,
            output,
            bytes: Vec::with_capacity(WRITE + BATCH),
            lines: 0,
            reported: 0,
            report_due: None,
        }
    }

    fn run(mut self) {
        loop {
            // Before the queue: what was flushed before the stop is written.
            let stop = self.shared.stop.load(Ordering::SeqCst);
            let busy = self.drain();
            self.report(stop);
            if stop {
                return;
            }
            if busy {
                thread::park_timeout(PAUSE);
            } else {
                self.sleep();
            }
        }
    }

    /// Writes all there is; false if there was nothing.
    fn drain(&mut self) -> bool {
        let mut busy = false;
        while let Some(mut batch) = self.shared.queue.pop() {
            busy = true;
            self.bytes.extend_from_slice(&batch.bytes);
            self.lines += batch.lines;
            batch.bytes.clear();
            // More than enough of them: let this one go.
            let _ = self.shared.spare.push(batch.bytes);
            if self.bytes.len() >= WRITE {
                self.write();
            }
        }
        self.write();
        busy
    }

    fn write(&mut self) {
        if write_all(&mut self.output, &self.bytes).is_err() {
            self.shared.dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.bytes.clear();
        self.lines = 0;
    }

    fn sleep(&self) {
        self.shared.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.shared.queue.is_empty() && !self.shared.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.shared.asleep.store(false, Ordering::Relaxed);
    }

    /// Tells of dropped lines: of the first at once, of later ones now and then.
    fn report(&mut self, last: bool) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped == self.reported {
            return;
        }
        let now = Instant::now();
        if !last && self.report_due.is_some_and(|due| now < due) {
            return;
        }
        super::warning(format_args!(
            "access log: {} lines dropped, {dropped} in all; the output is too slow or closed",
            dropped - self.reported
        ));
        self.reported = dropped;
        self.report_due = Some(now + REPORT);
    }
}

/// Like `Write::write_all` and a flush, and waits for an output that somebody made non-blocking.
fn write_all(output: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match persist(|| output.write(bytes))? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    persist(|| output.flush())
}

fn persist<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

/// What could break the line or its quotes becomes `\xNN`.
fn append_escaped(line: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            line.push(byte);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let (high, low) = (byte >> 4, byte & 15);
            line.extend_from_slice(b"\\x");
            line.extend([high, low].map(|digit| DIGITS[usize::from(digit)]));
        }
    }
}

/// Appends a number with so many digits at least.
fn append_number(line: &mut Vec<u8>, mut number: u64, digits: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while number > 0 || text.len() - at < digits {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    line.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc::Sender};

    use super::*;

    const GRACE: Duration = Duration::from_secs(20);

    fn entry(target: &'static [u8]) -> Entry<'static> {
        Entry {
            peer: b"127.0.0.1",
            port: 54321,
            method: b"GET",
            target,
            version: "1.1",
            status: 200,
            duration: Duration::from_micros(1234),
        }
    }

    fn line(entry: &Entry<'_>) -> String {
        let mut line = Vec::new();
        entry.append_to(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn lines(&self) -> usize {
            let written = self.0.lock().unwrap();
            written.iter().filter(|&&byte| byte == b'\n').count()
        }
    }

    /// Takes nothing until told to.
    struct Stuck {
        entered: Sender<()>,
        go: mpsc::Receiver<()>,
        memory: Memory,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.go.recv();
            self.memory.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_tells_who_asked_what_and_how_it_went() {
        assert_eq!(
            line(&entry(b"/x?y=1")),
            "127.0.0.1:54321 - \"GET /x?y=1 HTTP/1.1\" 200 1.234ms\n"
        );
        let v6 = Entry {
            peer: b"::1",
            port: 8,
            duration: Duration::from_secs(61),
            ..entry(b"*")
        };
        assert_eq!(line(&v6), "[::1]:8 - \"GET * HTTP/1.1\" 200 61000.000ms\n");
        let unix = Entry {
            peer: b"",
            port: 0,
            status: 7,
            duration: Duration::from_nanos(45_999),
            ..entry(b"/")
        };
        assert_eq!(line(&unix), "unix - \"GET / HTTP/1.1\" 007 0.045ms\n");
    }

    #[test]
    fn a_request_cannot_forge_a_line() {
        assert_eq!(
            line(&entry(b"/\" 200\r\n\\\xff")),
            "127.0.0.1:54321 - \"GET /\\x22 200\\x0d\\x0a\\x5c\\xff HTTP/1.1\" 200 1.234ms\n"
        );
    }

    #[test]
    fn all_lines_are_written_in_the_order_of_their_sink() {
        let memory = Memory::default();
        let log = AccessLog::start_on(memory.clone()).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                let mut sink = log.sink();
                scope.spawn(move || {
                    for number in 0..5_000 {
                        sink.record(&Entry {
                            duration: Duration::from_millis(number),
                            ..entry(b"/")
                        });
                        if number % 100 == 0 {
                            sink.flush();
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(log.shutdown(GRACE), 0);
        assert_eq!(memory.lines(), 20_000);
    }

    #[test]
    fn a_sleeping_writer_is_woken() {
        let memory = Memory::default();
        let log = AccessLog::start_on(memory.clone()).unwrap();
        let mut sink = log.sink();
        for number in 1..=3 {
            let deadline = Instant::now() + GRACE;
            while !log.shared.asleep.load(Ordering::SeqCst) {
                assert!(Instant::now() < deadline, "the writer does not go to sleep");
                thread::sleep(Duration::from_millis(1));
            }
            sink.record(&entry(b"/"));
            sink.flush();
            while memory.lines() < number {
                assert!(Instant::now() < deadline, "the writer was not woken");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_blocks_nobody() {
        let memory = Memory::default();
        let (entered, is_stuck) = mpsc::channel();
        let (release, go) = mpsc::channel();
        let log = AccessLog::start_on(Stuck {
            entered,
            go,
            memory: memory.clone(),
        })
        .unwrap();
        let mut sink = log.sink();
        let mut record = |lines: usize| {
            (0..lines).for_each(|_| {
                sink.record(&entry(b"/"));
                sink.flush();
            });
        };
        record(1);
        is_stuck.recv().unwrap();
        record(QUEUE + 10);
        assert_eq!(log.dropped(), 10);
        drop(release);
        assert_eq!(log.shutdown(GRACE), 10);
        assert_eq!(memory.lines(), 1 + QUEUE);
    }

    #[test]
    fn an_output_that_takes_nothing_does_not_hold_up_the_end() {
        let (entered, is_stuck) = mpsc::channel();
        let (_release, go) = mpsc::channel();
        let log = AccessLog::start_on(Stuck {
            entered,
            go,
            memory: Memory::default(),
        })
        .unwrap();
        let mut sink = log.sink();
        sink.record(&entry(b"/"));
        drop(sink);
        is_stuck.recv().unwrap();
        assert_eq!(log.shutdown(Duration::from_millis(20)), 0);
    }

    #[test]
    fn an_output_that_does_not_block_is_waited_for() {
        struct Hesitant(Memory, u32);
        impl Write for Hesitant {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => self.0.write(&bytes[..bytes.len().min(50)]),
                    1 => Err(ErrorKind::WouldBlock.into()),
                    _ => Err(ErrorKind::Interrupted.into()),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let log = AccessLog::start_on(Hesitant(memory.clone(), 0)).unwrap();
        let mut sink = log.sink();
        for _ in 0..3 {
            sink.record(&entry(b"/"));
        }
        drop(sink);
        assert_eq!(log.shutdown(GRACE), 0);
        assert_eq!(memory.lines(), 3);
    }

    #[test]
    fn an_output_that_fails_loses_lines_and_counts_them() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = AccessLog::start_on(Closed).unwrap();
        let mut sink = log.sink();
        sink.record(&entry(b"/"));
        sink.record(&entry(b"/"));
        sink.flush();
        assert_eq!(log.shutdown(GRACE), 2);
    }
}
