//! What callbacks may do with streams.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::sys::clock;
use crate::sys::socket::{self, Socket};

use super::patience::after;
use super::state::{Ending, Phase, Stream};
use super::table::Table;
use super::{CloseReason, ServiceId, ServiceOptions, StreamError, StreamId, Target, Wait};

/// The streams of a loop, lent to code that runs on it.
///
/// Nothing here blocks or calls back: bytes to be sent are queued and go out once at the end of the
/// turn, and callbacks that follow from an operation come after the one that is running. Any stream
/// of the loop may be named, whichever callback runs.
pub struct Streams {
    pub(super) loop_index: u16,
    /// The time at which what runs now was begun.
    pub(in crate::engine) now: u64,
    pub(super) table: Table,
    /// Streams to go on with in the next turn.
    pub(super) work: VecDeque<u64>,
    /// Streams to settle at the end of this turn.
    pub(super) dirty: Vec<u64>,
    /// Streams whose end is to be told.
    pub(super) over: Vec<u64>,
    pub(super) options: Vec<ServiceOptions>,
    /// The service whose callback runs.
    pub(super) current: Option<u16>,
    /// The loop is ending: nothing can be begun any more.
    pub(super) stopping: bool,
}

impl Streams {
    pub(in crate::engine) fn new(loop_index: u16, options: Vec<ServiceOptions>) -> Self {
        Self {
            loop_index,
            now: 0,
            table: Table::default(),
            work: VecDeque::new(),
            dirty: Vec::new(),
            over: Vec::new(),
            options,
            current: None,
            stopping: false,
        }
    }

    /// Arms one next event: `receive` when at least one byte is unread (be it an old one: then in
    /// the next turn), `close`, or `timeout` when neither has come in time. The last call counts.
    ///
    /// Without it the stream stays under the default timeout of its service and `receive` comes when
    /// new bytes come; bytes that a callback left unread are then not told of again by themselves.
    pub fn want(&mut self, stream: StreamId, timeout: impl Into<Wait>) -> Result<(), StreamError> {
        self.want_bytes(stream, 1, timeout)
    }

    /// As `want`, but `receive` comes when at least `least` bytes are unread, or the peer has ended
    /// its side. [`StreamError::TooMuch`] beyond the service's limit.
    pub fn want_bytes(
        &mut self,
        stream: StreamId,
        least: usize,
        timeout: impl Into<Wait>,
    ) -> Result<(), StreamError> {
        let now = self.now;
        let (found, options) = self.usable(stream)?;
        if least > options.receive_limit {
            return Err(StreamError::TooMuch);
        }
        found.wanted = Some(least.max(1));
        if found.phase != Phase::Connecting {
            found.wait(timeout.into(), now, &options);
        }
        self.touch(stream.key());
        Ok(())
    }

    /// Moves unread bytes to `buffer` and tells how many; 0 if there are none now.
    pub fn recv(&mut self, stream: StreamId, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let found = self.find_mut(stream)?;
        let unread = found.unread();
        let count = unread.len().min(buffer.len());
        buffer[..count].copy_from_slice(&unread[..count]);
        self.consume(stream, count)?;
        Ok(count)
    }

    /// The bytes that have come and have not been consumed.
    ///
    /// They stay in their place until the running callback returns, whatever it does meanwhile.
    pub fn peek(&self, stream: StreamId) -> Result<&[u8], StreamError> {
        Ok(self.find(stream)?.unread())
    }

    /// Takes `count` unread bytes as read.
    pub fn consume(&mut self, stream: StreamId, count: usize) -> Result<(), StreamError> {
        let found = self.find_mut(stream)?;
        if count > found.unread().len() {
            return Err(StreamError::TooMuch);
        }
        found.consumed += count;
        self.touch(stream.key());
        Ok(())
    }

