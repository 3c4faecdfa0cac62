//! What to do with the workers: a state machine without I/O. Inputs are what has happened, outputs
//! are [`Action`]s for the supervisor to carry out; time comes in with each call.
#![forbid(unsafe_code)]

mod stop;
mod watch;

use std::time::{Duration, Instant};

use crate::engine::Toll;
use crate::sys::process::Exit;
use crate::sys::signal::SIGTERM;

use super::backoff::Backoff;
use super::event::{Event, Outcome};

use stop::Stopping;
use watch::Pulse;

/// How patient a fleet is.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    /// From the spawn to the hello.
    pub(super) hello: Duration,
    /// From the spawn to the application's start.
    pub(super) start: Duration,
    /// After which a start is remarked upon.
    pub(super) slow: Duration,
    /// For a worker that is about to exit by itself.
    pub(super) exit: Duration,
    /// From the wish to stop to the kill.
    pub(super) graceful: Duration,
    /// For one that stands still. 0: nobody looks.
    pub(super) stuck: Duration,
    /// Whether to find that out by asking: the engine, which would see it, is elsewhere.
    pub(super) asks: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(60),
            start: Duration::from_secs(600),
            slow: Duration::from_secs(5),
            exit: Duration::from_secs(5),
            graceful: Duration::from_secs(30),
            stuck: Duration::from_secs(10),
            asks: false,
        }
    }
}

/// Something for the supervisor to do; the number is a worker's index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Action {
    /// Start a process; answer with `spawned` or `spawn_failed`.
    Spawn(usize),
    /// Open its lane for dispatch, and the doors if they are closed.
    LaneUp(usize),
    /// Give it no new requests.
    LaneDraining(usize),
    /// It is gone: settle what it held, if it had a lane.
    LaneDown(usize),
    /// Send `Control::Drain`.
    TellDrain(usize),
    /// Send `Control::Error`.
    TellError(usize, String),
    /// Send `Control::Ask`.
    Ask(usize),
    /// Ask it to end: SIGTERM.
    Terminate(usize),
    /// Tell that it has stood still for so long, and make it say where and end: SIGABRT.
    Abort(usize, Duration),
    /// SIGKILL.
    Kill(usize),
    /// Workers are about to be killed: answer what they will not, and break off what they answer.
    CutEngine,
    /// Stop accepting; answer with `engine_idle` once the last connection has gone.
    DrainEngine,
    /// All workers are ready for the first time.
    Serving,
    /// The workers are told to finish though requests are open: from now on these are cut off.
    Hurry(Duration),
    /// Tell whoever runs the server.
    Tell(Event),
    /// Everything has ended.
    Finish(Outcome),
}

/// All workers of a server.
#[derive(Debug)]
pub(super) struct Fleet {
    workers: Vec<Worker>,
    patience: Patience,
    stage: Stage,
    /// Added to the report of a worker that ended before it was ready.
    hint: Option<String>,
    out: Vec<Action>,
}

#[derive(Debug)]
enum Stage {
    /// Not all workers have been ready yet: a failure to start ends the server.
    Booting,
    /// A failure to start is tried again.
    Running,
    Stopping(Stopping),
}

#[derive(Debug)]
struct Worker {
    phase: Phase,
    pid: Option<u32>,
    spawned: Instant,
    backoff: Backoff,
    has_been_ready: bool,
    /// Why it is about to end, if that is known better than from its exit status.
    verdict: Option<String>,
    /// It said that starting it again may help.
    worth_a_retry: bool,
    /// It said that it leaves.
    takes_leave: bool,
    pulse: Pulse,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// To be started then.
    Waiting(Instant),
    Starting {
        greeted: bool,
        remarked: bool,
    },
    Serving,
    /// It gets no more requests, and is told to leave then, or when it has finished what others
    /// wait for.
    Retiring(Instant),
    /// Expected to exit by itself, or else killed then; `None`: when the fleet's time is over.
    Leaving(Option<Instant>),
    Killed,
    /// Not to be started again.
    Gone,
}

impl Fleet {
    pub(super) fn new(
        workers: usize,
        patience: Patience,
        hint: Option<String>,
        now: Instant,
    ) -> Self {
        let worker = || Worker {
            phase: Phase::Waiting(now),
            pid: None,
            spawned: now,
            backoff: Backoff::new(),
            has_been_ready: false,
            verdict: None,
            worth_a_retry: false,
            takes_leave: false,
            pulse: Pulse::NONE,
        };
        Self {
            workers: (0..workers).map(|_| worker()).collect(),
            patience,
            stage: Stage::Booting,
            hint,
            out: Vec::new(),
        }
    }

