//! The client's side outwards: the engine's own answers, sending and closing.

use std::io;
use std::sync::atomic::Ordering;

use crate::http::{ResponseWriter, simple_response};
use crate::log::access::End;

use super::conn::{Conn, Phase, Place};
use super::event_loop::Loop;

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
        let mut writer = ResponseWriter::new(facts);
        if !facts.head_request {
            writer.appended(text.len() as u64);
        }
        exchange.writer = Some(writer);
        self.finish(key, !facts.keep_alive);
    }

    /// Answers a request that nobody can serve now, though somebody may soon.
    pub(super) fn answer_unserved(&mut self, key: u64, text: &str) {
        self.answer_simply(key, 503, text, &[("retry-after", "1")]);
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
            if let Some(wants) = conn.wants.as_deref_mut() {
                wants.moved(self.now);
            }
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
        if (conn.hung_up || conn.has_asked_its_last()) && !conn.can_read {
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
            conn.cut = true;
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
        self.waste_deadline(conn.timer);
        if conn.raw {
            self.shared.open_streams.fetch_sub(1, Ordering::Relaxed);
        }
        let has_taken_all = conn.unsent() == 0;
        if let Some(exchange) = conn.exchange.as_deref_mut() {
            let record = std::mem::take(&mut exchange.record);
            if exchange.counted {
                let has_no_end = exchange.writer.as_ref().is_some_and(|it| it.left() == 0);
                self.stats().broken.add(1);
                let unmissed = has_no_end || !conn.cut;
                self.stats().unmissed.add(u64::from(unmissed));
            }
            if let Some(access) = self.shared.access.as_ref().filter(|_| !conn.raw) {
                // The client has left before the end, or was cut off: 499 is what nginx calls it if
                // there was no answer yet.
                let (status, end) = match &exchange.writer {
                    Some(_) if conn.cut => (exchange.status, End::Cut),
                    Some(writer) if writer.has_all() && has_taken_all => {
                        (exchange.status, End::Whole)
                    }
                    Some(_) => (exchange.status, End::Left),
                    None => (499, End::Whole),
                };
                let peer = conn.peer.take().map(|(host, _)| host);
                access.push(exchange.entry(peer, status, self.now, end));
            }
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
