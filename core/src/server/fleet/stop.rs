//! The end of a fleet: workers are asked to finish, told to hurry, and killed.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::super::event::{Event, Outcome};
use super::super::{ECHO, last_part};
use super::{Action, Fleet, Phase, Stage, Worker};

/// What is known of an end that has begun.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    pub(super) outcome: Outcome,
    pub(super) since: Instant,
    pub(super) limit: Duration,
    /// Nobody serves yet who could take the requests that wait: whoever ends is replaced.
    pub(super) is_unmanned: bool,
    /// When workers are told to finish even though connections are left.
    pub(super) tell_at: Instant,
    pub(super) told: bool,
    pub(super) kill_at: Instant,
    pub(super) killed: bool,
}

impl Fleet {
    /// Asked to stop by a signal. The second time no request is waited for, the third time no exit.
    pub(in crate::server) fn stop(&mut self, signal: i32, name: &'static str, now: Instant) {
        if let Stage::Stopping(stop) = &mut self.stage {
            if now < stop.since + ECHO {
                return;
            }
            if matches!(stop.outcome, Outcome::Stopped | Outcome::Cut) {
                stop.outcome = Outcome::Forced(signal);
            }
            if stop.killed {
                // Whoever cannot even be killed (a hanging disk) is left to the kernel.
                return self.out.push(Action::Finish(stop.outcome));
            }
            return self.cut(true);
        }
        let limit = self.patience.graceful;
        let event = Event::Stopping {
            signal: name,
            limit,
        };
        self.begin_stop(Outcome::Stopped, limit, now);
        // Whoever reads this may rely on it: the engine is draining already.
        self.out.push(Action::Tell(event));
    }

    /// The engine is elsewhere and goes on: the workers take leave of it by themselves. They are
    /// told a second time, to hurry, when little of the time is left.
    pub(in crate::server) fn ask_to_finish(&mut self, now: Instant) {
        if let Stage::Stopping(stop) = &mut self.stage {
            stop.is_unmanned = false;
        }
        self.forgo_unready(now);
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if worker.phase == Phase::Serving {
                worker.phase = Phase::Leaving(None);
                self.out.push(Action::TellDrain(index));
            }
        }
    }

    /// The engine has no connection left.
    pub(in crate::server) fn engine_idle(&mut self, now: Instant) {
        self.tell_workers(now);
    }

    /// The server cannot start.
    pub(in crate::server) fn fail(&mut self, why: String, now: Instant) {
        if matches!(self.stage, Stage::Stopping(_)) {
            return;
        }
        self.out.push(Action::Tell(Event::StartFailed(why)));
        let limit = self.patience.graceful.min(self.patience.exit);
        self.begin_stop(Outcome::StartFailed, limit, now);
    }

    /// Does what is due in a stop.
    pub(super) fn check_stop(&mut self, now: Instant) {
        let Stage::Stopping(stop) = &self.stage else {
            return;
        };
        let (tell, kill) = (stop.tell_at <= now, !stop.killed && stop.kill_at <= now);
        if tell && !stop.told && !stop.limit.is_zero() && stop.outcome == Outcome::Stopped {
            self.out.push(Action::Hurry(stop.limit));
        }
        if tell {
            self.tell_workers(now);
        }
        if kill {
            self.cut(false);
        }
    }

    fn begin_stop(&mut self, outcome: Outcome, limit: Duration, now: Instant) {
        let kill_at = now + limit;
        let serves = |worker: &Worker| worker.phase == Phase::Serving;
        // If all have died, requests that wait are for those who take their places.
        let is_unmanned = matches!(self.stage, Stage::Running) && !self.workers.iter().any(serves);
        self.stage = Stage::Stopping(Stopping {
            outcome,
            since: now,
            limit,
            is_unmanned,
            // Applications shut down within the limit even if a client never leaves.
            tell_at: kill_at - last_part(limit),
            told: false,
            kill_at,
            killed: false,
        });
        self.out.push(Action::DrainEngine);
        if !is_unmanned {
            self.forgo_unready(now);
        }
    }

    /// Does without workers that are not ready.
    fn forgo_unready(&mut self, now: Instant) {
        self.workers.iter_mut().for_each(Worker::forgo_start);
        for index in 0..self.workers.len() {
            if let Phase::Starting { .. } = self.workers[index].phase {
                self.out.push(Action::Terminate(index));
                self.leave(index, now);
            }
        }
        self.finish_if_all_gone();
    }

    /// Tells the workers that nothing more comes.
    pub(super) fn tell_workers(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Stopping(stop) if !stop.told => stop.told = true,
            _ => return,
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            match worker.phase {
                Phase::Serving | Phase::Retiring(_) => {
                    worker.phase = Phase::Leaving(None);
                    self.out.push(Action::LaneDraining(index));
                    self.out.push(Action::TellDrain(index));
                }
                // Asked before, and not yet gone.
                Phase::Leaving(None) => self.out.push(Action::TellDrain(index)),
                _ => {}
            }
        }
        self.forgo_unready(now);
    }

    /// Kills whoever is left.
    pub(super) fn cut(&mut self, forced: bool) {
        let Stage::Stopping(stop) = &mut self.stage else {
            return;
        };
        stop.told = true;
        if std::mem::replace(&mut stop.killed, true) {
            return;
        }
        let limit = (!forced).then_some(stop.limit);
        self.workers.iter_mut().for_each(Worker::forgo_start);
        let alive = |worker: &Worker| !matches!(worker.phase, Phase::Killed | Phase::Gone);
        let left = self.workers.iter().filter(|worker| alive(worker)).count();
        if left > 0 {
            // Who gives no time has not asked for an end without loss.
            let given = !forced && !stop.limit.is_zero();
            if given && stop.outcome == Outcome::Stopped {
                stop.outcome = Outcome::Cut;
            }
            let event = Event::Cut {
                workers: left,
                limit,
            };
            self.out.push(Action::Tell(event));
        }
        self.out.push(Action::CutEngine);
        for index in 0..self.workers.len() {
            self.kill(index);
        }
        self.finish_if_all_gone();
    }

    pub(super) fn finish_if_all_gone(&mut self) {
        if let Stage::Stopping(stop) = &self.stage
            && self
                .workers
                .iter()
                .all(|worker| worker.phase == Phase::Gone)
        {
            self.out.push(Action::Finish(stop.outcome));
        }
    }
}

impl Worker {
    /// If it has yet to be started, it is not.
    fn forgo_start(&mut self) {
        if let Phase::Waiting(_) = self.phase {
            self.phase = Phase::Gone;
        }
    }
}
