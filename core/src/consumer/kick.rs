//! When to wake the engine. Each response is published at once; the bell is rung when what was
//! published since makes up half of what the loop waits for, when the first of it is 50 us old, or
//! when this side has nothing else to do. A loop that sleeps is thus woken for several responses
//! instead of one, and none waits noticeably longer.
#![forbid(unsafe_code)]

use super::Consumer;
use crate::{
    bus::fence,
    sys::{clock, crash},
};

/// No response waits longer for a kick while this side is busy. Handlers slower than this are not
/// worth waiting for.
const PATIENCE: u64 = 50_000;

/// What the consumer keeps per ring.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The slots whose exchange came through this ring and is not finished.
    pub(super) active: Vec<u16>,
    /// Those of them with something to send that found no room.
    pub(super) blocked: Vec<u16>,
    /// A record found no room in the ring.
    pub(super) full: bool,
    /// Something happened that the loop is to be told of at the next flush.
    pub(super) kick: bool,
    /// The loop knows that this side is awake, and so looks by itself every millisecond: a kick may
    /// wait. One that has slept since before this side woke does not.
    pub(super) looks: bool,
    /// Publications the loop was not told of.
    unkicked: u32,
    /// When the first of them was made.
    since: u64,
}

/// How fast handlers are.
#[derive(Debug)]
pub(super) struct Pace {
    at_once: bool,
    /// A moving average of the time from one response to the next while this side is busy.
    average: u64,
    mark: u64,
}

impl Pace {
    pub(super) fn new(at_once: bool) -> Self {
        Self {
            at_once,
            average: 0,
            mark: 0,
        }
    }

    /// A turn begins: the next step counts from here.
    #[inline]
    pub(super) fn begin(&mut self) {
        if !self.at_once {
            self.mark = clock::now();
        }
    }

    #[inline]
    fn step(&mut self) -> u64 {
        let now = clock::now();
        let step = now.saturating_sub(self.mark);
        self.mark = now;
        self.average = self.average - self.average / 8 + step / 8;
        now
    }
}

impl Consumer {
    /// Ends a turn: kicks the loops that wait for starts, grants or old responses; with `idle`, which
    /// means that this side is about to do something else, for all that they were not told of.
    pub fn flush(&mut self, idle: bool) {
        let mut due = false;
        let mut now = 0;
        for line in &mut self.lines {
            if line.unkicked > 0 && !line.kick {
                if !idle && now == 0 {
                    now = clock::now();
                }
                line.kick = idle || now.saturating_sub(line.since) > PATIENCE;
            }
            due |= line.kick;
        }
        if !due {
            return;
        }
        fence();
        for index in 0..self.lines.len() {
            if self.lines[index].kick {
                self.kick(index);
            }
        }
    }

    /// Once armed nobody flushes before the bell rings: what an application does from other callbacks
    /// of its loop meanwhile is told at once.
    #[inline]
    pub(super) fn tell_if_armed(&mut self) {
        if self.armed {
            self.tell_now();
        }
    }

    #[cold]
    fn tell_now(&mut self) {
        if !self.wait_for_room() || !self.parcels.is_empty() || !self.news.is_empty() {
            // There is room again for what is kept here, or something to tell: the loop is to poll.
            let _ = self.lane.doorbell().signal();
        }
        self.flush(true);
    }

    /// Publishes what was pushed into a ring, and kicks if it is time.
    #[inline]
    pub(super) fn publish(&mut self, owner: u16) {
        crash::point("written");
        if !self.lane.ring(owner).responses.publish() {
            return;
        }
        crash::point("published");
        let line = &mut self.lines[usize::from(owner)];
        line.unkicked += 1;
        if !self.pace.at_once {
            let now = self.pace.step();
            if line.unkicked == 1 {
                line.since = now;
            }
            let few = (line.unkicked as usize) < line.active.len();
            if few
                && line.looks
                && !self.armed
                && self.pace.average < PATIENCE
                && now.saturating_sub(line.since) <= PATIENCE
            {
                return;
            }
        }
        fence();
        self.kick(usize::from(owner));
    }

    /// Rings if the loop sleeps. The caller has published and fenced.
    #[inline]
    fn kick(&mut self, index: usize) {
        let line = &mut self.lines[index];
        line.kick = false;
        line.unkicked = 0;
        line.looks |= !self.armed;
        // An eventfd that cannot be written belongs to an engine that is gone: the hang-up says so.
        let _ = self.lane.ring(index as u16).waker.kick();
    }
}
