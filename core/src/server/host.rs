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
use super::last_part;

/// An engine that serves, with the consumers that come to it.
pub(super) struct Host {
    engine: Arc<Engine>,
    gate: Gate,
    ending: Option<Ending>,
    desertion: Desertion,
}

/// What is known of requests that nobody is there for.
enum Desertion {
    /// There are some; at this time they are looked for again, with the counters as they were.
    Seen(Instant, Box<Snapshot>),
    /// It was told of them; until then it is not told again.
    Told(Instant),
    /// There are none.
    Unseen,
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
        engine.seek_deserters();
        Self {
            engine,
            gate,
            ending: None,
            desertion: Desertion::Unseen,
        }
    }

    /// Has `epoll` report when there is something to do.
    pub(super) fn watch(&self, epoll: &Epoll, token: u64) -> io::Result<()> {
        epoll.add(self.engine.control_events(), token, epoll::IN)?;
        epoll.add(&self.gate, token, epoll::IN)
    }

    /// Does what there is to do. The end, once it has come.
    pub(super) fn turn(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) -> Option<End> {
        self.take_engine_events(now, tell);
        self.gate.turn(&self.engine, now, tell);
        self.look_for_deserters(now, tell);
        self.go_on_ending(now, tell)
    }

    fn go_on_ending(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) -> Option<End> {
        let ending = self.ending.as_mut()?;
        if !ending.told && (ending.idle || ending.tell_at <= now) {
            ending.told = true;
            ending.hurried = (!ending.idle).then(|| self.engine.stats());
            let left = ending.cut_at.saturating_duration_since(now);
            self.gate.drain(&self.engine, left);
        }
        if !self.gate.is_manned() {
            // Nor will anybody come.
            self.engine.forgo_consumers();
        }
        let knows_all = !self.gate.owes_word() || ending.cut_at <= now;
        if ending.idle && self.gate.guests() == 0 && knows_all {
            let then = ending.hurried.as_ref();
            let requests = then.map_or(0, |then| self.engine.stats().cut_since(then));
            self.gate.tell_rest(tell);
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
        // Who gives no time has not asked for an end without loss, and a connection on which nothing
        // is asked loses nothing.
        let stats = self.engine.stats();
        let is_lossless = stats.open() + stats.open_streams() == 0 && self.gate.guests() == 0;
        let limit = Some(ending.limit).filter(|limit| !limit.is_zero() && !is_lossless);
        match limit {
            Some(_) => {
                self.cut(limit, tell);
                Some(End::Cut)
            }
            None => {
                self.close(tell);
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
        let desertion = match &self.desertion {
            Desertion::Seen(at, _) | Desertion::Told(at) => Some(*at),
            Desertion::Unseen => None,
        };
        let others = desertion.into_iter().chain(self.gate.next_deadline());
        ending.into_iter().chain(others).min()
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
            tell_at: cut_at - last_part(limit),
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
        self.close(tell);
    }

    pub(super) fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    /// Nobody is waited for any more. Clients hear of it first.
    fn close(&mut self, tell: &mut dyn FnMut(Event)) {
        self.engine.cut_off();
        self.gate.close(&self.engine);
        self.gate.tell_rest(tell);
    }

    fn look_for_deserters(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) {
        match &self.desertion {
            Desertion::Seen(at, then) if *at <= now => {
                let stats = self.engine.stats();
                let all = |stats: &Snapshot| stats.overloaded.wrapping_add(stats.queue_timeouts);
                let refused = all(&stats).wrapping_sub(all(then));
                let waiting = self.engine.waiting();
                let is_deserted = !self.gate.is_manned() && self.ending.is_none();
                if is_deserted && (waiting > 0 || refused > 0) {
                    tell(Event::Deserted {
                        waiting,
                        refused,
                        bus: self.gate.path().map(Into::into),
                    });
                    self.desertion = Desertion::Told(now + DESERTED_PAUSE);
                    return;
                }
            }
            Desertion::Told(at) if *at <= now => {}
            _ => return,
        }
        self.desertion = Desertion::Unseen;
        self.engine.seek_deserters();
    }

    fn take_engine_events(&mut self, now: Instant, tell: &mut dyn FnMut(Event)) {
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
                ControlEvent::Crowded { .. } | ControlEvent::Settled { .. } => {}
                ControlEvent::Released { lane_id, toll } => {
                    self.gate.released(lane_id, toll, tell);
                }
                ControlEvent::Deserted => {
                    let stats = Box::new(self.engine.stats());
                    self.desertion = Desertion::Seen(now + DESERTED_FOR, stats);
                }
            }
        }
    }
}

