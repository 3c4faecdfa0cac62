//! What application code on a loop may do besides answering: timers and watched descriptors.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::sys::clock;
use crate::sys::epoll::{self, Epoll};

use super::event_loop::{Loop, TAG_WATCH};
use super::slab::Slab;
use super::stream::Streams;
use super::timers::Timers;

/// The loop that application code runs on, lent to it for one callback.
pub struct Context<'a> {
    index: u16,
    now: u64,
    epoll: &'a Epoll,
    calls: &'a mut Calls,
}

impl<'a> Context<'a> {
    #[inline]
    pub(super) fn new(index: u16, now: u64, epoll: &'a Epoll, calls: &'a mut Calls) -> Self {
        Self {
            index,
            now,
            epoll,
            calls,
        }
    }
}

impl Context<'_> {
    /// Runs `run` on this loop once `after` has passed, counted from this call, and never before.
    ///
    /// Timers fire in the order of their deadlines, those of one deadline in the order in which they
    /// were started. One that is still waiting when the loop ends is dropped without being run.
    pub fn timer(
        &mut self,
        after: Duration,
        run: impl FnOnce(&mut Context<'_>) + 'static,
    ) -> TimerId {
        let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let deadline = clock::now().saturating_add(after);
        TimerId(self.calls.timers.start(deadline, Box::new(run)))
    }

    /// Drops a timer of this loop. False: it has fired, or was cancelled before.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        let cancelled = self.calls.timers.cancel(id.0);
        let found = cancelled.is_some();
        self.let_go(cancelled);
        found
    }

    /// Runs `run` on this loop in every turn in which `fd` is ready for `interest`, until `unwatch`.
    ///
    /// Readiness is a state, not a change: what is not read is reported again. An error or a hang-up
    /// is always reported, and again until `unwatch`. The loop watches a duplicate of the
    /// descriptor: `fd` may be closed at any time, though what is behind it stays open, and is
    /// watched, until `unwatch`. What is watched when the loop ends is dropped.
    pub fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        run: impl FnMut(&mut Context<'_>, Ready) + 'static,
    ) -> io::Result<WatchId> {
        let fd = match fd.try_clone_to_owned() {
            Ok(fd) => fd,
            Err(error) => {
                self.let_go(run);
                return Err(error);
            }
        };
        let key = self.calls.watches.insert(Watch { fd, run: None });
        // The key was just handed out, so the watch is there.
        let Some(watch) = self.calls.watches.get_mut(key) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        watch.run = Some(Box::new(run));
        match self.epoll.add(&watch.fd, TAG_WATCH | key, interest.flags()) {
            Ok(()) => Ok(WatchId(key)),
            Err(error) => {
                let refused = self.calls.watches.remove(key);
                self.let_go(refused);
                Err(error)
            }
        }
    }

    /// Ends a watch of this loop; its function is not called again. False: it was ended before.
    pub fn unwatch(&mut self, id: WatchId) -> bool {
        let Some(watch) = self.calls.watches.remove(id.0) else {
            return false;
        };
        let _ = self.epoll.delete(&watch.fd);
        self.let_go(watch);
        true
    }

    /// The raw connections of this loop, of all services.
    pub fn streams(&mut self) -> &mut Streams {
        &mut self.calls.streams
    }

    /// Which of the engine's loops this is, counted from 0.
    pub fn loop_index(&self) -> u16 {
        self.index
    }

    /// The time of this turn of the loop: nanoseconds of the monotonic clock.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Drops what the application gave: it may hold timers and watches, which end with it.
    pub(super) fn let_go<T>(&mut self, kept: T) {
        let let_go = self.calls.let_go;
        let mut kept = Some(kept);
        let_go(self, &mut || drop(kept.take()));
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("index", &self.index)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// Names a timer on its loop.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TimerId(u64);

impl TimerId {
    /// As a number, for those who keep it outside of Rust.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// From its number. One that was never handed out names nothing.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// Names a watched descriptor on its loop.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct WatchId(u64);

impl WatchId {
    /// As a number, for those who keep it outside of Rust.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// From its number. One that was never handed out names nothing.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interest {
    /// Reading and writing.
    Both,
    /// Something to read, or the end of it.
    Read,
    /// Room to write.
    Write,
}

impl Interest {
    fn flags(self) -> u32 {
        match self {
            Self::Both => epoll::IN | epoll::OUT,
            Self::Read => epoll::IN,
            Self::Write => epoll::OUT,
        }
    }
}

/// What a watched descriptor is ready for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ready {
    /// There is something to read, be it the end.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// It has an error, or the other side has hung up.
    pub error: bool,
}

/// Calls a function that drops code of the application on the loop, which that code may use once
/// more: for those who find the loop by other ways than through their arguments.
pub type LetGo = fn(&mut Context<'_>, drop: &mut dyn FnMut());

type OnTimer = Box<dyn FnOnce(&mut Context<'_>)>;
type OnReady = Box<dyn FnMut(&mut Context<'_>, Ready)>;

/// The callbacks that wait on a loop.
pub(super) struct Calls {
    pub(super) timers: Timers<OnTimer>,
    watches: Slab<Watch>,
    pub(super) streams: Streams,
    pub(super) let_go: LetGo,
}

impl Calls {
    pub(super) fn new(streams: Streams, let_go: LetGo) -> Self {
        Self {
            timers: Timers::new(),
            watches: Slab::new(),
            streams,
            let_go,
        }
    }
}

struct Watch {
    fd: OwnedFd,
    /// `None` while it runs.
    run: Option<OnReady>,
}

impl Loop {
    /// The loop as a callback sees it.
    pub(super) fn context(&mut self) -> Context<'_> {
        Context::new(self.index, self.now, &self.epoll, &mut self.calls)
    }

    /// Runs the timers whose time has come.
    pub(super) fn fire_timers(&mut self) {
        let mark = self.calls.timers.mark();
        while let Some(run) = self.calls.timers.pop_due(self.now, mark) {
            run(&mut self.context());
        }
    }

    /// A watched descriptor is ready; or it was, for a watch that has ended in this turn.
    pub(super) fn watch_event(&mut self, key: u64, flags: u32) {
        let ready = Ready {
            readable: flags & (epoll::IN | epoll::HUP) != 0,
            writable: flags & epoll::OUT != 0,
            error: flags & (epoll::ERR | epoll::HUP) != 0,
        };
        let watch = self.calls.watches.get_mut(key);
        let Some(mut run) = watch.and_then(|watch| watch.run.take()) else {
            return;
        };
        run(&mut self.context(), ready);
        match self.calls.watches.get_mut(key) {
            Some(watch) => watch.run = Some(run),
            None => self.context().let_go(run),
        }
    }
}
