//! The loop's part: sockets, callbacks and the order of things in a turn.
//!
//! What the kernel tells is noted first. Then each stream with news has its turn (`go_on_with_streams`):
//! one read, one callback. Timeouts follow. At the end everything that was touched is settled
//! (`finish_streams`): output is sent, once for each stream, ends are told, deadlines are set.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::log::{self, Level, Throttle};
use crate::sys::clock;
use crate::sys::epoll;
use crate::sys::socket::{self, Socket};

use super::super::context::Context;
use super::super::event_loop::{Loop, READ_BUFFER, TAG_STREAM, Timer};
use super::state::{Ending, Event, Overdue, Phase, Stream, after};
use super::{Callbacks, CloseReason, Service, StreamId, Wait};

/// A service on one loop.
pub(in crate::engine) struct LoopService {
    service: Arc<dyn Service>,
    /// As a person writes its address.
    name: String,
    /// `None` while one of them runs, before `init` and after `exit`.
    callbacks: Option<Box<dyn Callbacks>>,
}

impl LoopService {
    pub(in crate::engine) fn new(service: Arc<dyn Service>, name: String) -> Self {
        Self {
            service,
            name,
            callbacks: None,
        }
    }
}

impl Loop {
    /// Has each service make its callbacks, before anything is accepted.
    pub(in crate::engine) fn init_services(&mut self) {
        for index in 0..self.services.len() {
            self.calls.streams.current = Some(index as u16);
            let service = self.services[index].service.clone();
            let callbacks = service.init(&mut self.context());
            self.services[index].callbacks = Some(callbacks);
        }
        self.calls.streams.current = None;
    }

    /// A client has connected to a service. False: there is no room for more.
    pub(in crate::engine) fn stream_accepted(
        &mut self,
        service: u16,
        socket: Socket,
        peer: Option<SocketAddr>,
    ) -> bool {
        let mut stream = Stream::new(service, Some(socket));
        stream.peer = peer;
        let Ok(key) = self.calls.streams.table.insert(Box::new(stream)) else {
            // More streams than ids: the connection is dropped with the stream.
            return false;
        };
        if self.watch_stream(key).is_err() {
            self.calls.streams.table.remove(key);
            self.pause_accepting();
            return false;
        }
        self.stats().streams_accepted.add(1);
        self.calls.streams.queue(key);
        true
    }

    /// The kernel has news of a stream.
    pub(in crate::engine) fn stream_event(&mut self, key: u64, flags: u32) {
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        let over = flags & (epoll::HUP | epoll::ERR) != 0;
        stream.can_read |= over || flags & (epoll::IN | epoll::RDHUP) != 0;
        stream.can_write |= over || flags & epoll::OUT != 0;
        stream.hung_up |= over || flags & epoll::RDHUP != 0;
        if stream.phase == Phase::Connecting && (over || flags & epoll::OUT != 0) {
            let failed = stream.socket.as_ref().and_then(Socket::take_error);
            stream.phase = match failed {
                None => Phase::Fresh { outgoing: true },
                Some(number) => Phase::Over(Ending::ConnectFailed(number)),
            };
        }
        let options = &self.calls.streams.options[usize::from(stream.service)];
        let used = matches!(stream.phase, Phase::Open | Phase::Closing(_));
        if flags & epoll::ERR != 0 && used && !stream.wants_to_read(options) {
            // Nobody is going to read as far as the error.
            stream.broken = true;
            stream.ended = true;
        }
        self.calls.streams.queue(key);
        self.calls.streams.touch(key);
    }

    /// Gives each stream that has something to be told its turn.
    pub(in crate::engine) fn go_on_with_streams(&mut self) {
        // What is added meanwhile has its turn next time, after the kernel's news.
        for _ in 0..self.calls.streams.work.len() {
            let Some(key) = self.calls.streams.work.pop_front() else {
                return;
            };
            if let Some(stream) = self.calls.streams.table.find_mut(key) {
                stream.in_work = false;
                self.go_on_with(key);
            }
        }
    }

