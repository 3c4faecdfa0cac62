//! Workers that stand still, and those that too many slots are held in.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::super::event::Event;
use super::{Action, Fleet, Phase, Stage, Worker};

/// Whether a worker answers, if it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    /// The next question; `None`: it is not asked.
    pub(super) ask_at: Option<Instant>,
    /// Since its last answer.
    unanswered: u8,
    /// It has answered before: those of older releases never do.
    answers: bool,
    /// It is with an engine, unless its last answer was that it is not.
    attached: bool,
}

impl Pulse {
    pub(super) const NONE: Self = Self {
        ask_at: None,
        unanswered: 0,
        answers: false,
        attached: true,
    };

    /// Whoever is ready is asked from then on, or never.
    pub(super) const fn begun(self, ask_at: Option<Instant>) -> Self {
        Self {
            ask_at,
            answers: self.answers,
            ..Self::NONE
        }
    }

    /// How long it may stand still, if others may for `stuck`.
    fn grace(&self, stuck: Duration) -> Duration {
        match self.attached || stuck.is_zero() {
            true => stuck,
            false => stuck + ATTACHING,
        }
    }
}

impl Fleet {
    /// It has work to do and stands still.
    pub(in crate::server) fn stuck(&mut self, index: usize, now: Instant) {
        let worker = &mut self.workers[index];
        match worker.phase {
            Phase::Serving | Phase::Retiring(_) | Phase::Leaving(None) => {}
            // Perhaps another loop has said the same; it is about to tell where it hangs.
            _ => return,
        }
        worker.phase = Phase::Leaving(Some(now + self.patience.exit));
        worker.verdict = Some("was ended, as it stood still".to_owned());
        let since = worker.pulse.grace(self.patience.stuck);
        self.out.push(Action::LaneDraining(index));
        self.out.push(Action::Abort(index, since));
    }

    /// It turns, but too many of its slots are held by requests that nobody waits for: another
    /// process takes its place. One at a time, so that the others can take over.
    pub(in crate::server) fn crowded(
        &mut self,
        index: usize,
        left: usize,
        slots: usize,
        now: Instant,
    ) {
        let serves = |worker: &Worker| worker.phase == Phase::Serving;
        if !matches!(self.stage, Stage::Running) || !self.workers.iter().all(serves) {
            return;
        }
        let worker = &mut self.workers[index];
        worker.phase = Phase::Retiring(now + self.patience.graceful);
        worker.verdict = Some("has made room".to_owned());
        self.out.push(Action::LaneDraining(index));
        self.out.push(Action::Tell(Event::Crowded {
            worker: index + 1,
            pid: worker.pid.unwrap_or_default(),
            left,
            slots,
        }));
    }

    /// One that retires has finished what others wait for, or its time for that is over.
    pub(in crate::server) fn settled(&mut self, index: usize, now: Instant) {
        let worker = &mut self.workers[index];
        if matches!(worker.phase, Phase::Retiring(_)) {
            let limit = self.patience.graceful.max(self.patience.exit);
            worker.phase = Phase::Leaving(Some(now + limit));
            self.out.push(Action::TellDrain(index));
        }
    }

    /// It has answered the last question: whether it is with an engine. False: it cannot be yet, as
    /// it starts.
    pub(in crate::server) fn answered(&mut self, index: usize, attached: bool) -> bool {
        let worker = &mut self.workers[index];
        worker.pulse.unanswered = 0;
        worker.pulse.answers = true;
        worker.pulse.attached = attached;
        !matches!(worker.phase, Phase::Starting { .. })
    }

    /// Asks it how it is, if that is due.
    pub(super) fn ask(&mut self, index: usize, now: Instant) {
        let pulse = &mut self.workers[index].pulse;
        if pulse.ask_at.is_none_or(|at| at > now) {
            return;
        }
        let step = pulse.grace(self.patience.stuck) / u32::from(QUESTIONS);
        pulse.ask_at = (!step.is_zero()).then_some(now + step);
        if pulse.unanswered < QUESTIONS {
            pulse.unanswered += 1;
            self.out.push(Action::Ask(index));
        } else if pulse.answers {
            pulse.ask_at = None;
            self.stuck(index, now);
        }
    }
}

/// The grace time for a worker that does not answer passes in so many questions, each of which
/// counts once: if this machine was stopped meanwhile, the worker had no time to answer either.
const QUESTIONS: u8 = 4;
/// Who looks for an engine answers nothing while it attaches: that takes so long at most, half of it
/// to connect and half until it is welcome.
const ATTACHING: Duration = Duration::from_secs(20);