    /// Queues all of `bytes`, or nothing: [`StreamError::Full`] if there is no room now (`writable`
    /// comes when half of it is free again), [`StreamError::TooMuch`] if there never is.
    pub fn send(&mut self, stream: StreamId, bytes: &[u8]) -> Result<(), StreamError> {
        let now = self.now;
        let (found, options) = self.usable(stream)?;
        if found.broken {
            return Err(StreamError::Gone);
        }
        if bytes.len() > options.send_limit {
            return Err(StreamError::TooMuch);
        }
        if found.unsent() + bytes.len() > options.send_limit {
            found.refused = true;
            self.touch(stream.key());
            return Err(StreamError::Full);
        }
        if !bytes.is_empty() {
            found.output.extend_from_slice(bytes);
            found.taken = found.taken.min(now);
            self.touch(stream.key());
        }
        Ok(())
    }

    /// Ends the stream once everything queued has been sent; no `receive` comes any more, `close`
    /// does. Closing again is allowed.
    pub fn close(&mut self, stream: StreamId) -> Result<(), StreamError> {
        self.close_because(stream, CloseReason::Closed)
    }

    /// As `close`, for a stream that was idle for too long: `close` will say so.
    pub fn time_out(&mut self, stream: StreamId) -> Result<(), StreamError> {
        self.close_because(stream, CloseReason::Timeout)
    }

    /// Ends the stream at once by a reset; what is queued is lost. Also while it is closing.
    pub fn abort(&mut self, stream: StreamId) -> Result<(), StreamError> {
        let found = self.find_mut(stream)?;
        found.phase = match found.phase {
            Phase::Connecting | Phase::Fresh { outgoing: true } => {
                Phase::Over(Ending::ConnectFailed(socket::CANCELLED))
            }
            Phase::Over(_) => return Ok(()),
            _ => Phase::Over(Ending::Closed(CloseReason::Aborted)),
        };
        if let Some(socket) = &found.socket {
            socket.reset_on_close();
        }
        self.touch(stream.key());
        Ok(())
    }

    /// Begins to connect; the stream is served by the service whose callback runs, or elsewhere by
    /// the engine's only one. Either `connect` or `connect_fail` follows, once, never before the
    /// running callback returns. What is sent before goes out when the connection is there. `tag` is
    /// the stream's number for the application.
    pub fn connect(
        &mut self,
        to: &Target,
        timeout: Duration,
        tag: usize,
    ) -> Result<StreamId, StreamError> {
        let only = (self.options.len() == 1).then_some(0);
        let current = self.current.or(only);
        let current = current.ok_or(StreamError::UnknownService)?;
        self.connect_for(ServiceId(current), to, timeout, tag)
    }

    /// As `connect`, for a service that is named: from timers and request handlers.
    pub fn connect_for(
        &mut self,
        service: ServiceId,
        to: &Target,
        timeout: Duration,
        tag: usize,
    ) -> Result<StreamId, StreamError> {
        if usize::from(service.0) >= self.options.len() {
            return Err(StreamError::UnknownService);
        }
        if self.stopping {
            return Err(StreamError::Gone);
        }
        let begun = match to {
            Target::Tcp(address) => Socket::connect_tcp(*address),
            Target::Unix(path) => Socket::connect_unix(path),
        };
        let mut stream = match begun {
            Ok((socket, connected)) => {
                let mut stream = Stream::new(service.0, Some(socket));
                stream.phase = match connected {
                    true => Phase::Fresh { outgoing: true },
                    false => Phase::Connecting,
                };
                stream
            }
            Err(error) => {
                let mut stream = Stream::new(service.0, None);
                let number = error.raw_os_error().unwrap_or(socket::INVALID);
                stream.phase = Phase::Over(Ending::ConnectFailed(number));
                stream
            }
        };
        // Not counted from the beginning of what runs: a service may take its time to begin.
        stream.patience.until = after(clock::now(), Some(timeout));
        stream.tag = tag;
        if let Target::Tcp(address) = to {
            stream.peer = Some(*address);
        }
        let key = self
            .table
            .insert(Box::new(stream))
            .map_err(|_| StreamError::Full)?;
        self.touch(key);
        Ok(StreamId::new(self.loop_index, key))
    }

