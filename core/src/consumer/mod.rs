//! Floor 4: the consumer's end of the bus: attach, receive, start, respond, stream.
//!
//! A turn of a consumer's loop: [`poll`](Consumer::poll) fills a list of events; each request is
//! [`start`](Consumer::start)ed just before the application takes it; responses go out with
//! `respond_head`, `respond_body`, `done` or `abort`; [`flush`](Consumer::flush) ends the turn. Before
//! the loop blocks on [`fd`](Consumer::fd), it [`arm`](Consumer::arm)s.
//!
//! Nothing here blocks. What the engine has no room for is kept per exchange and sent by later polls;
//! the answer to a response call says when the application should wait for [`Event::Writable`].
#![forbid(unsafe_code)]

mod attach;
mod exchange;
mod files;
mod hang_up;
mod kick;
mod leash;
mod receive;
mod respond;
mod retry;
mod streams;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    error::Error,
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use self::{
    exchange::{Exchange, bit},
    kick::Line,
};
use crate::{
    bus::{ConsumerLane, Violation},
    message::{Control, MAX_CONTROL_PACKET},
    sys::{crash, seqpacket::Seqpacket},
};

pub use self::attach::{AttachError, ConsumerOptions};
pub use self::files::FileError;
pub use self::hang_up::HangUp;
pub use self::leash::Leash;
pub use self::retry::Retry;
pub use self::streams::{StreamEvent, WantError};
pub use self::watch::{Watch, Woken};
pub use crate::message::{EncodedHead, Request, Wait};

/// An exchange: a slot of the lane, and which use of it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ExchangeId {
    /// The slot, below the lane's number of slots.
    pub slot: u16,
    /// The use of the slot; never 0.
    pub generation: u32,
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.slot, self.generation)
    }
}

/// What [`Consumer::poll`] found.
#[derive(Debug)]
pub enum Event {
    /// A request came. It is to be [`start`](Consumer::start)ed before the application sees it.
    ///
    /// If it [`is_stream`](Request::is_stream), it is a raw connection: what the client sends comes
    /// by [`Event::Stream`], what is given to [`Consumer::respond_body`] goes to the client, and there
    /// is no head. The end of the response ends the connection.
    Request {
        /// The exchange.
        id: ExchangeId,
        /// The request and the first bytes of its body.
        request: Request,
        /// The body goes on in [`Event::Body`].
        more_body: bool,
    },
    /// A stream has something to tell: take it by [`Consumer::stream_event`] until there is nothing.
    Stream {
        /// The exchange.
        id: ExchangeId,
    },
    /// More of a request's body.
    Body {
        /// The exchange.
        id: ExchangeId,
        /// The bytes; none if only the end was missing.
        data: Vec<u8>,
        /// The body is complete.
        end: bool,
    },
    /// The client has gone, the deadline has passed, or the engine is leaving. Nothing can be
    /// answered any more, but the exchange still ends with `done` (or a `done` response, or `abort`).
    Disconnected {
        /// The exchange.
        id: ExchangeId,
    },
    /// An exchange that was told [`Sent::Above`] may send on.
    Writable {
        /// The exchange.
        id: ExchangeId,
    },
    /// The body will not be completed; a response is still welcome.
    RequestAborted {
        /// The exchange.
        id: ExchangeId,
    },
}

/// What [`Consumer::control`] found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ControlEvent {
    /// Nothing.
    None,
    /// The engine sends no more requests: finish those there are, say
    /// [`drained`](Consumer::drained) and leave.
    Drain {
        /// So much time is left for that and for the end of the application, if that is known.
        left: Option<Duration>,
    },
    /// The engine says what it holds against this consumer; a hang-up follows.
    Error(String),
    /// The engine is gone. The next poll reports every exchange as disconnected.
    HangUp,
}

/// How far the engine lags behind what was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    /// Send on.
    Below,
    /// Much is still kept here: wait for [`Event::Writable`] before sending more.
    Above,
}

