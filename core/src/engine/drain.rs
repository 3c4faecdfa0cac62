//! The end of serving: no more connections, and each that there is ends in its time.

use super::accept::ACCEPT_BATCH;
use super::conn::Place;
use super::event_loop::{Loop, Purpose, Timer};

/// How long kept-alive connections may still ask once the server is stopping, and how long those that
/// are accepted after that may take to ask at all.
pub(super) const LAST_CALL: u64 = 2_000_000_000;

impl Loop {
    /// Accepts those who have connected and nobody else; every connection ends after what it is doing
    /// now.
    pub(super) fn drain(&mut self) {
        for listener in &self.listeners {
            let _ = self.epoll.delete(listener);
        }
        // No more than can have waited: who keeps coming must not keep the end away.
        let waiting = self.shared.config.backlog as usize + ACCEPT_BATCH;
        self.last_clients = vec![waiting; self.listeners.len()];
        self.draining = true;
        self.deadlines.insert(self.now + LAST_CALL, Timer::Drain);
        for key in self.conns.keys() {
            self.set_timer(key);
        }
        self.accept_last();
        // Services hear of those that came last before they hear that these were the last. They hear that
        // at once, even if HTTP still waits for room: their streams may be what takes it.
        for (left, purpose) in self.last_clients.iter_mut().zip(&self.purposes) {
            if let Purpose::Service(_) = purpose {
                *left = 0;
            }
        }
        self.go_on_with_streams();
        self.drain_services();
        self.check_idle();
    }

    /// Whoever has connected has been accepted, as far as the client can tell, even if accepting
    /// rests: until others leave, if need be, as what is kept from clients may be needed for those who
    /// are to answer them.
    pub(super) fn accept_last(&mut self) {
        self.accepting = true;
        for address in 0..self.listeners.len() {
            let most = self.last_clients[address];
            self.last_clients[address] -= self.accept_at(address, most);
        }
        if self.accepting {
            self.listeners.clear();
        }
    }

    /// The last call is over: idle connections end, and from now on each that becomes idle.
    pub(super) fn drain_deadline(&mut self) {
        self.last_call_over = true;
        for key in self.conns.keys() {
            self.set_timer(key);
        }
    }

    /// Nobody comes for what waits for a consumer.
    pub(super) fn forgo_waiting(&mut self) {
        for key in self.conns.keys() {
            self.forgo(key);
        }
    }

    /// If it waits for a consumer, it does so no longer.
    pub(super) fn forgo(&mut self, key: u64) {
        let Some(exchange) = self.exchange(key) else {
            return;
        };
        if let Place::Queued(ticket, _) = &exchange.place
            && ticket.cancel()
        {
            exchange.place = Place::Here;
            self.shared.pool.leave();
            self.answer_unserved(key, "the server is about to end\n");
        }
    }

    /// Nobody goes on with what is left: what has no answer yet gets one, the rest ends where it is.
    pub(super) fn cut_off(&mut self) {
        // What consumers have said by now counts.
        self.drain_lanes();
        for key in self.conns.keys() {
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            let (raw, answered) = (conn.raw, conn.has_answered());
            let Some(exchange) = conn.exchange.as_deref_mut() else {
                continue;
            };
            if raw || answered {
                self.reset(key);
                continue;
            }
            exchange.facts.keep_alive = false;
            self.abandon(key);
            self.answer_unserved(key, "the server is about to end\n");
        }
    }

    pub(super) fn check_idle(&mut self) {
        let left = self.conns.len() + self.calls.streams.len();
        let has_all = self.draining && self.listeners.is_empty();
        if has_all && left == 0 && !self.reported_idle {
            self.reported_idle = true;
            self.shared.loop_is_idle();
        }
    }
}
