//! A connection and the exchange on it.

use std::sync::Arc;

use crate::config::EngineConfig;
use crate::dispatch::Ticket;
use crate::http::{BodyReader, ResponseFacts, ResponseWriter};
use crate::log::access::{End, Entry, Said};
use crate::sys::socket::Socket;

use super::files::FileAnswer;
use super::reserve::Guest;
use super::slab::Slab;
use super::stream::Wants;
use super::token::Outbox;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Waiting for a request or in the middle of its head.
    Head,
    /// Passing the body of a request on to its handler.
    Body,
    /// The whole request has been passed on; its response is being made.
    Response,
    /// The response is out, the rest of the request's body is thrown away.
    Discard,
    /// Sending what is left, then ending.
    Closing,
    /// Our side has ended; reading until the client has seen it.
    Linger,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) socket: Socket,
    /// Its descriptor is one of the last.
    pub(super) guest: Option<Guest>,
    /// It speaks what a consumer speaks: its exchange is as long as it is.
    pub(super) raw: bool,
    /// The client of such a connection has ended its side.
    pub(super) raw_ended: bool,
    /// What the consumer of such a connection waits for, once it has begun and if it wants to know.
    pub(super) wants: Option<Box<Wants>>,
    /// The client's address and port; `None` on a Unix socket.
    pub(super) peer: Option<(Box<str>, u16)>,
    /// Which of the engine's addresses it came to.
    pub(super) address: u16,
    pub(super) phase: Phase,
    /// The socket may have something to read, be it the end of the stream.
    pub(super) can_read: bool,
    /// The socket may take something.
    pub(super) can_write: bool,
    /// The client has ended its side or reset the connection.
    pub(super) hung_up: bool,
    /// It stands in the list of connections to send for.
    pub(super) dirty: bool,
    /// It stands in the list of connections to go on with.
    pub(super) ready: bool,
    /// The engine breaks it off.
    pub(super) cut: bool,
    /// At least one request has been answered.
    pub(super) served: bool,
    /// The client has said that the request at hand is its last (RFC 9112, section 9.6).
    pub(super) is_last: bool,
    pub(super) input: Vec<u8>,
    /// How much of `input` has been used up.
    pub(super) consumed: usize,
    pub(super) output: Vec<u8>,
    /// How much of `output` has been sent.
    pub(super) sent: usize,
    /// Of the request at hand.
    pub(super) body: BodyReader,
    pub(super) exchange: Option<Box<Exchange>>,
    /// When the phase began.
    pub(super) since: u64,
    /// When the client last sent a part of a body we wait for.
    pub(super) moved: u64,
    /// When output was begun to be written or the client last took some; `u64::MAX` when there is
    /// none.
    pub(super) taken: u64,
    /// The earliest deadline that stands in the loop's heap for this connection.
    pub(super) timer: u64,
    /// Bytes of the body read since `since`, for the minimum rate.
    pub(super) body_read: u64,
    /// The next part of the body is wanted, so the client's clock runs.
    pub(super) wants_body: bool,
}

/// One request and its response.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) place: Place,
    /// The encoded request, until it is known to have started.
    pub(super) record: Vec<u8>,
    pub(super) record_flags: u8,
    /// How often the request was sent to a consumer that never started it.
    pub(super) attempts: u8,
    /// The whole body of the request has been passed on.
    pub(super) body_done: bool,
    /// Body bytes in the record, and those sent after it.
    pub(super) body_inline: u64,
    pub(super) body_sent: u64,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) wants_continue: bool,
    pub(super) facts: ResponseFacts,
    /// Once the response's head is out.
    pub(super) writer: Option<ResponseWriter>,
    /// Body bytes of the response that came from the consumer, and how many it was allowed.
    pub(super) received: u64,
    pub(super) granted: u64,
    /// When the client gets a 504 unless the response's head has come; `u64::MAX` for never.
    pub(super) deadline: u64,
    pub(super) begun_at: u64,
    /// Collected for an inline handler.
    pub(super) collected: Vec<u8>,
    /// An inline handler waits for the whole body.
    pub(super) collects: bool,
    /// What the client has said: method and target, for lines about it, and more for the access log if
    /// there is one.
    pub(super) said: Said,
    /// It stands for a request whose head was read, and not for what never became one.
    pub(super) counted: bool,
    pub(super) status: u16,
}

