//! The loop's part: sockets, callbacks and the order of things in a turn.
//!
//! What the kernel tells is noted first. Then each stream with news has its turn (`go_on_with_streams`):
//! one read, one callback. Timeouts follow. At the end everything that was touched is settled
//! (`finish_streams`, see `settle`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::log::{self, Level, Throttle};
use crate::sys::clock;
use crate::sys::epoll;
use crate::sys::socket::{self, Socket};

use super::super::context::Context;
use super::super::event_loop::{Loop, READ_BUFFER, TAG_STREAM};
use super::super::reserve::Guest;
use super::patience::after;
use super::state::{Ending, Event, Overdue, Phase, Stream};
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
        guest: Option<Guest>,
    ) -> bool {
        let mut stream = Stream::new(service, Some(socket));
        stream.peer = peer;
        stream.guest = guest;
        let Ok(key) = self.calls.streams.table.insert(Box::new(stream)) else {
            // More streams than ids: the connection is dropped with the stream.
            return false;
        };
        if let Err(error) = self.watch_stream(key) {
            self.calls.streams.table.remove(key);
            self.pause_accepting(Some(&error));
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

    pub(super) fn watch_stream(&mut self, key: u64) -> io::Result<()> {
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
    pub(super) fn tell(
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

/// A buffer may be so much larger than what is in it.
const SMALL: usize = 4096;
