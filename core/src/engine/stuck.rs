//! Whether consumers still turn. One that has work to do and stands still for the grace time is stuck;
//! one that turns is never given up for a single exchange, but when too many of its slots are held by
//! exchanges that nobody waits for.
//!
//! A consumer that sleeps does not turn either, so it is rung for: whoever does not turn then cannot.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::event_loop::{Loop, Timer};
use super::lane_end::{Held, LaneEnd, NOBODY};
use super::shared::ControlEvent;

/// The grace time is seen to pass in so many looks, each of which counts once: if this machine, or
/// the engine, was stopped meanwhile, the consumer had no time to turn either.
const LOOKS: u8 = 4;
/// A lane is crowded when this part of its slots is held for nobody.
const CROWDED: usize = 4;

/// What was seen of a consumer that has something to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    tick: u32,
    /// Looks since it moved.
    still: u8,
    /// The next look.
    at: u64,
}

impl Loop {
    /// Watches, from now on, whether the consumer of a lane turns.
    #[cold]
    pub(super) fn watch_turns(&mut self, index: u16) {
        let step = self.shared.config.timeouts.stuck_grace.as_nanos() as u64 / u64::from(LOOKS);
        let at = self.now + step;
        if let Some(lane) = self.lanes[usize::from(index)].as_deref_mut()
            && step > 0
        {
            let tick = lane.ends.slots.tick();
            lane.watch = Some(Watch { tick, still: 0, at });
            self.deadlines.insert(at, Timer::Lane(index));
        }
    }

    /// An exchange overran its deadline: for a consumer that may take its time otherwise, it counts
    /// from now on.
    pub(super) fn note_overdue(&mut self, index: u16, slot: u16, generation: u32) {
        let patient = !self.shared.config.stuck_if_busy;
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return;
        };
        let is_first = !lane.has(|held| held.overdue);
        if let Some(held) = lane.held(slot, generation) {
            held.overdue = true;
            if patient && is_first {
                self.watch_turns(index);
            }
        }
    }

    /// The time for a look has come.
    pub(super) fn look_at_turns(&mut self, index: u16, due: u64) {
        let shared = self.shared.clone();
        let step = shared.config.timeouts.stuck_grace.as_nanos() as u64 / u64::from(LOOKS);
        let place = self.lanes.get_mut(usize::from(index));
        let Some(lane) = place.and_then(|lane| lane.as_deref_mut()) else {
            return;
        };
        // Another look has been arranged since, or the lane is another one.
        let Some(mut watch) = lane.watch.filter(|watch| watch.at == due) else {
            return;
        };
        lane.report();
        if lane.held == 0 || lane.poisoned {
            lane.watch = None;
            return;
        }
        let tick = lane.ends.slots.tick();
        let expected = match shared.config.stuck_if_busy {
            true => lane.has(|held| !held.done),
            false => lane.has(|held| !held.done && held.overdue),
        };
        watch.still = match tick == watch.tick && expected {
            true => watch.still + 1,
            false => 0,
        };
        watch.tick = tick;
        if expected {
            lane.ends.notice.bump();
            lane.touched = true;
        }
        let lane_id = lane.handle.id;
        let is_stuck = watch.still >= LOOKS;
        if is_stuck {
            watch.still = 0;
        }
        watch.at = self.now + step;
        lane.watch = Some(watch);
        let (left, live) = (
            lane.handle.left.load(Ordering::Relaxed),
            lane.handle.live.load(Ordering::Relaxed),
        );
        let slots = lane.slots.len();
        let is_crowded = left > 0 && left * CROWDED >= slots;
        let is_closed = is_crowded && lane.handle.is_closed();
        self.deadlines.insert(watch.at, Timer::Lane(index));
        if is_stuck {
            shared.tell(ControlEvent::Stuck { lane_id });
        } else if is_crowded && !is_closed {
            shared.tell(ControlEvent::Crowded {
                lane_id,
                left,
                slots,
            });
        } else if is_closed && live == 0 {
            shared.tell(ControlEvent::Settled { lane_id });
        }
    }
}

impl LaneEnd {
    /// Whether such an exchange is in one of its slots.
    fn has(&self, is_such: impl Fn(&Held) -> bool) -> bool {
        self.slots.iter().any(|held| held.in_use && is_such(held))
    }

    /// Counts what this loop holds, for all loops to know.
    fn report(&mut self) {
        let (mut left, mut live) = (0, 0);
        if self.held > 0 {
            for held in self.slots.iter_mut().filter(|held| held.in_use) {
                match held.runs_for_nobody() {
                    true => held.looks = held.looks.saturating_add(1),
                    false => {
                        held.looks = 0;
                        live += 1;
                    }
                }
                left += usize::from(held.looks >= LOOKS);
            }
        }
        let (left_before, live_before) = std::mem::replace(&mut self.reported, (left, live));
        let add = |sum: &AtomicUsize, now: usize, before: usize| {
            // Wraps, and is right again in the sum.
            sum.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        };
        add(&self.handle.left, left, left_before);
        add(&self.handle.live, live, live_before);
    }
}

impl Held {
    /// Its client has left, or was answered by the engine. An application that goes on after the end
    /// of its own response is not meant.
    fn runs_for_nobody(&self) -> bool {
        self.conn == NOBODY && !self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::LaneHandle;
    use super::*;

    #[test]
    fn who_answers_after_all_is_not_left_behind() {
        let handle = LaneHandle::of_test(0, 2, 1);
        let mut lane = LaneEnd::new(handle.clone(), 0);
        lane.slots[0] = Held::begin(1, false, NOBODY);
        lane.slots[1] = Held::begin(1, false, 7);
        lane.held = 2;
        let counts = || [&handle.left, &handle.live].map(|count| count.load(Ordering::Relaxed));
        for _ in 0..LOOKS - 1 {
            lane.report();
            assert_eq!(counts(), [0, 1]);
        }
        lane.report();
        assert_eq!(counts(), [1, 1]);
        // It goes on behind the end of its response, as it may.
        lane.slots[0].ended = true;
        lane.report();
        assert_eq!(counts(), [0, 2]);
        lane.held = 0;
        lane.report();
        assert_eq!(counts(), [0, 0]);
    }
}
