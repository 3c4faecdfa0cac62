//! The access log: one line a request, written by a thread of its own, so that a slow terminal or
//! disk never holds a loop up. What does not fit its queue is dropped and counted.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

/// Lines that may wait to be written.
const QUEUE: usize = 8192;
/// What waits at the end gets so long to be written.
const LAST: Duration = Duration::from_secs(1);

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
    lines: ArrayQueue<String>,
    dropped: AtomicU64,
    asleep: AtomicBool,
    closed: AtomicBool,
}

impl AccessLog {
    /// Starts the writer, which writes to standard output.
    pub fn start() -> Self {
        Self::to(io::stdout())
    }

    /// Leaves the line of one request: `elapsed` is in nanoseconds.
    pub fn push(&self, host: &str, port: u16, request: &str, status: u16, elapsed: u64) {
        let ms = elapsed as f64 / 1e6;
        let line = format!("{host}:{port} - \"{request}\" {status} {ms:.2}ms\n");
        if self.shared.lines.push(line).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Lines that did not fit.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn to(sink: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            lines: ArrayQueue::new(QUEUE),
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
        let mut reported = 0;
        loop {
            let closed = self.closed.load(Ordering::SeqCst);
            while let Some(line) = self.lines.pop() {
                batch.push_str(&line);
                if batch.len() > 64 * 1024 {
                    break;
                }
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > reported {
                let count = dropped - reported;
                batch.push_str(&format!("({count} lines of the access log were dropped)\n"));
                reported = dropped;
            }
            if !batch.is_empty() {
                // A log that cannot be written must not stop the server.
                let _ = sink.write_all(batch.as_bytes()).and_then(|()| sink.flush());
                batch.clear();
                continue;
            }
            if closed {
                return;
            }
            self.asleep.store(true, Ordering::Relaxed);
            std::sync::atomic::fence(Ordering::SeqCst);
            if self.lines.is_empty() && !self.closed.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep.store(false, Ordering::Relaxed);
        }
    }
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

    #[test]
    fn all_lines_are_written_before_the_log_is_gone() {
        let sink = Sink::default();
        let log = AccessLog::to(sink.clone());
        for status in 200..300 {
            log.push("127.0.0.1", 4711, "GET / HTTP/1.1", status, 1_500_000);
        }
        drop(log);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 100);
        assert_eq!(lines[99], "127.0.0.1:4711 - \"GET / HTTP/1.1\" 299 1.50ms");
    }
}
