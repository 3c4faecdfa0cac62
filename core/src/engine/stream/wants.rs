//! What a consumer waits for on one of its streams: decided from what came and a time.

use std::time::Duration;

use crate::message::{TimeUp, Wait, Want};

use super::patience::Patience;

/// The time of a stream that a consumer serves. It runs from the start of the stream to its end.
#[derive(Debug)]
pub(in crate::engine) struct Wants {
    patience: Patience,
    /// As the engine's settings say; `None` waits for ever.
    default: Option<Duration>,
    /// The want has come when so many bytes of the client have been passed on.
    target: Option<u64>,
    /// The number of the last want.
    serial: u32,
    /// The time is up, and the consumer's ring has no room to say so.
    is_unsaid: bool,
}

impl Wants {
    /// The stream has begun.
    pub(in crate::engine) fn new(default: Option<Duration>, now: u64) -> Self {
        let mut wants = Self {
            patience: Patience::new(),
            default,
            target: None,
            serial: 0,
            is_unsaid: false,
        };
        wants.wait(Wait::Default, now);
        wants
    }

    /// The consumer has said what it wants, by when `passed` bytes had been passed on; `ended`: all
    /// that ever come, and their end. One that knows of the end by then has a target of 0.
    pub(in crate::engine) fn ask(&mut self, want: &Want, passed: u64, ended: bool, now: u64) {
        self.serial = want.serial;
        let is_met = match ended {
            true => want.target > 0,
            false => want.target <= passed,
        };
        self.target = (!is_met).then_some(want.target);
        // What it wants is on its way: that is the event, and the next one has the default's time.
        self.wait(if is_met { Wait::Default } else { want.wait }, now);
    }

    /// Now so many bytes have been passed on in all.
    pub(in crate::engine) fn pass(&mut self, passed: u64, ended: bool, now: u64) {
        if self.target.is_none_or(|target| passed >= target) || ended {
            self.target = None;
            self.wait(Wait::Default, now);
        }
    }

    /// The client has taken output.
    pub(in crate::engine) fn moved(&mut self, now: u64) {
        if self.patience.is_by_default() {
            self.wait(Wait::Default, now);
        }
    }

    /// The consumer is told that the time is up: the default's begins.
    pub(in crate::engine) fn expire(&mut self, received: u64, now: u64) -> TimeUp {
        let by_default = self.patience.is_by_default();
        self.target = None;
        self.wait(Wait::Default, now);
        TimeUp {
            received,
            serial: self.serial,
            by_default,
        }
    }

    /// There was no room to tell the consumer: not before there is some.
    pub(in crate::engine) fn put_off(&mut self) {
        self.is_unsaid = true;
    }

    /// There may be room to tell the consumer.
    pub(in crate::engine) fn try_again(&mut self) {
        self.is_unsaid = false;
    }

    /// When something has to be done if nothing happens.
    pub(in crate::engine) fn deadline(&self) -> u64 {
        match self.is_unsaid {
            true => u64::MAX,
            false => self.patience.until,
        }
    }

    fn wait(&mut self, wait: Wait, now: u64) {
        self.is_unsaid = false;
        self.patience.wait(wait, now, self.default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const DEFAULT: Option<Duration> = Some(Duration::from_secs(60));

    fn want(target: u64, seconds: u64, serial: u32) -> Want {
        Want {
            target,
            wait: Wait::For(Duration::from_secs(seconds)),
            serial,
        }
    }

    #[test]
    fn an_idle_stream_has_the_default_time_and_again_after_it() {
        let mut wants = Wants::new(DEFAULT, 5);
        assert_eq!(wants.deadline(), 60 * SECOND + 5);
        let told = wants.expire(0, 60 * SECOND + 7);
        assert!(told.by_default && told.serial == 0);
        assert_eq!(wants.deadline(), 120 * SECOND + 7);
        assert_eq!(Wants::new(None, 5).deadline(), u64::MAX);
    }

    #[test]
    fn parts_of_what_is_wanted_do_not_put_the_deadline_off() {
        let mut wants = Wants::new(DEFAULT, 0);
        wants.ask(&want(10, 1, 1), 0, false, 0);
        wants.pass(9, false, SECOND / 2);
        // Nor does what the client takes.
        wants.moved(SECOND / 2);
        assert_eq!(wants.deadline(), SECOND);
        wants.pass(10, false, SECOND / 2);
        assert_eq!(wants.deadline(), SECOND / 2 + 60 * SECOND);
        wants.moved(SECOND);
        assert_eq!(wants.deadline(), 61 * SECOND);
    }

    #[test]
    fn the_last_want_counts_and_ends_once() {
        let mut wants = Wants::new(None, 0);
        wants.ask(&want(10, 1, 1), 0, false, 0);
        wants.ask(&want(10, 5, 2), 0, false, SECOND);
        assert_eq!(wants.deadline(), 6 * SECOND);
        let told = wants.expire(77, 6 * SECOND);
        let expected = TimeUp {
            received: 77,
            serial: 2,
            by_default: false,
        };
        assert_eq!((told, wants.deadline()), (expected, u64::MAX));
    }

    #[test]
    fn a_want_for_what_is_on_its_way_has_come() {
        let mut wants = Wants::new(DEFAULT, 0);
        wants.ask(&want(10, 1, 1), 10, false, SECOND);
        assert_eq!(wants.deadline(), 61 * SECOND);
        assert!(wants.expire(0, 61 * SECOND).by_default);
    }

    #[test]
    fn the_end_of_input_is_an_event_and_then_there_is_only_time() {
        let mut wants = Wants::new(DEFAULT, 0);
        wants.ask(&want(10, 1, 1), 0, false, 0);
        wants.pass(3, true, SECOND / 2);
        assert_eq!(wants.deadline(), SECOND / 2 + 60 * SECOND);
        // A consumer that has yet to see that event, and one that has seen it: nothing more can come,
        // so all that its want can still end in is its time.
        wants.ask(&want(10, 1, 1), 3, true, SECOND);
        assert_eq!(wants.deadline(), 61 * SECOND);
        wants.ask(&want(0, 1, 2), 3, true, SECOND);
        assert_eq!(wants.deadline(), 2 * SECOND);
    }

    #[test]
    fn what_could_not_be_said_waits_for_room_or_for_an_event() {
        let mut wants = Wants::new(DEFAULT, 0);
        wants.put_off();
        assert_eq!(wants.deadline(), u64::MAX);
        wants.try_again();
        assert_eq!(wants.deadline(), 60 * SECOND);
        wants.put_off();
        wants.pass(1, false, 70 * SECOND);
        assert_eq!(wants.deadline(), 130 * SECOND);
    }
}