    /// A deadline in the heap has come for this stream.
    pub(in crate::engine) fn stream_deadline(&mut self, key: u64, due: u64) {
        let (now, send_idle) = (self.now, self.shared.config.timeouts.send_idle);
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        if stream.timer != due {
            // An earlier deadline has replaced this entry.
            return;
        }
        stream.timer = u64::MAX;
        self.calls.streams.touch(key);
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        match stream.overdue(now, send_idle) {
            None => {}
            Some(Overdue::Connect) => {
                stream.phase = Phase::Over(Ending::ConnectFailed(socket::TIMED_OUT));
            }
            Some(Overdue::Idle) => {
                let service = stream.service;
                stream.wanted = None;
                let options = &self.calls.streams.options[usize::from(service)];
                stream.wait(Wait::Default, now, options);
                self.tell(key, service, |callbacks, context, id| {
                    callbacks.timeout(context, id);
                });
            }
            Some(Overdue::Linger) => self.remove_stream(key),
            Some(Overdue::Send) => {
                // Cut, so that the peer cannot mistake this for an end.
                if let Some(socket) = &stream.socket {
                    socket.reset_on_close();
                }
                stream.phase = Phase::Over(Ending::Closed(CloseReason::SendTimeout));
            }
        }
    }

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

    /// Tells services that the engine is going to end.
    pub(in crate::engine) fn drain_services(&mut self) {
        for service in 0..self.services.len() as u16 {
            self.call(service, |callbacks, context| callbacks.drain(context));
        }
    }

    /// Ends all streams and then the services.
    pub(in crate::engine) fn end_services(&mut self) {
        self.settle_streams();
        self.calls.streams.stopping = true;
        for key in self.calls.streams.table.keys() {
            if let Some(stream) = self.calls.streams.table.find_mut(key) {
                stream.stop();
                self.tell_end(key);
                self.remove_stream(key);
            }
        }
        for service in 0..self.services.len() as u16 {
            self.call(service, |callbacks, context| callbacks.exit(context));
            self.services[usize::from(service)].callbacks = None;
        }
    }

    fn go_on_with(&mut self, key: u64) {
        self.read_stream(key);
        let now = self.now;
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        let service = stream.service;
        let options = &self.calls.streams.options[usize::from(service)];
        if let Some(event) = stream.next_event(options) {
            let before = stream.unread().len();
            stream.tell(event, now, options);
            match event {
                Event::Begin { outgoing: false } => {
                    self.tell(key, service, |callbacks, context, id| {
                        callbacks.accept(context, id);
                    });
                }
                Event::Begin { outgoing: true } => {
                    self.stats().streams_connected.add(1);
                    self.tell(key, service, |callbacks, context, id| {
                        callbacks.connect(context, id);
                    });
                }
                Event::Receive => {
                    self.tell(key, service, |callbacks, context, id| {
                        callbacks.receive(context, id);
                    });
                    if let Some(stream) = self.calls.streams.table.find_mut(key)
                        && stream.ended
                        && stream.unread().len() == before
                    {
                        // Nothing more will come: whoever leaves it unread now always will.
                        stream.wanted = None;
                    }
                }
                Event::Writable => {
                    self.tell(key, service, |callbacks, context, id| {
                        callbacks.writable(context, id);
                    });
                }
            }
        }
        self.stow_stream(key);
        self.calls.streams.touch(key);
    }

