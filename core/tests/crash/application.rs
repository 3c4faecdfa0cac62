//! The consumer process: writes down what reaches it, answers in several ways, and falls where it is
//! told to.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use toolb_core::consumer::{Consumer, ConsumerOptions, ControlEvent, Event, ExchangeId, Request};
use toolb_core::consumer::{RespondError, Sent};
use toolb_core::sys::crash;
use toolb_core::sys::epoll::{self, Epoll, Events};

use super::{checksum, pattern};

/// Where the process writes what it has seen.
pub(crate) const DIARY: &str = "TOOLB_CRASH_DIARY";
/// Bytes of the body of a stream, and of each of its parts.
pub(crate) const STREAM: usize = 60_000;
const PART: usize = 6000;
/// Long enough for what waits behind it to be called back.
const SLOW: Duration = Duration::from_millis(4);

/// Serves until it is told to leave, or falls.
pub(crate) fn run(bus: &str) {
    let diary = env::var_os(DIARY).unwrap();
    let options = ConsumerOptions {
        slots: 64,
        concurrency: 32,
        window: 8,
        timeout: Duration::from_secs(60),
        ..ConsumerOptions::default()
    };
    let consumer = Consumer::attach(bus, &options).unwrap();
    consumer.ready();
    let mut application = Application {
        consumer,
        diary: Diary::open(Path::new(&diary)),
        tasks: HashMap::new(),
        leaving: false,
    };
    application.serve();
}

struct Application {
    consumer: Consumer,
    diary: Diary,
    tasks: HashMap<ExchangeId, Task>,
    leaving: bool,
}

/// An exchange that is not over.
enum Task {
    /// Answers some turns later.
    Hold { name: String, turns: u32 },
    /// Sends part after part.
    Stream { body: Vec<u8>, sent: usize },
    /// Has answered and goes on for a while.
    Tail,
    /// Reads a body.
    Upload { name: String, len: usize, sum: u64 },
    /// The engine is to take something first.
    Waits(Box<Task>),
}

impl Application {
    fn serve(&mut self) {
        let epoll = Epoll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let bell = self.consumer.fd().as_raw_fd();
        epoll.add(&bell, 1, epoll::IN | epoll::EDGE).unwrap();
        let socket = self.consumer.control_fd().as_raw_fd();
        epoll.add(&socket, 2, epoll::IN).unwrap();
        let mut batch = Vec::new();
        while !self.leaving || self.consumer.in_flight() > 0 {
            let timeout = match self.is_busy() {
                true => Some(Duration::from_millis(1)),
                false if self.consumer.arm() => None,
                false => Some(Duration::ZERO),
            };
            epoll.wait(&mut events, timeout).unwrap();
            self.consumer.disarm();
            if events.iter().any(|(token, _)| token == 2) {
                match self.consumer.control().unwrap() {
                    ControlEvent::Drain { .. } => self.leaving = true,
                    ControlEvent::HangUp => return,
                    ControlEvent::Error(why) => panic!("the engine complains: {why}"),
                    ControlEvent::None => {}
                }
            }
            self.consumer.poll(64, &mut batch).unwrap();
            for event in batch.drain(..) {
                self.take(event);
            }
            self.go_on();
            self.consumer.flush(self.is_busy());
        }
        self.consumer.drained();
    }