    /// What there is to do now.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    /// When `tick` is to be called even if nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let of_workers = self.workers.iter().filter_map(|worker| match worker.phase {
            Phase::Waiting(at) => Some(at),
            Phase::Starting { greeted, remarked } => {
                let limit = self.start_limit(greeted);
                let next = match remarked {
                    true => limit,
                    false => limit.min(self.patience.slow),
                };
                Some(worker.spawned + next)
            }
            Phase::Leaving(at) => at,
            Phase::Retiring(at) => Some(at),
            Phase::Serving => worker.pulse.ask_at,
            Phase::Killed | Phase::Gone => None,
        });
        let of_fleet = match &self.stage {
            Stage::Stopping(stop) if !stop.told => Some(stop.tell_at),
            Stage::Stopping(stop) if !stop.killed => Some(stop.kill_at),
            _ => None,
        };
        of_workers.chain(of_fleet).min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        // First: nobody is started at the end.
        self.check_stop(now);
        for index in 0..self.workers.len() {
            match self.workers[index].phase {
                Phase::Waiting(at) if at <= now => self.start(index, now),
                Phase::Starting { greeted, remarked } => {
                    self.check_start(index, greeted, remarked, now);
                }
                Phase::Leaving(Some(at)) if at <= now => self.kill(index),
                Phase::Retiring(at) if at <= now => self.settled(index, now),
                Phase::Serving => self.ask(index, now),
                _ => {}
            }
        }
    }

    /// How long those who are to end may take, if the whole server is.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        match &self.stage {
            Stage::Stopping(stop) => Some(stop.kill_at.saturating_duration_since(now)),
            Stage::Booting | Stage::Running => None,
        }
    }

    pub(super) fn spawned(&mut self, index: usize, pid: u32) {
        self.workers[index].pid = Some(pid);
        let worker = index + 1;
        self.out.push(Action::Tell(Event::Spawned { worker, pid }));
        if self.patience.asks {
            // Whether it answers is known before it has anything to do.
            self.out.push(Action::Ask(index));
        }
    }

    pub(super) fn spawn_failed(&mut self, index: usize, why: String, now: Instant) {
        self.workers[index].verdict = Some(why);
        self.ended(index, None, now);
    }

    /// It has said hello and was welcomed.
    pub(super) fn greeted(&mut self, index: usize) {
        if let Phase::Starting { greeted, .. } = &mut self.workers[index].phase {
            *greeted = true;
        }
    }

    /// Its application has started.
    pub(super) fn ready(&mut self, index: usize, now: Instant) {
        let worker = &mut self.workers[index];
        if !matches!(worker.phase, Phase::Starting { greeted: true, .. }) {
            return;
        }
        worker.phase = Phase::Serving;
        let again = std::mem::replace(&mut worker.has_been_ready, true);
        worker.pulse = worker.pulse.begun(self.patience.asks.then_some(now));
        let event = Event::Ready {
            worker: index + 1,
            pid: worker.pid.unwrap_or_default(),
            took: now.saturating_duration_since(worker.spawned),
            again,
        };
        self.out.push(Action::LaneUp(index));
        self.out.push(Action::Tell(event));
        let all = self.workers.iter().all(|worker| worker.has_been_ready);
        if matches!(self.stage, Stage::Booting) && all {
            self.stage = Stage::Running;
            self.out.push(Action::Serving);
        }
        if let Stage::Stopping(stop) = &mut self.stage {
            stop.is_unmanned = false;
        }
    }

    /// Its application will not start.
    pub(super) fn failed(&mut self, index: usize, reason: String, permanent: bool, now: Instant) {
        let ends_all = permanent && matches!(self.stage, Stage::Booting);
        let verdict = format!("could not start the application: {reason}");
        if !self.leave_because(index, verdict, now) {
            return;
        }
        self.workers[index].worth_a_retry = !permanent;
        if ends_all {
            self.fail(reason, now);
        }
    }

    /// It broke the rules of the control socket, or speaks another language.
    pub(super) fn refused(&mut self, index: usize, why: String, now: Instant) {
        if self.leave_because(index, format!("was refused: {why}"), now) {
            self.out.push(Action::TellError(index, why));
        }
    }

    /// It told why it gives up.
    pub(super) fn complained(&mut self, index: usize, why: String, now: Instant) {
        self.leave_because(index, format!("gave up: {why}"), now);
    }

    /// It wants no more requests, whether it was told so or not: it finishes those it has and exits.
    pub(super) fn takes_leave(&mut self, index: usize, now: Instant) {
        let worker = &mut self.workers[index];
        if worker.phase == Phase::Serving {
            worker.phase = Phase::Retiring(now + self.patience.graceful);
            worker.takes_leave = true;
            self.out.push(Action::LaneDraining(index));
        }
    }

    /// It closed the control socket.
    pub(super) fn hung_up(&mut self, index: usize, now: Instant) {
        self.leave(index, now);
    }

    /// It broke the rules of the bus: nothing it has written since can be trusted.
    pub(super) fn poisoned(&mut self, index: usize, why: String) {
        self.out.push(Action::TellError(index, why.clone()));
        self.workers[index].verdict = Some(format!("broke the rules of the bus: {why}"));
        self.kill(index);
    }

    /// Its process has ended.
    pub(super) fn exited(&mut self, index: usize, exit: Exit, now: Instant) {
        self.out.push(Action::LaneDown(index));
        self.ended(index, Some(exit), now);
    }

    fn start(&mut self, index: usize, now: Instant) {
        let worker = &mut self.workers[index];
        worker.phase = Phase::Starting {
            greeted: false,
            remarked: false,
        };
        worker.spawned = now;
        worker.verdict = None;
        worker.worth_a_retry = false;
        worker.takes_leave = false;
        worker.pulse = Pulse::NONE;
        self.out.push(Action::Spawn(index));
    }

    fn check_start(&mut self, index: usize, greeted: bool, remarked: bool, now: Instant) {
        let limit = self.start_limit(greeted);
        let worker = &mut self.workers[index];
        let since = now.saturating_duration_since(worker.spawned);
        if since >= limit {
            let what = match greeted {
                true => "start its application",
                false => "attach to the bus",
            };
            worker.verdict = Some(format!("did not {what} within {} s", limit.as_secs_f64()));
            self.kill(index);
        } else if since >= self.patience.slow && !remarked {
            worker.phase = Phase::Starting {
                greeted,
                remarked: true,
            };
            let event = Event::Slow {
                worker: index + 1,
                pid: worker.pid.unwrap_or_default(),
                attached: greeted,
                since,
            };
            self.out.push(Action::Tell(event));
        }
    }

    fn start_limit(&self, greeted: bool) -> Duration {
        match greeted {
            true => self.patience.start,
            false => self.patience.hello,
        }
    }

    /// It is about to exit by itself; it gets a moment for that. False: it already was.
    fn leave(&mut self, index: usize, now: Instant) -> bool {
        let worker = &mut self.workers[index];
        match worker.phase {
            Phase::Serving | Phase::Retiring(_) => self.out.push(Action::LaneDraining(index)),
            Phase::Starting { .. } => {}
            _ => return false,
        }
        worker.phase = Phase::Leaving(Some(now + self.patience.exit));
        true
    }

    fn leave_because(&mut self, index: usize, verdict: String, now: Instant) -> bool {
        let first = self.leave(index, now);
        if first {
            self.workers[index].verdict = Some(verdict);
        }
        first
    }

    fn kill(&mut self, index: usize) {
        let phase = &mut self.workers[index].phase;
        if !matches!(phase, Phase::Killed | Phase::Gone | Phase::Waiting(_)) {
            *phase = Phase::Killed;
            self.out.push(Action::Kill(index));
        }
    }

    /// A worker has ended, or never came to be.
    fn ended(&mut self, index: usize, exit: Option<Exit>, now: Instant) {
        let worker = &mut self.workers[index];
        let pid = worker.pid.take();
        let asked = match worker.phase {
            Phase::Leaving(None) => exit == Some(Exit::Code(0)),
            // Before it was ready.
            Phase::Leaving(Some(_)) => exit == Some(Exit::Signal(SIGTERM)),
            _ => false,
        };
        let verdict = worker.verdict.take();
        let told = verdict.is_some();
        let leaves = worker.takes_leave && !told && exit == Some(Exit::Code(0));
        let why = match exit {
            _ if leaves => "has left".to_owned(),
            exit => verdict.unwrap_or_else(|| exit.map_or_else(String::new, |e| e.to_string())),
        };
        let event = |again| {
            Action::Tell(Event::Lost {
                worker: index + 1,
                pid,
                asked: leaves,
                why: why.clone(),
                toll: Toll::default(),
                again,
            })
        };
        match &self.stage {
            Stage::Stopping(stop) if stop.told || !stop.is_unmanned => {
                let expected = asked || stop.killed || stop.outcome == Outcome::StartFailed;
                let started = worker.has_been_ready;
                worker.phase = Phase::Gone;
                if !expected && started {
                    self.out.push(event(None));
                }
                self.finish_if_all_gone();
            }
            Stage::Booting if !worker.has_been_ready && !worker.worth_a_retry => {
                worker.phase = Phase::Gone;
                let who = match pid {
                    Some(pid) => format!("worker {} (pid {pid})", index + 1),
                    None => format!("worker {}", index + 1),
                };
                let text = match exit {
                    Some(Exit::Code(3)) if !told => {
                        format!("{who} could not start the application; its message stands above")
                    }
                    Some(Exit::Code(_)) if !told => {
                        let hint = self
                            .hint
                            .as_deref()
                            .map_or(String::new(), |h| format!("; {h}"));
                        format!("{who} {why} before it was ready{hint}")
                    }
                    Some(_) if !told => format!("{who} {why} before it was ready"),
                    _ => format!("{who} {why}"),
                };
                self.fail(text, now);
            }
            Stage::Booting | Stage::Running | Stage::Stopping(_) => {
                let lived = now.saturating_duration_since(worker.spawned);
                let delay = worker.backoff.after(lived);
                worker.phase = Phase::Waiting(now + delay);
                self.out.push(event(Some(delay)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
