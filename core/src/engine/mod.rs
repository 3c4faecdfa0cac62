//! Floor 5: loops and connections, and everything that turns the floors below into a server.
//!
//! A [`Loop`](event_loop) is a thread that owns connections and its ends of every lane. It is one
//! struct whose methods are told by direction: `accept` lets clients in, `intake` reads them, `relay`
//! writes to consumers, `reply` reads consumers, `output` writes to clients, `serve_inline` runs
//! handlers on the spot, `serve_token` takes what they answer later, `files` sends what consumers have
//! opened, `stream` serves raw connections; `deadlines` and `drain` end what has to end, and `warn`
//! tells what somebody should know of.
#![forbid(unsafe_code)]

mod accept;
mod conn;
mod context;
mod deadlines;
mod drain;
mod encode;
mod event_loop;
mod file_desk;
mod files;
mod inline;
mod input;
mod intake;
mod lane;
mod lane_end;
mod listen;
mod mailbox;
mod output;
mod relay;
mod reply;
mod reserve;
mod routes;
mod serve_inline;
mod serve_token;
mod shared;
mod slab;
mod stream;
mod stuck;
mod timers;
mod token;
mod warn;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::bus::{LaneState, MAX_LOOPS, StatusPage};
use crate::config::EngineConfig;
use crate::dispatch::{LaneLimits, Pool, PoolLimits};
use crate::log;
use crate::log::access::AccessLog;
use crate::stats::LoopStats;
use crate::sys::affinity;
use crate::sys::clock;
use crate::sys::shortage;
use crate::sys::socket::Listener;

pub use context::{Context, Interest, LetGo, Ready, TimerId, WatchId};
pub use inline::{Draft, Fields, Handler, Request, Response, Step, WithContext};
pub use lane::LaneHandle;
pub use listen::{AddressOptions, Listen, StartError};
pub use routes::{InlineRoutes, Refusal, Routes};
pub use shared::{ControlEvent, Toll};
pub use stream::{
    Callbacks, CloseReason, Service, ServiceId, ServiceOptions, StreamError, StreamId, Streams,
    Target, Wait,
};
pub use token::{Desk, Fate, News, OnCancel, OnWritable, Outbox, Token, WriteError};

/// Writes a line of the level `Error`, for application code that has failed.
pub use crate::log::error as log_error;
/// How requests find their handlers, for who has handlers elsewhere.
pub use crate::route::{Match, Params, Router};
/// What [`Engine::stats`] gives.
pub use crate::stats::Snapshot;
/// What [`Engine::control_events`] rings.
pub use crate::sys::eventfd::EventFd;

use event_loop::{Loop, Purpose, Services};
use file_desk::FileDesks;
use listen::Bound;
use mailbox::{Letter, Mailbox};
use reserve::{OF_A_CONSUMER, Reserve};
use shared::Shared;
use stream::LoopService;

/// An engine: listening sockets and the loops that serve them.
pub struct Engine {
    shared: Arc<Shared>,
    bound: Vec<Bound>,
    services: Vec<AddedService>,
    /// By address.
    purposes: Vec<Purpose>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    let_go: LetGo,
    next_lane: AtomicU64,
    files: SocketFiles,
    urls: Vec<String>,
}