    /// Keeps a number of the application's with the stream.
    pub fn set_tag(&mut self, stream: StreamId, tag: usize) -> Result<(), StreamError> {
        self.find_mut(stream)?.tag = tag;
        Ok(())
    }

    /// The number that was kept; 0 at first.
    pub fn tag(&self, stream: StreamId) -> Result<usize, StreamError> {
        Ok(self.find(stream)?.tag)
    }

    /// The peer's address; `None` on a Unix socket.
    pub fn peer(&self, stream: StreamId) -> Result<Option<SocketAddr>, StreamError> {
        Ok(self.find(stream)?.peer)
    }

    /// How many bytes are queued and have not been handed to the system.
    pub fn unsent(&self, stream: StreamId) -> Result<usize, StreamError> {
        Ok(self.find(stream)?.unsent())
    }

    /// Whether nothing more comes from the peer: what `peek` shows is all.
    pub fn ended(&self, stream: StreamId) -> Result<bool, StreamError> {
        Ok(self.find(stream)?.ended)
    }

    /// The service whose callback runs.
    pub fn service(&self) -> Option<ServiceId> {
        self.current.map(ServiceId)
    }

    /// How many services the engine has.
    pub fn services(&self) -> usize {
        self.options.len()
    }

    /// How many streams the loop has, those included whose end has been told and whose peers are
    /// still to see it.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the loop has no streams.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has the stream settled at the end of the turn.
    pub(super) fn touch(&mut self, key: u64) {
        if let Some(stream) = self.table.find_mut(key)
            && !std::mem::replace(&mut stream.in_dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Goes on with the stream in the next turn.
    pub(super) fn queue(&mut self, key: u64) {
        if let Some(stream) = self.table.find_mut(key)
            && !std::mem::replace(&mut stream.in_work, true)
        {
            self.work.push_back(key);
        }
    }

    /// Whether the loop must not sleep.
    pub(in crate::engine) fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.dirty.is_empty() || !self.over.is_empty()
    }

    fn close_because(&mut self, stream: StreamId, reason: CloseReason) -> Result<(), StreamError> {
        let found = self.find_mut(stream)?;
        found.phase = match found.phase {
            Phase::Connecting | Phase::Fresh { outgoing: true } => {
                Phase::Over(Ending::ConnectFailed(socket::CANCELLED))
            }
            Phase::Fresh { outgoing: false } | Phase::Open => Phase::Closing(reason),
            Phase::Closing(_) | Phase::Over(_) | Phase::Linger => return Ok(()),
        };
        self.touch(stream.key());
        Ok(())
    }

    /// A stream that is not ending.
    fn usable(&mut self, stream: StreamId) -> Result<(&mut Stream, ServiceOptions), StreamError> {
        self.check(stream)?;
        let found = self.table.find_mut(stream.key());
        match found {
            Some(found) if !self.stopping => match found.phase {
                Phase::Connecting | Phase::Fresh { .. } | Phase::Open => {
                    let options = self.options[usize::from(found.service)];
                    Ok((found, options))
                }
                _ => Err(StreamError::Gone),
            },
            _ => Err(StreamError::Gone),
        }
    }

    /// A stream whose service has not been told of its end.
    fn find(&self, stream: StreamId) -> Result<&Stream, StreamError> {
        self.check(stream)?;
        let found = self.table.find(stream.key());
        found
            .filter(|found| found.phase != Phase::Linger)
            .ok_or(StreamError::Gone)
    }

    fn find_mut(&mut self, stream: StreamId) -> Result<&mut Stream, StreamError> {
        self.check(stream)?;
        let found = self.table.find_mut(stream.key());
        found
            .filter(|found| found.phase != Phase::Linger)
            .ok_or(StreamError::Gone)
    }

    fn check(&self, stream: StreamId) -> Result<(), StreamError> {
        match stream.loop_index() == self.loop_index {
            true => Ok(()),
            false => Err(StreamError::WrongLoop),
        }
    }
}
