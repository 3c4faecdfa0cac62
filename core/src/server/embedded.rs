//! An engine inside another program: it installs no signal handler, starts no process and waits for
//! no child. A control thread looks after the consumers that come to it.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::EngineConfig;
use crate::consumer::{AttachError, Consumer, ConsumerOptions};
use crate::engine::{Engine, EventFd, Listen, Routes, StartError};
use crate::log::{self, Level};
use crate::sys::epoll::{self, Epoll, Events};
use crate::sys::seqpacket::Seqpacket;
use crate::sys::shortage;

use super::event::Event;
use super::gate::{Gate, GateOptions};
use super::host::{End, Host};

/// A running engine of a program of one's own, with the consumers that attach to it.
///
/// Dropping it ends it at once.
pub struct Embedded {
    engine: Arc<Engine>,
    bus: Option<PathBuf>,
    has_pool: bool,
    orders: Sender<Order>,
    bell: Arc<EventFd>,
    control: Mutex<Option<JoinHandle<End>>>,
}

/// A wish to end that can be said from anywhere, signal handlers included, and is never taken back.
#[derive(Debug)]
pub struct Stop {
    asked: AtomicBool,
    bell: EventFd,
}

impl Stop {
    /// Nobody has asked yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            asked: AtomicBool::new(false),
            bell: EventFd::new()?,
        })
    }

    /// Asks. An atomic store and a write: both are safe in a signal handler.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        let _ = self.bell.signal();
    }

    /// Makes it this process's own, if it was made before a fork: what one process asks for is not
    /// to wake the other. What was asked before holds.
    pub fn part(&self) -> io::Result<()> {
        self.bell.renew()?;
        match self.is_asked() {
            true => self.bell.signal(),
            false => Ok(()),
        }
    }

    /// Waits until somebody has asked.
    pub fn wait(&self) {
        while !self.is_asked() {
            // A signal or an error of poll ends the wait early: then look again.
            let _ = self.bell.wait(None);
        }
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

enum Order {
    /// A consumer of this process wants to attach over this socket.
    Adopt(Seqpacket),
    /// End, within this time.
    End(Duration),
    /// Begin to end, within this time, as soon as that is asked for.
    Obey(Arc<Stop>, Duration),
}

impl Embedded {
    /// Binds the addresses and the bus socket, if `gate` has one, and starts the loops. An error is
    /// a line for a person.
    ///
    /// Requests that no inline route answers go to consumers if `routes` says so: to those that
    /// attach at the bus socket, and to the one that [`attach`](Self::attach) makes.
    pub fn start(
        config: EngineConfig,
        routes: Routes,
        listeners: &[Listen],
        gate: &GateOptions,
    ) -> Result<Self, String> {
        Self::start_prepared(config, routes, listeners, gate, |_| Ok(()))
    }

    /// The same, with what `prepare` does to the engine before its loops start: adding services.
    pub fn start_prepared(
        config: EngineConfig,
        routes: Routes,
        listeners: &[Listen],
        gate: &GateOptions,
        prepare: impl FnOnce(&mut Engine) -> Result<(), StartError>,
    ) -> Result<Self, String> {
        let has_pool = routes.pool;
        let gate = Gate::open(gate, "")?;
        let bus = gate.path().map(Path::to_owned);
        let mut engine =
            Engine::bind(config, routes, listeners).map_err(|error| error.to_string())?;
        prepare(&mut engine).map_err(|error| error.to_string())?;
        let system = |error: io::Error| format!("cannot start: {}", shortage::explain(&error));
        let bell = Arc::new(EventFd::new().map_err(system)?);
        let epoll = Epoll::new().map_err(system)?;
        epoll.add(&*bell, BELL, epoll::IN).map_err(system)?;
        engine.start().map_err(system)?;
        let engine = Arc::new(engine);
        let host = Host::new(engine.clone(), gate);
        host.watch(&epoll, HOST).map_err(system)?;
        let (orders, inbox) = mpsc::channel();
        let ring = bell.clone();
        let control = thread::Builder::new()
            .name("toolb-control".to_owned())
            .spawn(move || control(host, &inbox, &ring, &epoll))
            .map_err(system)?;
        Ok(Self {
            engine,
            bus,
            has_pool,
            orders,
            bell,
            control: Mutex::new(Some(control)),
        })
    }

    /// Makes the consumer of this process: it takes requests as a worker does, without another
    /// process. There can be one at a time.
    pub fn attach(&self, options: &ConsumerOptions) -> Result<Consumer, AttachError> {
        if !self.has_pool {
            return Err(AttachError::Refused(
                "this engine sends nothing to consumers: give it a pool before it starts"
                    .to_owned(),
            ));
        }
        let (ours, theirs) = Seqpacket::pair().map_err(AttachError::Io)?;
        self.order(Order::Adopt(ours));
        Consumer::attach_to(theirs, options)
    }

    /// Begins to end by itself once `stop` asks for it, as [`end`](Self::end) with this `limit` does.
    /// To be called once.
    pub fn obey(&self, stop: &Arc<Stop>, limit: Duration) {
        self.order(Order::Obey(stop.clone(), limit));
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where consumers attach.
    pub fn bus(&self) -> Option<&Path> {
        self.bus.as_deref()
    }

    /// Ends it: nobody is let in any more, what was accepted is finished, consumers are told to
    /// finish, and what is left after `limit` is cut off. Returns whether nothing was. Until this
    /// returns, and after it, the engine can be asked for its addresses and counters. Not from a
    /// callback on a loop.
    pub fn end(&self, limit: Duration) -> bool {
        self.order(Order::End(limit));
        let ended = self.take_control().map(JoinHandle::join);
        self.engine.stop();
        !matches!(ended, Some(Ok(End::Cut) | Err(_)))
    }

    /// The control thread, for whoever asks first.
    fn take_control(&self) -> Option<JoinHandle<End>> {
        // A panic cannot leave it half taken.
        let mut control = self.control.lock().unwrap_or_else(|p| p.into_inner());
        control.take()
    }

    fn order(&self, order: Order) {
        // A control thread that has ended needs no orders.
        let _ = self.orders.send(order);
        let _ = self.bell.signal();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Nothing is left to do if it has ended.
        self.end(Duration::ZERO);
    }
}

const BELL: u64 = 0;
const HOST: u64 = 1;
const STOP: u64 = 2;

/// What the control thread does.
fn control(mut host: Host, inbox: &Receiver<Order>, bell: &EventFd, epoll: &Epoll) -> End {
    // A library has nothing to say as long as all goes well.
    let mut tell = |event: Event| {
        if event.level() <= Level::Warning {
            event.log_plainly();
        }
    };
    let mut events = Events::with_capacity(8);
    let mut master = None;
    loop {
        bell.drain();
        let now = Instant::now();
        for order in inbox.try_iter() {
            match order {
                Order::Adopt(socket) => host.gate().adopt(socket, now, &mut tell),
                Order::End(limit) => host.end(limit, now),
                Order::Obey(stop, limit) => {
                    // Never drained, as others wait for it too: only its first ring counts.
                    if let Err(error) = epoll.add(&stop.bell, STOP, epoll::IN | epoll::EDGE) {
                        log::error(format_args!("the engine will not stop when asked: {error}"));
                    }
                    master = Some((stop, limit));
                }
            }
        }
        if let Some((stop, limit)) = &master
            && stop.is_asked()
        {
            host.end(*limit, now);
        }
        if let Some(end) = host.turn(now, &mut tell) {
            return end;
        }
        let deadline = host.next_deadline();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = epoll.wait(&mut events, timeout) {
            log::error(format_args!(
                "the consumers cannot be looked after any more: {error}"
            ));
            return End::Cut;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_stop_of_two_processes_parts_and_keeps_what_was_asked() {
        for asked in [false, true] {
            let stop = Stop::new().unwrap();
            let theirs = EventFd::from(stop.bell.as_fd().try_clone_to_owned().unwrap());
            theirs.signal().unwrap();
            if asked {
                stop.ask();
            }
            stop.part().unwrap();
            assert_eq!(stop.bell.wait(Some(Duration::ZERO)).unwrap(), asked);
        }
    }
}
