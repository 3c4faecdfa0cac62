//! `toolb serve`: an engine whose consumers are started by others.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::EngineConfig;
use crate::engine::{AddressOptions, Engine, Listen, Routes};
use crate::sys::epoll::{self, Epoll, Events};
use crate::sys::signal::{self, Signals};

use super::event::{Event, Outcome};
use super::gate::{Gate, GateOptions};
use super::host::{End, Host};
use super::{ADDRESS, ECHO, outcome_of, prepare_process, system};

/// What [`serve`] serves.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The engine's settings.
    pub engine: EngineConfig,
    /// Where to listen.
    pub listeners: Vec<Listen>,
    /// Where raw connections for consumers come.
    pub streams: Vec<Listen>,
    /// How consumers come.
    pub gate: GateOptions,
}

/// Serves with the consumers that attach by themselves until a signal ends it, and tells `tell`
/// what happens meanwhile. Signals as for [`run`](super::run).
///
/// Requests that come while there is no consumer wait in the queue.
pub fn serve(options: ServeOptions, tell: impl FnMut(Event)) -> Outcome {
    outcome_of(tell, |tell| try_serve(options, tell))
}

fn try_serve(options: ServeOptions, tell: &mut dyn FnMut(Event)) -> Result<Outcome, String> {
    let (signals, _) = prepare_process()?;
    let limit = options.engine.timeouts.graceful_shutdown;
    let routes = Routes {
        pool: true,
        ..Routes::default()
    };
    // The bus first: a second instance is told of the bus, whatever else it was given.
    let gate = Gate::open(&options.gate, " (--bus)")?;
    let mut engine = Engine::bind(options.engine, routes, &options.listeners)
        .map_err(|error| error.naming(&ADDRESS))?;
    for listen in &options.streams {
        let added = engine.add_stream_pool(listen);
        added.map_err(|error| error.naming(&STREAM_ADDRESS))?;
    }
    engine
        .start()
        .map_err(|error| format!("a loop cannot be started: {error}; lower --io-threads"))?;
    tell(Event::Open {
        addresses: engine.addresses(),
        bus: gate.path().map(Into::into).unwrap_or_default(),
        loops: engine.loops(),
    });
    let mut host = Host::new(Arc::new(engine), gate);
    let outcome = drive(&mut host, &signals, limit, tell).map_err(system)?;
    // Ends the loops.
    drop(host);
    tell(Event::Stopped);
    Ok(outcome)
}

/// The options that say where raw connections come.
const STREAM_ADDRESS: AddressOptions = AddressOptions {
    host: "--stream-host",
    port: "--stream-port",
    uds: "--stream-uds",
};

const SIGNALS: u64 = 0;
const HOST: u64 = 1;

fn drive(
    host: &mut Host,
    signals: &Signals,
    limit: Duration,
    tell: &mut dyn FnMut(Event),
) -> io::Result<Outcome> {
    let epoll = Epoll::new()?;
    epoll.add(signals, SIGNALS, epoll::IN)?;
    host.watch(&epoll, HOST)?;
    let mut events = Events::with_capacity(8);
    let mut asked: Option<Instant> = None;
    loop {
        let now = Instant::now();
        while let Some(number) = signals.next() {
            match asked {
                None => {
                    asked = Some(now);
                    host.end(limit, now);
                    // Whoever reads this may rely on it: the engine is draining already.
                    tell(Event::Stopping {
                        signal: signal::name(number),
                        limit,
                    });
                }
                Some(since) if now < since + ECHO => {}
                Some(_) => {
                    host.cut(None, tell);
                    return Ok(Outcome::Forced(number));
                }
            }
        }
        match host.turn(now, tell) {
            Some(End::Clean) => return Ok(Outcome::Stopped),
            Some(End::Cut) => return Ok(Outcome::Cut),
            None => {}
        }
        let deadline = host.next_deadline();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        epoll.wait(&mut events, timeout)?;
    }
}