impl Engine {
    /// Binds every address; nothing is accepted before `start`.
    pub fn bind(
        config: EngineConfig,
        routes: Routes,
        listeners: &[Listen],
    ) -> Result<Self, StartError> {
        config
            .validate()
            .map_err(|error| StartError::new(error.to_string()))?;
        let loops = config.loops.unwrap_or(1).clamp(1, usize::from(MAX_LOOPS));
        let files = SocketFiles::default();
        let mut bound = Vec::new();
        for listen in listeners {
            let one = Bound::new(listen, loops, config.backlog)?;
            files.add(&one);
            bound.push(one);
        }
        let cannot = |error: io::Error| StartError::new(shortage::explain(&error));
        let shared = Shared {
            pool: Pool::new(PoolLimits {
                queue_size: config.queue_size,
                limit_concurrency: config.limit_concurrency,
            }),
            page: StatusPage::create(loops as u16, clock::now()).map_err(cannot)?,
            mailboxes: (0..loops)
                .map(|_| Mailbox::new().map(Arc::new))
                .collect::<io::Result<_>>()
                .map_err(cannot)?,
            stats: (0..loops).map(|_| LoopStats::default()).collect(),
            access: config.access_log.then(AccessLog::start),
            servers: bound.iter().map(|bound| bound.name.clone()).collect(),
            draining: AtomicBool::new(false),
            forgone: AtomicBool::new(false),
            seeks_deserters: AtomicBool::new(false),
            open_streams: AtomicUsize::new(0),
            files: FileDesks::default(),
            reserve: Reserve::new(config.consumers, OF_A_CONSUMER + loops).map_err(cannot)?,
            busy_loops: AtomicUsize::new(loops),
            events: Mutex::new(VecDeque::new()),
            event_bell: EventFd::new().map_err(cannot)?,
            routes,
            config,
        };
        Ok(Self {
            shared: Arc::new(shared),
            services: Vec::new(),
            purposes: bound.iter().map(|_| Purpose::Http).collect(),
            threads: Mutex::new(Vec::new()),
            let_go: |_, drop| drop(),
            next_lane: AtomicU64::new(1),
            files,
            urls: bound.iter().map(|bound| bound.url.clone()).collect(),
            bound,
        })
    }

    /// Adds a service for raw connections, before `start`. With an address, that is bound now; a
    /// service without one lives on connections that it makes.
    pub fn add_service(
        &mut self,
        listen: Option<&Listen>,
        service: Arc<dyn Service>,
        options: ServiceOptions,
    ) -> Result<ServiceId, StartError> {
        let id = ServiceId(
            u16::try_from(self.services.len())
                .map_err(|_| StartError::new("an engine has room for 65,536 services"))?,
        );
        let name = match listen {
            Some(listen) => self.add_raw(listen, |_| Purpose::Service(id.0))?,
            None => format!("number {}", id.0),
        };
        self.services.push(AddedService {
            service,
            options,
            name,
        });
        Ok(id)
    }

    /// Passes the raw connections of an address on to those of the pool's consumers that take them,
    /// before `start`. Each takes one of a consumer's slots as long as it lasts.
    pub fn add_stream_pool(&mut self, listen: &Listen) -> Result<(), StartError> {
        self.add_raw(listen, |bound| Purpose::Streams(bound.name.clone()))?;
        Ok(())
    }

    /// Binds an address that does not speak HTTP and tells how a person writes it.
    fn add_raw(
        &mut self,
        listen: &Listen,
        purpose: impl FnOnce(&Bound) -> Purpose,
    ) -> Result<String, StartError> {
        let mut bound = Bound::new(listen, self.loops(), self.shared.config.backlog)?;
        bound.url = bound.url.replacen("http://", "tcp://", 1);
        let url = bound.url.clone();
        let purpose = purpose(&bound);
        self.purposes.push(purpose);
        self.files.add(&bound);
        self.urls.push(url.clone());
        self.bound.push(bound);
        Ok(url)
    }

    /// Has `let_go` called around the dropping of timers, watches and what else the application gave
    /// to a loop. Before `start`.
    pub fn let_go_by(&mut self, let_go: LetGo) {
        self.let_go = let_go;
    }

    /// The addresses it listens on, as a person writes them: `http://127.0.0.1:8000`, `unix:/x`,
    /// those of services last (`tcp://127.0.0.1:9000`).
    pub fn addresses(&self) -> Vec<String> {
        self.urls.clone()
    }

    /// How many loops there are.
    pub fn loops(&self) -> usize {
        self.shared.mailboxes.len()
    }

