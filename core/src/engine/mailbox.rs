//! Letters to a loop from other loops and from the control thread.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::bus;
use crate::dispatch::{Reservation, Ticket};
use crate::sys::eventfd::EventFd;

use super::file_desk::{Handed, ReadPart};
use super::lane::LaneHandle;
use super::token::{Desk, Outbox};

/// What can be said to a loop.
pub(super) enum Letter {
    /// A waiting exchange of the receiver has got room.
    Granted(Arc<Ticket>, Reservation),
    /// A consumer has attached and is ready.
    LaneUp(Arc<LaneHandle>),
    /// A consumer has died or left: drain what it published, then settle the rest.
    LaneDown(Arc<LaneHandle>),
    /// Something waits in the pool's queue that the receiver may have room for.
    Pump,
    /// A consumer has sent the file of a response: slot, generation, and the file.
    File(Arc<LaneHandle>, u16, u32, Handed),
    /// A file thread has read a part.
    FilePart(ReadPart),
    /// The holder of a token has written something.
    Token(Arc<Outbox>),
    /// Nobody goes on with what is left: answer it, or break it off.
    Cut,
    /// Nobody comes for what waits for a consumer: answer it.
    Forgo,
    /// Accept no more, finish what was accepted, close each connection after its next answer.
    Drain,
    /// End now.
    Stop,
}

/// The letters of one loop.
///
/// Letters are rare (room for a queued exchange of another loop, consumers that come and go) or come
/// from other threads anyway (answers by token), so a mutex serves; a loop that has no letters pays
/// one relaxed load a turn.
pub(super) struct Mailbox {
    /// `None` once the loop has ended.
    letters: Mutex<Option<VecDeque<Letter>>>,
    some: AtomicBool,
    asleep: AtomicBool,
    bell: EventFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            letters: Mutex::new(Some(VecDeque::new())),
            some: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            bell: EventFd::new()?,
        })
    }

    /// Posts a letter and wakes the loop if it sleeps. To a loop that has ended nothing is posted.
    pub(super) fn post(&self, letter: Letter) {
        match &mut *self.lock() {
            Some(letters) => letters.push_back(letter),
            None => return,
        }
        self.some.store(true, Ordering::Relaxed);
        bus::fence();
        if self.asleep.swap(false, Ordering::Relaxed) {
            // The bell's counter cannot overflow, as each sleep rings it once.
            let _ = self.bell.signal();
        }
    }

    /// All letters that have come.
    #[inline]
    pub(super) fn take(&self) -> VecDeque<Letter> {
        if !self.some.load(Ordering::Relaxed) {
            return VecDeque::new();
        }
        self.some.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut letters = self.lock();
        letters.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The loop ends: what has come is dropped, and nothing is kept any more. Letters hold on to the
    /// mailbox they are in, so without this they would keep each other for ever.
    pub(super) fn close(&self) {
        let rest = self.lock().take();
        drop(rest);
    }

    /// Announces sleep. The caller fences, then looks at `is_empty` and only then sleeps.
    pub(super) fn arm(&self) {
        self.asleep.store(true, Ordering::Relaxed);
    }

    pub(super) fn disarm(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.some.load(Ordering::Relaxed)
    }

    pub(super) fn bell(&self) -> &EventFd {
        &self.bell
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<VecDeque<Letter>>> {
        // A panic on a loop ends the process, so nobody can see a poisoned mailbox.
        self.letters
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Desk for Mailbox {
    fn post(&self, outbox: Arc<Outbox>) {
        Self::post(self, Letter::Token(outbox));
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