    fn is_busy(&self) -> bool {
        let waits = |task: &Task| matches!(task, Task::Upload { .. } | Task::Waits(_));
        !self.tasks.values().all(waits)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Request {
                id,
                request,
                more_body,
            } => {
                let name = String::from_utf8(request.query().to_vec()).unwrap();
                self.diary.note("about to start", &name);
                if !self.consumer.start(id) {
                    return self.diary.note("called back", &name);
                }
                self.diary.note("runs", &name);
                crash::point("running");
                self.begin(id, name, &request, more_body);
            }
            Event::Stream { .. } => unreachable!("it takes no streams"),
            Event::Body { id, data, end } => {
                self.consumer.consumed(id, data.len());
                if let Some(Task::Upload { len, sum, .. }) = self.tasks.get_mut(&id) {
                    *len += data.len();
                    *sum = checksum(&data, *sum);
                }
                if end {
                    self.end_upload(id);
                }
            }
            Event::Disconnected { id } => {
                self.tasks.remove(&id);
                self.consumer.done(id);
            }
            Event::RequestAborted { id } => {
                self.tasks.remove(&id);
                self.consumer.abort(id);
            }
            Event::Writable { id } => {
                if let Some(Task::Waits(task)) = self.tasks.remove(&id) {
                    self.tasks.insert(id, *task);
                }
            }
        }
    }

    fn begin(&mut self, id: ExchangeId, name: String, request: &Request, more_body: bool) {
        match request.path() {
            b"/quick" => self.answer(id, name.as_bytes()),
            b"/slow" => {
                // not-sync: the handler is slow on purpose
                std::thread::sleep(SLOW);
                self.answer(id, name.as_bytes());
            }
            b"/hold" => {
                self.tasks.insert(id, Task::Hold { name, turns: 4 });
            }
            b"/tail" => {
                let sent = self.respond(id, name.as_bytes(), true, false);
                // A client that has left meanwhile is told of by the next poll.
                if sent.is_ok() {
                    self.tasks.insert(id, Task::Tail);
                }
            }
            b"/stream" => {
                if self.respond(id, b"", false, false).is_ok() {
                    let body = pattern(&name, STREAM);
                    self.tasks.insert(id, Task::Stream { body, sent: 0 });
                }
            }
            b"/upload" => {
                let body = request.body();
                self.consumer.consumed(id, body.len());
                let (len, sum) = (body.len(), checksum(body, 0));
                self.tasks.insert(id, Task::Upload { name, len, sum });
                if !more_body {
                    self.end_upload(id);
                }
            }
            other => panic!("nobody asks for {other:?}"),
        }
    }

    /// A turn for everyone who does not wait.
    fn go_on(&mut self) {
        let ids: Vec<_> = self.tasks.keys().copied().collect();
        for id in ids {
            let Some(task) = self.tasks.remove(&id) else {
                continue;
            };
            if let Some(task) = self.step(id, task) {
                self.tasks.insert(id, task);
            }
        }
    }

    fn step(&mut self, id: ExchangeId, task: Task) -> Option<Task> {
        match task {
            Task::Hold { name, turns: 0 } => {
                self.answer(id, name.as_bytes());
                None
            }
            Task::Hold { name, turns } => Some(Task::Hold {
                name,
                turns: turns - 1,
            }),
            Task::Tail => {
                crash::point("ended");
                self.consumer.done(id);
                None
            }
            Task::Stream { body, sent } => {
                let part = &body[sent..body.len().min(sent + PART)];
                let end = sent + part.len() == body.len();
                let outcome = self.consumer.respond_body(id, part, end, end);
                let sent = sent + part.len();
                if sent >= 2 * PART {
                    crash::point("streaming");
                }
                match outcome {
                    Ok(_) if end => None,
                    Ok(Sent::Below) => Some(Task::Stream { body, sent }),
                    Ok(Sent::Above) => Some(Task::Waits(Box::new(Task::Stream { body, sent }))),
                    Err(_) => None,
                }
            }
            waits @ (Task::Upload { .. } | Task::Waits(_)) => Some(waits),
        }
    }

    fn end_upload(&mut self, id: ExchangeId) {
        if let Some(Task::Upload { name, len, sum }) = self.tasks.remove(&id) {
            self.answer(id, format!("{name} {len} {sum:x}").as_bytes());
        }
    }

    /// All of an answer, and the end.
    fn answer(&mut self, id: ExchangeId, body: &[u8]) {
        // Whoever has left meanwhile is told of by the next poll; `done` was taken note of.
        let _ = self.respond(id, body, true, true);
    }

    fn respond(
        &mut self,
        id: ExchangeId,
        body: &[u8],
        end: bool,
        done: bool,
    ) -> Result<Sent, RespondError> {
        let none = std::iter::empty();
        self.consumer
            .respond_head(id, 200, -1, none, body, end, done)
    }
}

/// What happened in this process, one line each, on disk when the call returns.
struct Diary(File);

impl Diary {
    fn open(path: &Path) -> Self {
        Self(File::options().append(true).open(path).unwrap())
    }

    fn note(&mut self, what: &str, name: &str) {
        let line = format!("{} {name} {what}\n", std::process::id());
        assert_eq!(self.0.write(line.as_bytes()).unwrap(), line.len());
    }
}