    /// Starts the loops, each on a thread of its own.
    pub fn start(&mut self) -> io::Result<()> {
        let reserve = &self.shared.reserve;
        if let Some(text) = reserve.scarcity(self.shared.config.limit_concurrency) {
            log::warning(format_args!("{text}"));
        }
        let mut sockets: Vec<Vec<Listener>> = (0..self.loops()).map(|_| Vec::new()).collect();
        for bound in self.bound.drain(..) {
            for (of_loop, socket) in sockets.iter_mut().zip(bound.sockets) {
                of_loop.push(socket);
            }
        }
        let cpus = match self.shared.config.pin_loops {
            true => affinity::allowed()?,
            false => Vec::new(),
        };
        for (index, listeners) in sockets.into_iter().enumerate() {
            let shared = self.shared.clone();
            let (added, purposes) = (self.services.clone(), self.purposes.clone());
            let let_go = self.let_go;
            let cpu = cpus.get(index % cpus.len().max(1)).copied();
            let epoll = Loop::watch(index as u16, &shared, &listeners)?;
            // A loop is made on its own thread, as what it keeps for callbacks never leaves it.
            let life = move || {
                if let Some(Err(error)) = cpu.map(affinity::pin) {
                    log::warning(format_args!(
                        "loop {index} is on no CPU of its own: {error}"
                    ));
                }
                let services = services_of(added, purposes);
                Loop::new(index as u16, shared, listeners, services, epoll, let_go).run();
            };
            let thread = std::thread::Builder::new()
                .name(format!("toolb-loop-{index}"))
                .spawn(move || abort_on_panic(life))?;
            self.threads().push(thread);
        }
        Ok(())
    }

    /// Makes a lane for a consumer that announced these numbers; it gets no work before `lane_up`.
    pub fn new_lane(
        &self,
        slots: u16,
        concurrency: u16,
        window: u16,
        streams: u16,
    ) -> io::Result<Arc<LaneHandle>> {
        let limits = LaneLimits {
            slots,
            concurrency,
            window,
            streams,
        };
        let files = self.shared.files.open()?;
        let full = || io::Error::other("the pool has no room for another consumer");
        let index = self.shared.pool.add_lane(limits).ok_or_else(full)?;
        let id = self.next_lane.fetch_add(1, Ordering::Relaxed);
        let rings = self.loops() as u16;
        match LaneHandle::new(id, index, &limits, rings, &self.shared.page, files) {
            Ok(handle) => Ok(Arc::new(handle)),
            Err(error) => {
                self.shared.pool.remove_lane(index);
                Err(error)
            }
        }
    }

    /// The consumer is ready: every loop takes the lane up, the last one opens it for dispatch.
    pub fn lane_up(&self, lane: &Arc<LaneHandle>) {
        lane.arriving.store(self.loops(), Ordering::Release);
        self.shared.broadcast(None, || Letter::LaneUp(lane.clone()));
    }

    /// No new exchanges for this consumer; those it has go on.
    pub fn lane_draining(&self, lane: &Arc<LaneHandle>) {
        lane.set_state(LaneState::Draining);
        lane.close(&self.shared.pool);
    }

