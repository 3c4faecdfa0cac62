//! The end of a loop's turn: output is sent, once for each stream, ends are told, deadlines are set.

use std::io;

use crate::sys::socket;

use super::super::event_loop::{Loop, READ_BUFFER, Timer};
use super::CloseReason;
use super::patience::after;
use super::state::{Ending, Phase, Stream};

impl Loop {
    /// Sends what this turn queued, tells ends, and sets deadlines.
    pub(in crate::engine) fn finish_streams(&mut self) {
        self.settle_streams();
        if self.calls.streams.over.is_empty() {
            return;
        }
        let mut over = std::mem::take(&mut self.calls.streams.over);
        for key in over.drain(..) {
            self.tell_end(key);
        }
        if self.calls.streams.over.is_empty() {
            self.calls.streams.over = over;
        }
        // What those callbacks sent to others goes out in the same turn.
        self.settle_streams();
    }

    pub(super) fn settle_streams(&mut self) {
        let mut dirty = std::mem::take(&mut self.calls.streams.dirty);
        for key in dirty.drain(..) {
            self.settle_stream(key);
        }
        if self.calls.streams.dirty.is_empty() {
            self.calls.streams.dirty = dirty;
        }
    }

    fn settle_stream(&mut self, key: u64) {
        let (now, send_idle) = (self.now, self.shared.config.timeouts.send_idle);
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        stream.in_dirty = false;
        if !stream.watched && stream.socket.is_some() {
            let watched = self.watch_stream(key);
            if let Err(error) = watched
                && let Some(stream) = self.calls.streams.table.find_mut(key)
            {
                let number = error.raw_os_error().unwrap_or(socket::INVALID);
                stream.phase = Phase::Over(Ending::ConnectFailed(number));
            }
        }
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        let options = &self.calls.streams.options[usize::from(stream.service)];
        let sent = stream.send_output();
        if sent > 0 {
            stream.moved(now, options);
        }
        if stream.conclude(options)
            && !stream.ended
            && let Some(socket) = &stream.socket
        {
            socket.shutdown_write();
        }
        if stream.phase == Phase::Linger && stream.ended {
            return self.remove_stream(key);
        }
        let over = matches!(stream.phase, Phase::Over(_));
        let more = stream.next_event(options).is_some() || stream.wants_to_read(options);
        let deadline = stream.deadline(send_idle);
        if deadline < stream.timer {
            let before = std::mem::replace(&mut stream.timer, deadline);
            self.deadlines.insert(deadline, Timer::Stream(key));
            self.waste_deadline(before);
        }
        self.stats().bytes_out.add(sent as u64);
        if over {
            self.calls.streams.over.push(key);
        } else if more {
            self.calls.streams.queue(key);
        }
    }

    /// Tells a service that a stream has ended, and lets go of the stream.
    pub(super) fn tell_end(&mut self, key: u64) {
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        let Phase::Over(ending) = stream.phase else {
            return;
        };
        let service = stream.service;
        match ending {
            Ending::Closed(reason) => {
                self.tell(key, service, |callbacks, context, id| {
                    callbacks.close(context, id, reason);
                });
                self.stats().streams_closed.add(1);
            }
            Ending::ConnectFailed(number) => {
                let error = io::Error::from_raw_os_error(number);
                self.tell(key, service, |callbacks, context, id| {
                    callbacks.connect_fail(context, id, error);
                });
            }
            Ending::Unknown => self.stats().streams_closed.add(1),
        }
        let now = self.now;
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        let ours = matches!(
            ending,
            Ending::Closed(CloseReason::Closed | CloseReason::Timeout)
        );
        if !ours || stream.ended || self.calls.streams.stopping {
            return self.remove_stream(key);
        }
        stream.phase = Phase::Linger;
        stream.patience.until = after(now, Some(LINGER));
        stream.input = Vec::new();
        stream.consumed = 0;
        self.calls.streams.touch(key);
    }

    pub(super) fn remove_stream(&mut self, key: u64) {
        let Some(stream) = self.calls.streams.table.remove(key) else {
            return;
        };
        if let Some(socket) = &stream.socket
            && stream.watched
        {
            let _ = self.epoll.delete(socket);
        }
        self.waste_deadline(stream.timer);
        drop(stream);
        self.check_idle();
    }

    /// A stream or a connection does not need its entry among the deadlines any more, if it had one.
    pub(in crate::engine) fn waste_deadline(&mut self, due: u64) {
        if due == u64::MAX {
            return;
        }
        let (table, conns) = (&self.calls.streams.table, &mut self.conns);
        self.deadlines.waste(|due, timer| match timer {
            Timer::Conn(key) => conns.get_mut(key).is_some_and(|conn| conn.timer == due),
            Timer::Stream(key) => table.find(key).is_some_and(|stream| stream.timer == due),
            _ => true,
        });
    }
}

impl Stream {
    /// Sends what the socket takes, and tells how much that was.
    fn send_output(&mut self) -> usize {
        let ready = matches!(
            self.phase,
            Phase::Fresh { .. } | Phase::Open | Phase::Closing(_)
        );
        let before = self.sent;
        while ready && self.can_write && self.sent < self.output.len() {
            let Some(socket) = &self.socket else {
                break;
            };
            match socket.send(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.can_write = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // What the peer sent before may still be there to be read, and then the end.
                    self.broken = true;
                    self.can_read = true;
                    self.hung_up = true;
                    self.output = Vec::new();
                    self.sent = 0;
                    self.taken = u64::MAX;
                    return 0;
                }
            }
        }
        let sent = self.sent - before;
        if self.sent > 0 && self.sent == self.output.len() {
            self.output = Vec::new();
            self.sent = 0;
        } else if self.sent >= READ_BUFFER && self.sent >= self.output.len() / 2 {
            // A long queue must not drag its sent part along, nor be moved too often.
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        sent
    }

    /// The engine ends.
    pub(super) fn stop(&mut self) {
        if self.unsent() > 0
            && let Some(socket) = &self.socket
        {
            socket.reset_on_close();
        }
        self.phase = match self.phase {
            Phase::Connecting | Phase::Fresh { outgoing: true } => {
                Phase::Over(Ending::ConnectFailed(socket::CANCELLED))
            }
            Phase::Fresh { outgoing: false } => Phase::Over(Ending::Unknown),
            Phase::Open | Phase::Closing(_) => Phase::Over(Ending::Closed(CloseReason::Stopping)),
            Phase::Over(_) | Phase::Linger => self.phase,
        };
    }
}

/// How long a closed stream is read from, so that the peer gets to read what was sent last.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);
