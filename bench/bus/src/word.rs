//! The physical limit: one number in one cache line that two processes write in turn.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use toolb_core::sys::memory::{self, Mapping};

use crate::process::Peer;
use crate::{Asker, Outcome};

const PAGE: usize = 4096;

struct Line(Mapping);

impl Line {
    fn word(&self) -> &AtomicU64 {
        // SAFETY: mapped for as long as self, page aligned, and used as an atomic by both sides.
        unsafe { AtomicU64::from_ptr(self.0.as_ptr().cast()) }
    }
}

impl Asker for Line {
    #[inline]
    fn trip(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
        let number = u64::from_ne_bytes(message.try_into()?);
        self.word().store(2 * number, Ordering::Release);
        while self.word().load(Ordering::Acquire) != 2 * number + 1 {
            std::hint::spin_loop();
        }
        answer.extend_from_slice(message);
        Ok(())
    }
}

pub(crate) fn ask(peer: &Peer, _: usize) -> Outcome<Box<dyn Asker>> {
    let file = memory::create(c"toolb-bench-line", PAGE)?;
    let line = Line(Mapping::writable(file.as_fd(), PAGE)?);
    peer.give("line", &[file.as_fd()])?;
    peer.take()?;
    Ok(Box::new(line))
}

pub(crate) fn answer(peer: &Peer, _: usize) -> Outcome<()> {
    let (_, fds) = peer.take()?;
    let file = fds.first().ok_or("no memory came")?;
    let line = Line(Mapping::writable(file.as_fd(), PAGE)?);
    peer.give("ready", &[])?;
    let mut next = 2;
    loop {
        while line.word().load(Ordering::Acquire) != next {
            if !peer.pause()? {
                return Ok(());
            }
        }
        line.word().store(next + 1, Ordering::Release);
        next += 2;
    }
}