    /// The consumer has sent the file of a response: for the exchange of the loop `owner` that holds
    /// this use of a slot. An error says what is wrong with it; the consumer is to be ended.
    pub fn lane_file(
        &self,
        lane: &Arc<LaneHandle>,
        owner: u16,
        slot: u16,
        generation: u32,
        file: OwnedFd,
    ) -> Result<(), &'static str> {
        // Whatever becomes of it, it is not closed here, where that may hang.
        let file = lane.files.take(file);
        let Some(mailbox) = self.shared.mailboxes.get(usize::from(owner)) else {
            return Err("it sent a file for a loop that there is not");
        };
        if lane.files.is_clogged() {
            return Err("it sends files that cannot be closed: does their file system hang?");
        }
        mailbox.post(Letter::File(lane.clone(), slot, generation, file));
        Ok(())
    }

    /// The consumer has died or left: loops drain what it published and settle the rest, then
    /// `ControlEvent::Released` tells that nothing of it is left.
    ///
    /// To be called once for every lane that `new_lane` made, whether it ever came up or not.
    pub fn lane_down(&self, lane: &Arc<LaneHandle>) {
        lane.close(&self.shared.pool);
        lane.set_state(LaneState::Closed);
        // The letters that take a lane up come before these, as mailboxes keep their order.
        let loops = self.loops();
        lane.leaving.store(loops, Ordering::Release);
        self.shared
            .broadcast(None, || Letter::LaneDown(lane.clone()));
    }

    /// Rings when `next_control_event` has something to tell.
    pub fn control_events(&self) -> &EventFd {
        &self.shared.event_bell
    }

    /// The next thing the supervisor should know.
    pub fn next_control_event(&self) -> Option<ControlEvent> {
        // A panic on a loop ends the process, so nobody can see a poisoned queue.
        let mut events = self.shared.events.lock().unwrap_or_else(|p| p.into_inner());
        events.pop_front()
    }

    /// Requests and streams that wait for a consumer.
    pub fn waiting(&self) -> usize {
        self.shared.pool.waiting()
    }

    /// Has `ControlEvent::Deserted` told, now or the next time.
    pub fn seek_deserters(&self) {
        self.shared.seeks_deserters.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.waiting() > 0 {
            self.shared.note_desertion();
        }
    }

    /// Counters, summed over the loops.
    pub fn stats(&self) -> Snapshot {
        LoopStats::sum(&self.shared.stats)
    }

    /// Stops accepting and ends every connection after what it is doing now;
    /// `ControlEvent::Idle` tells when none is left.
    pub fn drain(&self) {
        if !self.shared.draining.swap(true, Ordering::Relaxed) {
            self.files.remove();
            self.shared.broadcast(None, || Letter::Drain);
        }
    }

    /// No consumer will come any more: answers 503 to every request that waits for one, and to those that
    /// come to wait from now on. Streams are reset.
    pub fn forgo_consumers(&self) {
        if !self.shared.forgone.swap(true, Ordering::SeqCst) {
            self.shared.broadcast(None, || Letter::Forgo);
        }
    }

    /// Answers 503 to every request that has no answer yet, and breaks off those that are being
    /// answered: whoever works on them is about to be ended.
    pub fn cut_off(&self) {
        self.shared.broadcast(None, || Letter::Cut);
    }

    /// Ends the loops now; connections that are left are closed, as after
    /// [`cut_off`](Self::cut_off). Not from a loop.
    pub fn stop(&self) {
        self.files.remove();
        self.shared.broadcast(None, || Letter::Stop);
        // Nothing is locked while they end.
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            // A loop that panicked has ended the process already.
            let _ = thread.join();
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        // A panic cannot leave the list half changed.
        self.threads.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// Socket files that are still to be removed, at the latest when this is dropped.
#[derive(Default)]
struct SocketFiles(Mutex<Vec<PathBuf>>);

impl SocketFiles {
    fn add(&self, bound: &Bound) {
        self.list().extend(bound.file.clone());
    }

    /// As long as the sockets listen nobody takes their paths: later the files may be those of
    /// another engine.
    fn remove(&self) {
        for file in self.list().drain(..) {
            let _ = fs::remove_file(file);
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // A panic cannot leave the list half changed.
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A service as `add_service` got it.
#[derive(Clone)]
struct AddedService {
    service: Arc<dyn Service>,
    options: ServiceOptions,
    name: String,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a loop needs to know of the services.
fn services_of(added: Vec<AddedService>, purposes: Vec<Purpose>) -> Services {
    let options = added.iter().map(|one| one.options).collect();
    let services = added.into_iter();
    let services = services.map(|one| LoopService::new(one.service, one.name));
    Services {
        services: services.collect(),
        options,
        purposes,
    }
}

/// A loop holds connections of many clients in a state that nobody can vouch for after a panic.
fn abort_on_panic(run: impl FnOnce()) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    if outcome.is_err() {
        log::error(format_args!(
            "a loop panicked; the process ends, as no state can be trusted"
        ));
        std::process::abort();
    }
}