/// Why a part of a response was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RespondError {
    /// There is no such exchange, or no longer, or it was not started.
    Unknown,
    /// [`Event::Disconnected`] was or is about to be reported.
    Disconnected,
    /// Names and values of the head do not fit one record.
    HeadTooLong,
    /// The exchange has a response head already.
    HeadAlreadySent,
    /// A body before its head.
    HeadNotSent,
    /// The response was ended before.
    AlreadyEnded,
}

impl fmt::Display for RespondError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the exchange is unknown, finished or not started",
            Self::Disconnected => "the client has disconnected",
            Self::HeadTooLong => "the header fields of the response are longer than 64 KiB",
            Self::HeadAlreadySent => "the response head was sent before",
            Self::HeadNotSent => "the response head was not sent yet",
            Self::AlreadyEnded => "the response was ended before",
        })
    }
}

impl Error for RespondError {}

/// The engine broke the rules of the bus. The consumer cannot go on: the text was sent to the
/// engine, the process should say it too and exit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BusError(String);

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bus is broken: {}", self.0)
    }
}

impl Error for BusError {}

impl From<Violation> for BusError {
    fn from(violation: Violation) -> Self {
        Self(violation.to_string())
    }
}

/// The consumer's end of a lane and everything it knows about its exchanges.
pub struct Consumer {
    lane: ConsumerLane,
    socket: Seqpacket,
    /// One per slot.
    exchanges: Vec<Exchange>,
    /// One per ring.
    lines: Vec<Line>,
    in_flight: usize,
    /// Exchanges that may send on, to be reported by the next poll.
    writable: Vec<ExchangeId>,
    /// Streams that have something to tell because of what is wanted of them, the same.
    news: Vec<ExchangeId>,
    /// The engine keeps the time of streams.
    keeps_time: bool,
    /// It said that it takes raw connections.
    streams: bool,
    pace: kick::Pace,
    /// Records that are looked at, one at a time.
    scratch: Vec<u8>,
    /// Heads of callers that have not encoded them.
    head: Option<EncodedHead>,
    /// Slots that a pass over the blocked ones works on.
    pass: Vec<u16>,
    /// Emptied buffers for records to come.
    spare: Vec<Vec<u8>>,
    /// The ring a poll begins with.
    turn: u16,
    hung_up: bool,
    /// The hang-up is still to be reported to the exchanges.
    hang_up_is_news: bool,
    /// The loop blocks, or is about to.
    armed: bool,
    /// The engine takes files as answers.
    takes_files: bool,
    /// Files that are still to be sent.
    parcels: files::Parcels,
}

/// No more emptied buffers than this are kept.
const MAX_SPARE: usize = 64;

impl Consumer {
    /// The doorbell: becomes readable when something came after [`arm`](Self::arm). Register it
    /// edge-triggered and never read it, or call [`clear_doorbell`](Self::clear_doorbell) on waking.
    pub fn fd(&self) -> RawFd {
        self.lane.doorbell().as_raw_fd()
    }

    /// Makes the doorbell unreadable, for those who watch it level-triggered.
    pub fn clear_doorbell(&self) {
        self.lane.doorbell().drain();
    }

    /// The control socket: readable when [`control`](Self::control) has something to say.
    pub fn control_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// For another thread to wait until the engine has gone. The socket stays open for as long.
    pub fn hang_up(&self) -> io::Result<HangUp> {
        HangUp::of(&self.socket)
    }

