//! Sleeping and waking. One side says in a word of its own memory that it is about to block, the
//! other looks at that word after it has published: a fence on each side makes sure that one of the
//! two sees the other, so nobody sleeps over news and nobody awake is rung for.
#![forbid(unsafe_code)]

use std::io;

use crate::bus::sync::{self, Bell, Ordering, Word32};

/// How a notice is stored: after the words of slots that it is about.
#[cfg(not(mutant = "no_notice_release"))]
const TELL: Ordering = Ordering::Release;
#[cfg(mutant = "no_notice_release")]
const TELL: Ordering = Ordering::Relaxed;

/// The fence between publishing and looking whether the other side sleeps. Once per flush, for all
/// lanes touched: one per record would halve the throughput of small messages.
#[inline]
pub fn fence() {
    #[cfg(not(mutant = "no_producer_fence"))]
    sync::fence(Ordering::SeqCst);
}

/// The sleeping side: owns its wake word, which is odd while it is asleep.
pub struct Sleeper {
    word: Word32,
    sequence: u32,
}

impl Sleeper {
    /// Announces that this side is about to block. The caller then looks once more at everything it
    /// waits for, and blocks only if there is nothing.
    #[inline]
    pub fn arm(&mut self) {
        self.sequence |= 1;
        self.word.store(self.sequence, Ordering::Relaxed);
        #[cfg(not(mutant = "no_sleeper_fence"))]
        sync::fence(Ordering::SeqCst);
    }

    /// Arms, and disarms again if `has_news` finds something. True: the caller may block.
    #[inline]
    pub fn arm_unless(&mut self, has_news: impl FnOnce() -> bool) -> bool {
        self.arm();
        #[cfg(not(mutant = "no_recheck"))]
        if has_news() {
            self.disarm();
            return false;
        }
        #[cfg(mutant = "no_recheck")]
        drop(has_news);
        true
    }

    /// Announces that this side is awake.
    #[inline]
    pub fn disarm(&mut self) {
        if self.sequence & 1 != 0 {
            self.sequence = self.sequence.wrapping_add(1);
            self.word.store(self.sequence, Ordering::Relaxed);
        }
    }

    pub(super) fn new(word: Word32) -> Self {
        let sequence = word.load(Ordering::Relaxed);
        Self { word, sequence }
    }
}

/// The waking side: looks at the other's wake word and rings its bell at most once per sleep.
pub struct Waker {
    word: Word32,
    kicked: u32,
    bell: Bell,
}

impl Waker {
    /// Rings if the other side sleeps and this one has not rung for that sleep. True: it rang. The
    /// caller has published and then called [`fence`].
    #[inline]
    pub fn kick(&mut self) -> io::Result<bool> {
        match self.unrung() {
            Some(sequence) => self.ring(sequence),
            None => Ok(false),
        }
    }

    /// Whether the other side sleeps, or is about to.
    #[inline]
    pub fn is_asleep(&self) -> bool {
        self.word.load(Ordering::Relaxed) & 1 != 0
    }

    /// Whether the other side sleeps, or is about to, and this one has not rung for that sleep.
    #[inline]
    pub fn sleeps_on(&self) -> bool {
        self.unrung().is_some()
    }

    /// The sleep of the other side that this one has not rung for.
    #[inline]
    fn unrung(&self) -> Option<u32> {
        let sequence = self.word.load(Ordering::Relaxed);
        (sequence & 1 != 0 && sequence != self.kicked).then_some(sequence)
    }

    pub(super) fn new(word: Word32, bell: Bell) -> Self {
        let kicked = 0;
        Self { word, kicked, bell }
    }

    #[cold]
    fn ring(&mut self, sequence: u32) -> io::Result<bool> {
        self.bell.ring()?;
        self.kicked = sequence;
        Ok(true)
    }
}

/// Tells the other side that a word of a slot has moved, so that it looks at the slots only then.
pub struct Notice {
    own: Word32,
    peer: Word32,
    told: u32,
    seen: u32,
}

impl Notice {
    /// Tells, after a cancel, started or grant word was moved. The caller then fences and kicks.
    #[inline]
    pub fn bump(&mut self) {
        self.told = self.told.wrapping_add(1);
        self.own.store(self.told, TELL);
    }

    /// Whether the other side has told something since the last call.
    #[inline]
    pub fn changed(&mut self) -> bool {
        let told = self.peer.load(Ordering::Relaxed);
        if told == self.seen {
            return false;
        }
        // The words of the slots are read only after it.
        sync::fence(Ordering::Acquire);
        self.seen = told;
        true
    }

    /// Whether the next [`changed`](Self::changed) would be true.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.peer.load(Ordering::Relaxed) != self.seen
    }

    pub(super) fn new(own: Word32, peer: Word32) -> Self {
        Self {
            own,
            peer,
            told: 0,
            seen: 0,
        }
    }
}
