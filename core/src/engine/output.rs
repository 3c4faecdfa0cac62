//! The client's side outwards: the engine's own answers, sending, closing, and deadlines.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::{EngineConfig, Timeouts};
use crate::http::{ResponseWriter, simple_response};

use super::conn::{Conn, Phase, Place};
use super::event_loop::{Loop, Timer};

/// How long a closed connection is read from, so that the client gets to read our last answer.
const LINGER: u64 = 2_000_000_000;
/// How long kept-alive connections may still ask once the server is stopping.
const LAST_CALL: u64 = 2_000_000_000;

impl Loop {
    /// Answers a request with a line of text, from the engine itself.
    pub(super) fn answer_simply(
        &mut self,
        key: u64,
        status: u16,
        text: &str,
        fields: &[(&str, &str)],
    ) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.raw {
            // Nobody there would understand it.
            return self.reset(key);
        }
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return;
        };
        let mut facts = exchange.facts;
        // What is left of the request is thrown away only when it is little.
        facts.keep_alive &= !conn.hung_up
            && !self.shared.draining.load(Ordering::Relaxed)
            && (exchange.body_done || conn.body.rest_is_small() && !exchange.wants_continue);
        let extras = super::event_loop::extras(&self.date, &self.shared);
        simple_response(&mut conn.output, &facts, status, text, fields, &extras);
        exchange.status = status;
        exchange.writer = Some(ResponseWriter::new(facts));
        self.finish(key, !facts.keep_alive);
    }

    pub(super) fn mark_dirty(&mut self, key: u64) {
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(key) {
            conn.taken = conn.taken.min(now);
            if !std::mem::replace(&mut conn.dirty, true) {
                self.dirty.push(key);
            }
        }
    }

    /// Sends what this turn wrote, once for each connection.
    pub(super) fn flush_conns(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            self.flush_conn(key);
        }
        // Flushing may have marked others; they are flushed next turn, which comes at once.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        } else {
            let again: Vec<u64> = self.dirty.clone();
            again.into_iter().for_each(|key| self.mark_ready(key));
        }
    }

    fn flush_conn(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.dirty = false;
        let (sent, alive) = conn.send_output();
        if sent > 0 {
            conn.taken = self.now;
        }
        if alive && conn.unsent() == 0 && conn.sends_file() {
            // The next part goes out in the next turn, which comes at once.
            self.refill(key);
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let done = conn.unsent() == 0;
        if conn.phase == Phase::Head && sent > 0 {
            if done {
                // The connection is idle only from now on.
                conn.since = self.now;
            }
            if !conn.is_behind(&self.shared.config) && (conn.can_read || !conn.unread().is_empty())
            {
                self.mark_ready(key);
            }
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if done {
            conn.taken = u64::MAX;
            let spare = std::mem::take(&mut conn.output);
            conn.sent = 0;
            self.spare(spare);
        }
        self.stats().bytes_out.add(sent as u64);
        if !alive {
            return self.drop_conn(key);
        }
        self.open_window(key);
        if done
            && self
                .conns
                .get_mut(key)
                .is_some_and(|conn| conn.phase == Phase::Closing)
        {
            return self.finish_closing(key);
        }
        self.set_timer(key);
    }

    /// Allows the consumer more of the response as the client takes it.
    fn open_window(&mut self, key: u64) {
        let window = u64::from(self.shared.config.response_window);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let unsent = conn.unsent() as u64;
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return;
        };
        let Place::Lane { lane, slot, .. } = exchange.place else {
            return self.open_token_window(key);
        };
        let granted = (exchange.received + window).saturating_sub(unsent);
        if granted < exchange.granted + window / 2 {
            return;
        }
        exchange.granted = granted;
        if let Some(lane) = self.lanes[usize::from(lane)].as_deref_mut() {
            lane.ends.slots.grant_response(slot, granted);
            lane.ends.notice.bump();
            lane.touched = true;
            // The lanes were flushed before the connections: come round again.
            self.lanes_dirty = true;
        }
    }

    /// Ends a connection once its output is out.
    pub(super) fn close_after_output(&mut self, key: u64) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.enter(Phase::Closing, self.now);
            self.mark_dirty(key);
        }
    }

    /// All is sent. If the client may still be sending, or something it sent has not been read,
    /// closing at once would reset the connection and could take our answer away from it.
    fn finish_closing(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        if conn.hung_up && !conn.can_read {
            return self.drop_conn(key);
        }
        conn.socket.shutdown_write();
        conn.enter(Phase::Linger, self.now);
        self.set_timer(key);
        self.mark_ready(key);
    }

    /// Cuts a connection whose response cannot be completed.
    pub(super) fn reset(&mut self, key: u64) {
        if let Some(conn) = self.conns.get_mut(key) {
            // What was sent so far may go out; the reset comes in place of the rest.
            conn.send_output();
            conn.socket.reset_on_close();
        }
        self.drop_conn(key);
    }

    /// Forgets a connection; an exchange on it is cancelled.
    pub(super) fn drop_conn(&mut self, key: u64) {
        self.abandon(key);
        let Some(mut conn) = self.conns.remove(key) else {
            return;
        };
        let _ = self.epoll.delete(&conn.socket);
        if conn.raw {
            self.shared.open_streams.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(exchange) = conn.exchange.as_deref_mut() {
            let record = std::mem::take(&mut exchange.record);
            self.spare(record);
        }
        let output = std::mem::take(&mut conn.output);
        self.spare(output);
        if self.read_buffer.capacity() == 0
            && conn.input.capacity() >= super::event_loop::READ_BUFFER
        {
            conn.input.clear();
            self.read_buffer = std::mem::take(&mut conn.input);
        }
        self.stats().closed.add(1);
        self.check_idle();
    }

    /// Makes sure that the loop wakes at the connection's next deadline.
    pub(super) fn set_timer(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let deadline = conn.deadline(&self.shared.config, self.last_call_over);
        if deadline < conn.timer {
            conn.timer = deadline;
            self.deadlines.insert(deadline, Timer::Conn(key));
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
                    Place::Queued(_, until) if self.now >= *until => self.time_out_in_queue(key),
                    Place::Lane { lane, .. }
                        if exchange.writer.is_none() && self.now >= exchange.deadline =>
                    {
                        let lane = *lane;
                        self.abandon(key);
                        self.suspect(lane);
                        self.stats().timed_out.add(1);
                        self.answer_simply(key, 504, "the application took too long\n", &[]);
                    }
                    Place::Queued(..) | Place::Token(_) | Place::File(_)
                        if exchange.writer.is_none() && self.now >= exchange.deadline =>
                    {
                        self.abandon(key);
                        self.stats().timed_out.add(1);
                        self.answer_simply(key, 504, "the application took too long\n", &[]);
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
        self.answer_simply(
            key,
            503,
            "no worker was free in time, try again soon\n",
            &[("retry-after", "1")],
        );
    }

    /// Stops accepting; every connection ends after what it is doing now.
    pub(super) fn drain(&mut self) {
        // Whoever has connected has been accepted, as far as the client can tell.
        for address in 0..self.listeners.len() {
            while self.accepting && self.accept_at(address) {}
        }
        for listener in &self.listeners {
            let _ = self.epoll.delete(listener);
        }
        self.listeners.clear();
        self.draining = true;
        self.deadlines.insert(self.now + LAST_CALL, Timer::Drain);
        for key in self.conns.keys() {
            self.set_timer(key);
        }
        // Services hear of those that came last before they hear that these were the last.
        self.go_on_with_streams();
        self.drain_services();
        self.check_idle();
    }

    /// The last call is over: idle connections end, and from now on each that becomes idle.
    pub(super) fn drain_deadline(&mut self) {
        self.last_call_over = true;
        for key in self.conns.keys() {
            self.set_timer(key);
        }
    }

    pub(super) fn check_idle(&mut self) {
        let left = self.conns.len() + self.calls.streams.len();
        if self.draining && left == 0 && !self.reported_idle {
            self.reported_idle = true;
            self.shared.loop_is_idle();
        }
    }
}

impl Conn {
    /// Sends what the socket takes: how many bytes, and whether the connection lives.
    fn send_output(&mut self) -> (usize, bool) {
        let before = self.unsent();
        let alive = self.try_send();
        (before - self.unsent(), alive)
    }

    fn try_send(&mut self) -> bool {
        while self.can_write && self.sent < self.output.len() {
            match self.socket.send(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.can_write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.forget_sent();
        true
    }

    /// A long response must not drag its sent part along, nor be moved again and again for that.
    fn forget_sent(&mut self) {
        if self.sent >= 64 * 1024 && self.sent >= self.unsent() {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

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
            Phase::Head if self.unread().is_empty() && last_call_over => self.since,
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
                match &exchange.place {
                    Place::Queued(_, until) => response.min(*until),
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
    use super::*;

    #[test]
    fn a_long_response_is_moved_once_for_each_time_it_halves() {
        let mut conn = Conn::of_test();
        conn.output = vec![0; 64 << 20];
        let (mut moves, mut before) = (0, conn.unsent());
        while conn.unsent() > 64 * 1024 {
            conn.sent += 64 * 1024;
            conn.forget_sent();
            moves += usize::from(conn.sent == 0);
            assert_eq!(conn.unsent(), before - 64 * 1024);
            before = conn.unsent();
        }
        assert_eq!(moves, 10);
    }
}