impl Exchange {
    /// One that nobody works on yet and that nothing is late for.
    pub(super) fn new(facts: ResponseFacts, now: u64) -> Self {
        Self {
            place: Place::Here,
            record: Vec::new(),
            record_flags: 0,
            attempts: 0,
            body_done: false,
            body_inline: 0,
            body_sent: 0,
            wants_continue: false,
            facts,
            writer: None,
            received: 0,
            granted: 0,
            deadline: u64::MAX,
            begun_at: now,
            collected: Vec::new(),
            collects: false,
            said: Said::default(),
            counted: false,
            status: 0,
        }
    }

    /// Its line in the access log. What the client has said goes with it.
    pub(super) fn entry(
        &mut self,
        peer: Option<Box<str>>,
        status: u16,
        now: u64,
        end: End,
    ) -> Entry {
        Entry {
            peer,
            said: std::mem::take(&mut self.said),
            status,
            bytes: self.writer.as_ref().map_or(0, ResponseWriter::body_bytes),
            at: now,
            elapsed: now.saturating_sub(self.begun_at),
            end,
        }
    }

    /// Makes this one what `new` makes, in its own memory.
    pub(super) fn renew(&mut self, facts: ResponseFacts, now: u64) {
        self.collected.clear();
        self.said.clear();
        *self = Self {
            collected: std::mem::take(&mut self.collected),
            said: std::mem::take(&mut self.said),
            ..Self::new(facts, now)
        };
    }
}

/// Where an exchange is.
#[derive(Debug)]
pub(super) enum Place {
    /// Nowhere yet, or answered by the engine itself.
    Here,
    /// With the holder of a token.
    Token(Arc<Outbox>),
    /// Answered by a file, and no longer a consumer's matter.
    File(Box<FileAnswer>),
    /// In the pool's queue; 503 at the given time.
    Queued(Arc<Ticket>, u64),
    /// On a lane.
    Lane {
        /// Its place in the pool.
        lane: u16,
        /// The slot held there.
        slot: u16,
        /// The slot's generation.
        generation: u32,
    },
}

impl Conn {
    pub(super) fn new(
        socket: Socket,
        peer: Option<(Box<str>, u16)>,
        address: u16,
        now: u64,
    ) -> Self {
        Self {
            socket,
            guest: None,
            raw: false,
            raw_ended: false,
            wants: None,
            peer,
            address,
            phase: Phase::Head,
            // The client may have spoken before the socket was watched: then an edge is reported.
            can_read: false,
            can_write: true,
            hung_up: false,
            dirty: false,
            ready: false,
            cut: false,
            served: false,
            is_last: false,
            input: Vec::new(),
            consumed: 0,
            output: Vec::new(),
            sent: 0,
            body: BodyReader::default(),
            exchange: None,
            since: now,
            moved: now,
            taken: u64::MAX,
            timer: u64::MAX,
            body_read: 0,
            wants_body: true,
        }
    }

    pub(super) fn enter(&mut self, phase: Phase, now: u64) {
        self.phase = phase;
        self.since = now;
        self.moved = now;
        self.body_read = 0;
        self.wants_body = true;
    }

    /// What has been read and not been used.
    #[inline]
    pub(super) fn unread(&self) -> &[u8] {
        &self.input[self.consumed..]
    }

    /// What has not been sent.
    #[inline]
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether so much waits to be sent that no further request is looked at.
    pub(super) fn is_behind(&self, config: &EngineConfig) -> bool {
        self.unsent() > config.response_window as usize
    }

    /// Whether its response is a file.
    #[inline]
    pub(super) fn sends_file(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| matches!(exchange.place, Place::File(_)))
    }

    /// Whether nothing more is to come from the client, as it has said itself.
    pub(super) fn has_asked_its_last(&self) -> bool {
        self.is_last && self.body.is_done() && self.unread().is_empty()
    }

    /// Whether the response's head has been written.
    pub(super) fn has_answered(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| exchange.writer.is_some())
    }
}

impl Slab<Conn> {
    /// The exchange on a connection.
    #[inline]
    pub(super) fn exchange(&mut self, key: u64) -> Option<&mut Exchange> {
        self.get_mut(key)?.exchange.as_deref_mut()
    }
}

#[cfg(test)]
impl Conn {
    /// One whose client is gone.
    pub(super) fn of_test() -> Self {
        use std::net::{SocketAddr, TcpStream};

        use crate::sys::socket::Listener;

        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::tcp(any, 1, 1).unwrap().remove(0);
        let _client = TcpStream::connect(listener.local_tcp().unwrap()).unwrap();
        loop {
            if let Some((socket, _)) = listener.accept().unwrap() {
                return Self::new(socket, None, 0, 0);
            }
        }
    }
}