    /// Takes the next packet of the control socket. To be called until there is none.
    pub fn control(&mut self) -> Result<ControlEvent, BusError> {
        let mut packet = vec![0; MAX_CONTROL_PACKET];
        loop {
            let len = match self.socket.recv(&mut packet, &mut Vec::new()) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(ControlEvent::None);
                }
                Err(error) => return Err(BusError(format!("the control socket fails: {error}"))),
            };
            if len == 0 {
                self.hang_up_is_news |= !self.hung_up;
                self.hung_up = true;
                self.parcels.clear();
                return Ok(ControlEvent::HangUp);
            }
            match Control::decode(&packet[..len]) {
                Ok(Control::Drain { left }) => {
                    self.tell(&Control::Draining);
                    crash::point("draining");
                    return Ok(ControlEvent::Drain { left });
                }
                Ok(Control::Error(text)) => return Ok(ControlEvent::Error(text)),
                // What a consumer need not know.
                Ok(_) => {}
                Err(error) => return Err(BusError(error.to_string())),
            }
        }
    }

    /// The application has started: requests may come.
    pub fn ready(&self) {
        crash::point("attached");
        self.tell(&Control::Ready);
    }

    /// The application does not start. `permanent`: nor would it if tried again.
    pub fn fail(&self, reason: &str, permanent: bool) {
        self.tell(&Control::Failed {
            reason: reason.to_owned(),
            permanent,
        });
    }

    /// Everything is finished after [`ControlEvent::Drain`].
    pub fn drained(&self) {
        self.tell(&Control::Drained);
    }

    /// Wants to leave: the engine sends no more requests. Those that are on their way still come;
    /// finish them, say [`drained`](Self::drained) and go. Whatever was not started goes to others.
    pub fn leave(&self) {
        self.tell(&Control::Draining);
    }

    /// Exchanges that came and are not done, started or not; and files that are still to be handed
    /// over, as whoever leaves before takes them along.
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.parcels.len()
    }

    /// Whether exchanges that were started are not over. Their application may be done with them, while
    /// what it said last still waits for room.
    pub fn is_answering(&self) -> bool {
        let mut exchanges = self.exchanges.iter();
        exchanges.any(|exchange| exchange.has(bit::STARTED)) || !self.parcels.is_empty()
    }

    /// Whether it attached as one that takes raw connections.
    pub fn takes_streams(&self) -> bool {
        self.streams
    }

    /// How many slots the lane has: each [`ExchangeId::slot`] is below.
    pub fn slots(&self) -> u16 {
        self.lane.geometry().slots
    }

    /// Takes back a buffer of a request or a body, to be filled again.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE && buffer.capacity() > 0 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Announces that the loop is about to block on [`fd`](Self::fd). False: it must not, there is
    /// something to [`poll`](Self::poll). Kicks everything unkicked.
    pub fn arm(&mut self) -> bool {
        if self.hang_up_is_news
            || !self.writable.is_empty()
            || !self.news.is_empty()
            || !self.send_parcels()
        {
            // Files that wait do so for a moment, until the engine's control thread has turned.
            self.flush(true);
            return false;
        }
        if !self.wait_for_room() {
            self.flush(true);
            return false;
        }
        self.flush(true);
        self.armed = self.lane.arm();
        if self.armed {
            self.lines.iter_mut().for_each(|line| line.looks = false);
        }
        crash::point("armed");
        self.armed
    }

    /// Announces that the loop runs again. [`poll`](Self::poll) does it by itself.
    pub fn disarm(&mut self) {
        self.armed = false;
        self.lane.sleeper().disarm();
    }

    /// A packet that the engine can miss: if it has gone, the hang-up says so.
    fn tell(&self, packet: &Control) {
        let _ = self.socket.send(&packet.encode(), &[]);
    }

    /// The slot of an exchange that the application has.
    #[inline]
    fn started(&self, id: ExchangeId) -> Option<usize> {
        let slot = usize::from(id.slot);
        let exchange = self.exchanges.get(slot)?;
        (exchange.generation == id.generation && exchange.has(bit::STARTED)).then_some(slot)
    }

    /// The exchange is over.
    #[inline]
    fn finish(&mut self, slot: usize) {
        let exchange = &mut self.exchanges[slot];
        let line = &mut self.lines[usize::from(exchange.owner)];
        if exchange.has(bit::QUEUED) {
            line.blocked.retain(|&other| usize::from(other) != slot);
        }
        exchange.bits = 0;
        exchange.backlog = None;
        exchange.stream = None;
        let place = exchange.place as usize;
        line.active.swap_remove(place);
        if let Some(&moved) = line.active.get(place) {
            self.exchanges[usize::from(moved)].place = place as u32;
        }
        self.in_flight -= 1;
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("lane", &self.lane)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