/// Who starts the engine first may take so long to start a consumer.
const DESERTED_FOR: Duration = Duration::from_secs(3);
/// That nobody is there is told once in this time.
const DESERTED_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use crate::config::EngineConfig;
    use crate::engine::{Listen, Routes, Toll};
    use crate::message::{Control, Hello};
    use crate::server::gate::GateOptions;
    use crate::sys::seqpacket::Seqpacket;

    use super::*;

    fn hello() -> Vec<u8> {
        let hello = Hello {
            abi_min: 1,
            abi_max: 1,
            pool: "main".into(),
            slots: 1,
            concurrency: 1,
            window: 1,
            ..Hello::default()
        };
        Control::Hello(hello).encode()
    }

    /// A host to which one consumer has come and from which it has gone. Its loops, which are to say
    /// what has become of requests, are not started.
    fn left_behind(now: Instant, tell: &mut dyn FnMut(Event)) -> Host {
        let engine = Engine::bind(EngineConfig::default(), Routes::default(), &[]).unwrap();
        let gate = Gate::open(&GateOptions::new(None), "").unwrap();
        let mut host = Host::new(Arc::new(engine), gate);
        let (ours, theirs) = Seqpacket::pair().unwrap();
        theirs.send(&hello(), &[]).unwrap();
        host.gate().adopt(ours, now, tell);
        host.turn(now, tell);
        drop(theirs);
        while host.gate.guests() > 0 {
            host.turn(now, tell);
        }
        host
    }

    #[test]
    fn who_has_gone_is_told_of_even_if_all_is_cut_off_then() {
        let now = Instant::now();
        let mut told = Vec::new();
        let mut tell = |event| told.push(event);
        let mut host = left_behind(now, &mut tell);
        host.cut(None, &mut tell);
        let is_told = told.iter().any(|event| matches!(event, Event::Left { .. }));
        assert!(is_told, "{told:?}");
    }

    #[test]
    fn nobody_is_deserted_while_a_consumer_starts() {
        let routes = Routes {
            pool: true,
            ..Routes::default()
        };
        let listen = Listen::Tcp {
            host: "127.0.0.1".into(),
            port: 0,
        };
        let mut engine = Engine::bind(EngineConfig::default(), routes, &[listen]).unwrap();
        engine.start().unwrap();
        let address = engine.addresses()[0].replace("http://", "");
        let gate = Gate::open(&GateOptions::new(None), "").unwrap();
        let mut host = Host::new(Arc::new(engine), gate);
        let mut client = TcpStream::connect(address).unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let now = Instant::now();
        let later = now + DESERTED_FOR;
        let mut told = Vec::new();
        let mut tell = |event| told.push(event);
        let (ours, theirs) = Seqpacket::pair().unwrap();
        theirs.send(&hello(), &[]).unwrap();
        host.gate().adopt(ours, now, &mut tell);
        while host.gate.guests() == 0 || !matches!(host.desertion, Desertion::Seen(..)) {
            host.turn(now, &mut tell);
        }
        host.turn(later, &mut tell);
        assert!(!matches!(host.desertion, Desertion::Told(_)));
        drop(theirs);
        while host.gate.guests() > 0 || !matches!(host.desertion, Desertion::Seen(..)) {
            host.turn(later, &mut tell);
        }
        host.turn(later + DESERTED_FOR, &mut tell);
        let deserted = |event: &&Event| matches!(event, Event::Deserted { .. });
        assert_eq!(told.iter().filter(deserted).count(), 1, "{told:?}");
    }

    #[test]
    fn the_end_waits_for_the_word_on_requests_of_who_has_gone() {
        let now = Instant::now();
        let mut told = Vec::new();
        let mut tell = |event| told.push(event);
        let mut host = left_behind(now, &mut tell);
        host.end(Duration::from_secs(30), now);
        // The last connection went with it, and one of several loops has yet to say so.
        host.ending.as_mut().unwrap().idle = true;
        assert_eq!(host.turn(now, &mut tell), None);
        let toll = Toll {
            cut: 1,
            ..Toll::default()
        };
        host.gate.released(1, toll, &mut tell);
        assert_eq!(host.turn(now, &mut tell), Some(End::Clean));
        let is_told =
            |event: &Event| matches!(event, Event::Left { toll: the, .. } if *the == toll);
        assert!(told.iter().any(is_told), "{told:?}");
    }
}
