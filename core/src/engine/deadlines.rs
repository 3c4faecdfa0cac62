//! When something has to be done about a connection though nothing happens on it, and what.

use std::time::Duration;

use crate::config::{EngineConfig, Timeouts};

use super::conn::{Conn, Phase, Place};
use super::drain::LAST_CALL;
use super::event_loop::{Loop, Timer};

/// How long a closed connection is read from, so that the client gets to read our last answer.
const LINGER: u64 = 2_000_000_000;

impl Loop {
    /// Makes sure that the loop wakes at the connection's next deadline.
    pub(super) fn set_timer(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let deadline = conn.deadline(&self.shared.config, self.last_call_over);
        if deadline < conn.timer {
            let before = std::mem::replace(&mut conn.timer, deadline);
            self.deadlines.insert(deadline, Timer::Conn(key));
            self.waste_deadline(before);
        }
    }

    pub(super) fn conn_deadline(&mut self, key: u64, due: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.timer != due {
            // An earlier deadline has replaced this entry.
            return;
        }
        conn.timer = u64::MAX;
        if conn.deadline(&self.shared.config, self.last_call_over) > self.now {
            return self.set_timer(key);
        }
        self.overdue_conn(key);
        self.set_timer(key);
    }

    /// A connection's deadline has passed: which one decides what is done.
    fn overdue_conn(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let send_idle = self.shared.config.timeouts.send_idle.as_nanos() as u64;
        if conn.unsent() > 0 && self.now >= conn.taken.saturating_add(send_idle) {
            // The client takes nothing: cut it, so that it cannot mistake this for an end.
            return self.reset(key);
        }
        match conn.phase {
            Phase::Head if conn.unread().is_empty() => self.drop_conn(key),
            Phase::Head => self.time_out_request(key),
            Phase::Linger | Phase::Closing | Phase::Discard => self.drop_conn(key),
            Phase::Body | Phase::Response => {
                let Some(exchange) = conn.exchange.as_deref() else {
                    return;
                };
                match &exchange.place {
                    &Place::Lane {
                        lane,
                        slot,
                        generation,
                    } if conn.raw => self.time_out_stream(key, (lane, slot, generation)),
                    Place::Queued(..) => self.time_out_in_queue(key),
                    &Place::Lane {
                        lane,
                        slot,
                        generation,
                    } if exchange.writer.is_none() && self.now >= exchange.deadline => {
                        self.abandon(key);
                        self.note_overdue(lane, slot, generation);
                        self.answer_lateness(key);
                    }
                    Place::Token(_) | Place::File(_)
                        if exchange.writer.is_none() && self.now >= exchange.deadline =>
                    {
                        self.abandon(key);
                        self.answer_lateness(key);
                    }
                    _ if exchange.writer.is_some() => self.reset(key),
                    _ => self.time_out_request(key),
                }
            }
        }
    }

    fn time_out_request(&mut self, key: u64) {
        let reject = crate::http::Reject {
            status: 408,
            reason: "the request took too long to arrive",
        };
        self.refuse(key, reject);
    }

    fn answer_lateness(&mut self, key: u64) {
        self.stats().timed_out.add(1);
        self.warn_of_lateness(key);
        self.answer_simply(key, 504, "the application took too long\n", &[]);
    }

    fn time_out_in_queue(&mut self, key: u64) {
        let Some(exchange) = self.exchange(key) else {
            return;
        };
        let Place::Queued(ticket, _) = &exchange.place else {
            return;
        };
        if !ticket.cancel() {
            // It was granted in this instant; the letter is on its way.
            let until = self.now + 1_000_000_000;
            if let Some(exchange) = self.exchange(key)
                && let Place::Queued(_, at) = &mut exchange.place
            {
                *at = until;
            }
            return;
        }
        exchange.place = Place::Here;
        self.shared.pool.leave();
        self.stats().queue_timeouts.add(1);
        self.warn_of_wait(key);
        self.answer_unserved(key, "no worker was free in time, try again soon\n");
    }
}

impl Conn {
    /// When something has to be done about this connection if nothing happens.
    fn deadline(&self, config: &EngineConfig, last_call_over: bool) -> u64 {
        let timeouts = &config.timeouts;
        let sending = match self.unsent() {
            0 => u64::MAX,
            _ => after(self.taken, timeouts.send_idle),
        };
        let working = match self.phase {
            // The last response is not out yet: the client is not idle.
            Phase::Head if self.unsent() > 0 => u64::MAX,
            Phase::Head if self.unread().is_empty() && last_call_over => match self.served {
                true => self.since,
                false => self.since + LAST_CALL,
            },
            Phase::Head if self.unread().is_empty() && self.served => {
                after(self.since, timeouts.keep_alive)
            }
            Phase::Head => after(self.since, timeouts.request_header),
            Phase::Linger => self.since + LINGER,
            Phase::Closing => u64::MAX,
            Phase::Discard => self.body_deadline(timeouts),
            Phase::Body | Phase::Response => {
                let Some(exchange) = self.exchange.as_deref() else {
                    return sending;
                };
                let response = match exchange.writer {
                    Some(_) => u64::MAX,
                    None => exchange.deadline,
                };
                let body = match self.phase {
                    Phase::Body if self.wants_body && !self.raw => self.body_deadline(timeouts),
                    _ => u64::MAX,
                };
                match (&exchange.place, &self.wants) {
                    (Place::Queued(_, until), _) => *until,
                    (Place::Lane { .. }, Some(wants)) => wants.deadline(),
                    _ => response.min(body),
                }
            }
        };
        working.min(sending)
    }

    /// When the client has let us wait too long for its body, or has sent it too slowly.
    fn body_deadline(&self, timeouts: &Timeouts) -> u64 {
        let pace = match timeouts.request_body_min_rate {
            0 => u64::MAX,
            rate => {
                let allowed = self.body_read.saturating_mul(1_000_000_000) / rate;
                after(self.since.saturating_add(allowed), timeouts.request_body)
            }
        };
        after(self.moved, timeouts.request_body).min(pace)
    }
}

/// 0 is no timeout.
fn after(base: u64, timeout: Duration) -> u64 {
    match timeout.as_nanos() as u64 {
        0 => u64::MAX,
        timeout => base.saturating_add(timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Routes;
    use super::super::event_loop::tests::unstarted;
    use super::*;

    #[test]
    fn connections_that_have_gone_leave_few_deadlines_behind() {
        let (_engine, mut one) = unstarted(Routes::default());
        for _ in 0..500 {
            let key = one.conns.insert(Conn::of_test());
            one.set_timer(key);
            one.drop_conn(key);
        }
        assert!(one.deadlines.len() < 200, "{}", one.deadlines.len());
    }
}
