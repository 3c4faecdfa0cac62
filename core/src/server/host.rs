//! An engine and the gate to it: what `toolb serve` and an engine inside another program have in
//! common. It is driven by whoever owns it, and sleeps nowhere itself.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{ControlEvent, Engine, Snapshot};
use crate::sys::epoll::{self, Epoll};

use super::event::Event;
use super::gate::Gate;

/// An engine that serves, with the consumers that come to it.
pub(super) struct Host {
    engine: Arc<Engine>,
    gate: Gate,
    ending: Option<Ending>,
}

/// How far the end has come.
struct Ending {
    limit: Duration,
    /// When consumers are told to finish even though connections are left.
    tell_at: Instant,
    told: bool,
    cut_at: Instant,
    /// No connection is left.
    idle: bool,
    /// The counters when consumers were told to finish though requests were open.
    hurried: Option<Snapshot>,
}

/// How it came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// Everything had finished.
    Clean,
    /// Something was cut off.
    Cut,
}

impl Host {
    /// The engine has been started.
    pub(super) fn new(engine: Arc<Engine>, gate: Gate) -> Self {
        Self {
            engine,
            gate,
            ending: None,
        }
    }

    /// Has `epoll` report when there is something to do.
    pub(super) fn watch(&self, epoll: &Epoll, token: u64) -> io::Result<()> {
        epoll.add(self.engine.control_events(), token, epoll::IN)?;
        epoll.add(&self.gate, token, epoll::IN)
    }

    /// Does what there is to do. The end, once it has come.
    pub(super) fn turn(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) -> Option<End> {
        self.take_engine_events(tell);
        self.gate.turn(&self.engine, now, tell);
        let ending = self.ending.as_mut()?;
        if !ending.told && (ending.idle || ending.tell_at <= now) {
            ending.told = true;
            ending.hurried = (!ending.idle).then(|| self.engine.stats());
            self.gate.drain(&self.engine);
        }
        if ending.idle && self.gate.guests() == 0 {
            let then = ending.hurried.as_ref();
            let requests = then.map_or(0, |then| self.engine.stats().cut_since(then));
            if requests == 0 {
                return Some(End::Clean);
            }
            let limit = ending.limit;
            tell(Event::Unfinished { requests, limit });
            return Some(End::Cut);
        }
        if ending.cut_at > now {
            return None;
        }
        // Who gives no time has not asked for an end without loss.
        let limit = Some(ending.limit).filter(|limit| !limit.is_zero());
        match limit {
            Some(_) => {
                self.cut(limit, tell);
                Some(End::Cut)
            }
            None => {
                self.gate.close(&self.engine);
                Some(End::Clean)
            }
        }
    }

    /// When [`turn`](Self::turn) is to be called even if nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().map(|ending| match ending.told {
            true => ending.cut_at,
            false => ending.tell_at,
        });
        ending.into_iter().chain(self.gate.next_deadline()).min()
    }

    /// Begins to end: nobody is let in any more, and what was accepted is finished, for `limit` at
    /// most. Said again, it can only shorten the time.
    pub(super) fn end(&mut self, limit: Duration, now: Instant) {
        let cut_at = now + limit;
        if let Some(ending) = &mut self.ending {
            // Who is in more of a hurry has his way.
            if cut_at < ending.cut_at {
                ending.limit = limit;
                ending.cut_at = cut_at;
                ending.tell_at = ending.tell_at.min(cut_at);
            }
            return;
        }
        self.gate.shut();
        self.engine.drain();
        self.ending = Some(Ending {
            limit,
            // Applications finish within the limit even if a client never leaves.
            tell_at: cut_at - (limit / 4).min(Duration::from_secs(5)),
            // Who has no time to finish is not asked to.
            told: limit.is_zero(),
            cut_at,
            idle: false,
            hurried: None,
        });
    }

    /// Cuts off what is left, and says so. `limit`: how long it was given; `None`: it was not.
    pub(super) fn cut(&mut self, limit: Option<Duration>, tell: &mut dyn FnMut(Event)) {
        let idle = self.ending.as_ref().is_some_and(|ending| ending.idle);
        if !idle || self.gate.guests() > 0 {
            tell(Event::CutOff {
                connections: !idle,
                requests: self.engine.stats().open(),
                consumers: self.gate.guests(),
                limit,
            });
        }
        self.gate.close(&self.engine);
    }

    pub(super) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn take_engine_events(&mut self, tell: &mut dyn FnMut(Event)) {
        self.engine.control_events().drain();
        while let Some(event) = self.engine.next_control_event() {
            match event {
                ControlEvent::Idle => {
                    if let Some(ending) = &mut self.ending {
                        ending.idle = true;
                    }
                }
                ControlEvent::Poisoned { lane_id, reason } => {
                    let why = format!("it broke a rule of the bus: {reason}");
                    self.gate.give_up(&self.engine, lane_id, why, tell);
                }
                ControlEvent::Stuck { lane_id } => {
                    let why = "it stands still with overdue requests".to_owned();
                    self.gate.give_up(&self.engine, lane_id, why, tell);
                }
                // A program that nobody would start again is not sent away for that.
                ControlEvent::Crowded { .. }
                | ControlEvent::Settled { .. }
                | ControlEvent::Released { .. } => {}
            }
        }
    }
}
