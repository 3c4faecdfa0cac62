//! What the loops and the control thread share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};

use crate::bus::StatusPage;
use crate::config::EngineConfig;
use crate::dispatch::Pool;
use crate::log::access::AccessLog;
use crate::stats::LoopStats;
use crate::sys::eventfd::EventFd;

use super::file_desk::FileDesks;
use super::mailbox::{Letter, Mailbox};
use super::reserve::Reserve;
use super::routes::Routes;

/// What the engine tells its supervisor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ControlEvent {
    /// The consumer of this lane broke the contract of the bus: it is to be ended.
    Poisoned {
        /// The lane.
        lane_id: u64,
        /// Which rule it broke.
        reason: String,
    },
    /// The consumer of this lane has work to do and stands still.
    Stuck {
        /// The lane.
        lane_id: u64,
    },
    /// Many slots of this lane are held by exchanges that nobody has waited for, for long: its
    /// consumer turns, but does not let go of them. Told again and again.
    Crowded {
        /// The lane.
        lane_id: u64,
        /// How many slots.
        left: usize,
        /// Of how many.
        slots: usize,
    },
    /// A crowded lane that was closed has come to the end of all other exchanges.
    Settled {
        /// The lane.
        lane_id: u64,
    },
    /// All loops have let go of the lane of a dead consumer.
    Released {
        /// The lane.
        lane_id: u64,
        /// What became of the requests that it held.
        toll: Toll,
    },
    /// Somebody waits, and there is no consumer that could take what he wants. Told if it was asked
    /// for, once each time.
    Deserted,
    /// After `drain`: no connection is left.
    Idle,
}

/// What became of the requests of a consumer that has gone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Toll {
    /// Begun, and answered 502.
    pub failed: usize,
    /// Broken off in the middle of the response; streams as well.
    pub cut: usize,
    /// Not begun, and handed to others.
    pub moved: usize,
}

pub(super) struct Shared {
    pub(super) config: EngineConfig,
    pub(super) routes: Routes,
    pub(super) pool: Pool,
    pub(super) page: StatusPage,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    pub(super) stats: Vec<LoopStats>,
    pub(super) access: Option<AccessLog>,
    /// What a request learns of the address it came to, by address.
    pub(super) servers: Vec<(String, u16)>,
    pub(super) draining: AtomicBool,
    /// Consumers that could take what waits will not come.
    pub(super) forgone: AtomicBool,
    /// Whoever looks after the engine wants to be told, once, if somebody waits though there is no
    /// consumer.
    pub(super) seeks_deserters: AtomicBool,
    /// Raw connections that consumers hold or wait for.
    pub(super) open_streams: AtomicUsize,
    pub(super) files: FileDesks,
    pub(super) reserve: Reserve,
    /// Loops that have connections, counted once draining.
    pub(super) busy_loops: AtomicUsize,
    pub(super) events: Mutex<VecDeque<ControlEvent>>,
    pub(super) event_bell: EventFd,
}

impl Shared {
    /// Posts a letter to every loop but `except`.
    pub(super) fn broadcast(&self, except: Option<u16>, letter: impl Fn() -> Letter) {
        for (index, mailbox) in self.mailboxes.iter().enumerate() {
            if Some(index as u16) != except {
                mailbox.post(letter());
            }
        }
    }

    /// A request of loop `own` waits for room, which may come free on rings of loops that sleep: lets
    /// them ask to be told of starts.
    pub(super) fn ask_for_starts(&self, own: u16) {
        self.pool.ask_for_starts(|| self.call_others(own));
    }

    /// Whether the consumers are to tell loop `own` of starts.
    #[inline]
    pub(super) fn wants_starts(&self, own: u16) -> bool {
        self.pool.wants_starts(|| self.call_others(own))
    }

    /// Makes the other loops turn, and so ask `wants_starts` before they sleep again.
    fn call_others(&self, own: u16) {
        self.broadcast(Some(own), || Letter::Pump);
    }

    /// Tells the supervisor.
    pub(super) fn tell(&self, event: ControlEvent) {
        // A panic on a loop ends the process, so nobody can see a poisoned queue.
        let mut events = self.events.lock().unwrap_or_else(|p| p.into_inner());
        events.push_back(event);
        let _ = self.event_bell.signal();
    }

    /// Somebody waits, or did not even get to: if there is no consumer that could take it, that is told
    /// whoever wants to know.
    pub(super) fn note_desertion(&self) {
        // Either this sees the wish, or whoever has it sees who waits.
        fence(Ordering::SeqCst);
        if self.seeks_deserters.load(Ordering::Relaxed)
            && !self.pool.has_open_lane()
            && self.seeks_deserters.swap(false, Ordering::Relaxed)
        {
            self.tell(ControlEvent::Deserted);
        }
    }

    /// Accounts for one loop that has finished its drain.
    pub(super) fn loop_is_idle(&self) {
        if self.busy_loops.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tell(ControlEvent::Idle);
        }
    }
}
