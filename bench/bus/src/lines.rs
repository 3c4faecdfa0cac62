//! What carrying bytes costs at least: each side writes words, then a number in a cache line of its
//! own; the other side polls the number and reads the words. No lengths, no checks, no space given
//! back. The words stand *in place*, right behind the number and in the same lines each time, so that
//! nothing can be faster; or *in turn*, behind those of the trip before and as many as a record of
//! the rings has.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use toolb_core::sys::memory::{self, Mapping};

use crate::process::Peer;
use crate::{Asker, Outcome};

/// As large as a ring of the engine's.
const AREA: usize = 256 * 1024;
const PAGE: usize = 4096;
/// A record's header.
const HEADER: usize = 16;

/// One direction: a number, then words.
struct Way {
    memory: Mapping,
    in_turn: bool,
    at: usize,
    number: u64,
}

impl Way {
    fn new(memory: Mapping, in_turn: bool) -> Self {
        Self {
            memory,
            in_turn,
            at: 0,
            number: 0,
        }
    }

    #[inline]
    fn write(&mut self, message: &[u8]) {
        let at = self.turn(message.len());
        for (index, word) in message.chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(word.try_into().expect("chunks of eight bytes"));
            self.word(at + 8 * index).store(word, Ordering::Relaxed);
        }
        if self.in_turn {
            self.word(at - HEADER).store(self.number, Ordering::Relaxed);
        }
        self.word(0).store(self.number, Ordering::Release);
    }

    /// Whether the next message has come.
    #[inline]
    fn has_come(&self) -> bool {
        self.word(0).load(Ordering::Acquire) == self.number + 1
    }

    #[inline]
    fn read(&mut self, len: usize, into: &mut Vec<u8>) {
        let at = self.turn(len);
        into.reserve(len);
        for index in 0..len / 8 {
            let word = self.word(at + 8 * index).load(Ordering::Relaxed);
            into.extend_from_slice(&word.to_ne_bytes());
        }
    }

    /// Where the next message of `len` bytes stands.
    #[inline]
    fn turn(&mut self, len: usize) -> usize {
        self.number += 1;
        if !self.in_turn {
            return size_of::<u64>();
        }
        let len = HEADER + len;
        let at = if self.at + len > AREA { 0 } else { self.at };
        self.at = at + len;
        PAGE + at + HEADER
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.memory.len());
        // SAFETY: within the mapping, which lives as long as self, and aligned, as asserted; both
        // sides use it as atomics only.
        unsafe { AtomicU64::from_ptr(self.memory.as_ptr().add(offset).cast()) }
    }
}

struct Lines {
    there: Way,
    back: Way,
}

impl Asker for Lines {
    #[inline]
    fn trip(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
        self.there.write(message);
        while !self.back.has_come() {
            std::hint::spin_loop();
        }
        self.back.read(message.len(), answer);
        Ok(())
    }
}

pub(crate) fn ask_in_place(peer: &Peer, _: usize) -> Outcome<Box<dyn Asker>> {
    ask(peer, false)
}

pub(crate) fn ask_in_turn(peer: &Peer, _: usize) -> Outcome<Box<dyn Asker>> {
    ask(peer, true)
}

pub(crate) fn answer_in_place(peer: &Peer, bytes: usize) -> Outcome<()> {
    answer(peer, bytes, false)
}

pub(crate) fn answer_in_turn(peer: &Peer, bytes: usize) -> Outcome<()> {
    answer(peer, bytes, true)
}

fn ask(peer: &Peer, in_turn: bool) -> Outcome<Box<dyn Asker>> {
    let [there, back] =
        [c"toolb-bench-there", c"toolb-bench-back"].map(|name| memory::create(name, PAGE + AREA));
    let (there, back) = (there?, back?);
    peer.give("lines", &[there.as_fd(), back.as_fd()])?;
    peer.take()?;
    Ok(Box::new(Lines {
        there: Way::new(Mapping::writable(there.as_fd(), PAGE + AREA)?, in_turn),
        back: Way::new(Mapping::writable(back.as_fd(), PAGE + AREA)?, in_turn),
    }))
}

fn answer(peer: &Peer, bytes: usize, in_turn: bool) -> Outcome<()> {
    let (_, fds) = peer.take()?;
    let [there, back] = &fds[..] else {
        return Err("no memory came".into());
    };
    let mut there = Way::new(Mapping::writable(there.as_fd(), PAGE + AREA)?, in_turn);
    let mut back = Way::new(Mapping::writable(back.as_fd(), PAGE + AREA)?, in_turn);
    peer.give("ready", &[])?;
    let mut message = Vec::new();
    loop {
        while !there.has_come() {
            if !peer.pause()? {
                return Ok(());
            }
        }
        message.clear();
        there.read(bytes, &mut message);
        back.write(&message);
    }
}