    /// Reads once, at most as much as the service lets it.
    fn read_stream(&mut self, key: u64) {
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        let options = &self.calls.streams.options[usize::from(stream.service)];
        if !stream.wants_to_read(options) {
            return;
        }
        let Some(socket) = &stream.socket else {
            return;
        };
        if stream.phase == Phase::Linger {
            stream.input.clear();
            stream.consumed = 0;
        }
        if stream.consumed > 0 {
            stream.input.drain(..stream.consumed);
            stream.consumed = 0;
        }
        let unread = stream.input.len();
        let mut room = (options.receive_limit - unread).min(READ_BUFFER);
        if unread < READ_BUFFER / 2 && self.read_buffer.capacity() >= READ_BUFFER {
            // Lent to the stream until its callback has run.
            let mut buffer = std::mem::take(&mut self.read_buffer);
            buffer.clear();
            buffer.extend_from_slice(&stream.input);
            stream.input = buffer;
            room = room.min(READ_BUFFER - unread);
        }
        stream.input.reserve(room);
        match socket.recv_at_most(&mut stream.input, room) {
            Ok(0) => {
                stream.ended = true;
                stream.can_read = false;
            }
            Ok(count) => {
                // A short read has emptied the socket: the next byte will be a new edge. Behind a
                // hang-up there is no next edge, so its end of stream must be read for.
                stream.can_read = count == room || stream.hung_up;
                stream.news = true;
                if stream.phase == Phase::Linger {
                    stream.consumed = stream.input.len();
                }
                self.stats().bytes_in.add(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.can_read = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                stream.ended = true;
                stream.broken = true;
            }
        }
    }

    /// Takes a lent buffer back; what is unread gets one of its size.
    fn stow_stream(&mut self, key: u64) {
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return;
        };
        let unread = stream.unread().len();
        if unread > 0 && stream.input.capacity() < 2 * unread + SMALL {
            return;
        }
        let mut buffer = std::mem::take(&mut stream.input);
        stream.input = buffer[stream.consumed..].to_vec();
        stream.consumed = 0;
        if self.read_buffer.capacity() == 0 && buffer.capacity() >= READ_BUFFER {
            buffer.clear();
            self.read_buffer = buffer;
        }
    }

    fn settle_streams(&mut self) {
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
    fn tell_end(&mut self, key: u64) {
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
        stream.until = after(now, Some(LINGER));
        stream.input = Vec::new();
        stream.consumed = 0;
        self.calls.streams.touch(key);
    }

    fn remove_stream(&mut self, key: u64) {
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

    /// A stream does not need its entry among the deadlines any more, if it had one.
    fn waste_deadline(&mut self, due: u64) {
        if due == u64::MAX {
            return;
        }
        let table = &self.calls.streams.table;
        self.deadlines.waste(|due, timer| match timer {
            Timer::Stream(key) => table.find(key).is_some_and(|stream| stream.timer == due),
            _ => true,
        });
    }

    fn watch_stream(&mut self, key: u64) -> io::Result<()> {
        let Some(stream) = self.calls.streams.table.find_mut(key) else {
            return Ok(());
        };
        let Some(socket) = &stream.socket else {
            return Ok(());
        };
        let flags = epoll::IN | epoll::OUT | epoll::RDHUP | epoll::EDGE;
        self.epoll.add(socket, TAG_STREAM | key, flags)?;
        stream.watched = true;
        Ok(())
    }

    /// Calls back about a stream.
    fn tell(
        &mut self,
        key: u64,
        service: u16,
        run: impl FnOnce(&mut dyn Callbacks, &mut Context<'_>, StreamId),
    ) {
        let id = StreamId::new(self.index, key);
        self.call(service, |callbacks, context| run(callbacks, context, id));
    }

    /// Runs one callback of a service, and counts it if it takes too long.
    fn call(&mut self, service: u16, run: impl FnOnce(&mut dyn Callbacks, &mut Context<'_>)) {
        let at = usize::from(service);
        let Some(mut callbacks) = self.services[at].callbacks.take() else {
            return;
        };
        let begun = clock::now();
        self.calls.streams.now = begun;
        self.calls.streams.current = Some(service);
        run(&mut *callbacks, &mut self.context());
        self.calls.streams.current = None;
        self.services[at].callbacks = Some(callbacks);
        let ended = clock::now();
        self.calls.streams.now = ended;
        let budget = self.shared.config.callback_budget;
        if ended > after(begun, Some(budget)) {
            self.stats().stream_overruns.add(1);
            self.warn_of_overrun(at, ended - begun);
        }
    }

    fn warn_of_overrun(&mut self, service: usize, took: u64) {
        static TOLD: Throttle = Throttle::of(1);
        let text = format_args!(
            "a callback of the service {} ran for {} ms, and its loop stood still meanwhile; let \
             another thread do what takes long",
            self.services[service].name,
            took / 1_000_000
        );
        log::limited(&TOLD, Level::Warning, text);
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
    fn stop(&mut self) {
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
/// A buffer may be so much larger than what is in it.
const SMALL: usize = 4096;
