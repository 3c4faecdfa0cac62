//! Raw connections served by callbacks.
//!
//! A [`Service`] is application code that speaks a protocol of its own on an address of its own. Each
//! loop asks it for its [`Callbacks`], which live and die on that loop's thread; a connection that a
//! loop has accepted (or made, see [`Streams::connect`]) never leaves that loop. Callbacks of one loop
//! never overlap and never interrupt one another: an operation only notes what is to be done, and
//! what follows from it happens later in the turn or in the next.
//!
//! In here: `state` is one stream and what it decides from its state and a time, `patience` is how long
//! it waits, `table` keeps streams under their ids, `streams` is what callbacks may do, `turn` is the
//! loop's part and `settle` the end of it. `pooled` is something else: raw connections that are passed
//! on to consumers, and are exchanges to the engine; `wants` is how long those wait for a client.

mod patience;
mod pooled;
mod settle;
mod state;
mod streams;
mod table;
mod turn;
mod wants;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::message::Wait;
pub use streams::Streams;

pub(super) use turn::LoopService;
pub(super) use wants::Wants;

use super::context::Context;

/// Application code that serves raw connections, shared by all loops.
pub trait Service: Send + Sync {
    /// Makes what serves the streams of one loop: called once per loop, on the loop's thread, before
    /// the loop accepts its first connection.
    fn init(&self, context: &mut Context<'_>) -> Box<dyn Callbacks>;
}

/// What a service does on one loop. It is made, used and dropped on that loop's thread, so it needs
/// no locks; while one of its callbacks runs, everything else on the loop waits.
///
/// A stream's callbacks come in this order: `accept` or `connect` once; then `receive`, `timeout`
/// and `writable` any number of times; then `close` once. An outgoing connection that comes to
/// nothing gets `connect_fail` once and nothing else.
pub trait Callbacks {
    /// A client has connected.
    fn accept(&mut self, context: &mut Context<'_>, stream: StreamId) {
        let _ = (context, stream);
    }

    /// There are unread bytes: see [`Streams::want`] for when this is called.
    fn receive(&mut self, context: &mut Context<'_>, stream: StreamId);

    /// Nothing has happened for as long as [`Streams::want`] or the service's default allows. Unless
    /// overridden, closes the stream.
    fn timeout(&mut self, context: &mut Context<'_>, stream: StreamId) {
        let _ = context.streams().time_out(stream);
    }

    /// After a send was refused as [`StreamError::Full`]: half of the room is free again.
    fn writable(&mut self, context: &mut Context<'_>, stream: StreamId) {
        let _ = (context, stream);
    }

    /// The stream has ended; with this call its id becomes invalid. What came and was not read can
    /// still be read here.
    fn close(&mut self, context: &mut Context<'_>, stream: StreamId, reason: CloseReason) {
        let _ = (context, stream, reason);
    }

    /// An outgoing connection is there.
    fn connect(&mut self, context: &mut Context<'_>, stream: StreamId) {
        let _ = (context, stream);
    }

    /// An outgoing connection came to nothing; with this call its id becomes invalid. The error is
    /// the system's, `TimedOut` after the time given, or `ECANCELED` if it was given up on this side.
    fn connect_fail(&mut self, context: &mut Context<'_>, stream: StreamId, error: io::Error) {
        let _ = (context, stream, error);
    }

    /// The engine has stopped accepting and will end when all connections have, at the latest after
    /// its grace time. A service whose connections do not end by themselves says goodbye here.
    fn drain(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// The loop ends: the last call, once, after all streams have been closed.
    fn exit(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }
}

/// Limits of a service's streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServiceOptions {
    /// How long a stream may be idle when its callbacks do not say; `None`: for ever.
    pub default_timeout: Option<Duration>,
    /// Bytes that are read from the peer ahead of the callbacks.
    pub receive_limit: usize,
    /// Bytes that wait to be taken by the peer.
    pub send_limit: usize,
    /// Whether a stream goes on when the peer ends its side: `receive` then tells of that end (see
    /// [`Streams::ended`]), and the service closes when it has sent its last. Otherwise the stream
    /// closes by itself once `receive` has told of everything that came.
    pub half_open: bool,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            default_timeout: Some(Duration::from_secs(60)),
            receive_limit: 256 * 1024,
            send_limit: 256 * 1024,
            half_open: false,
        }
    }
}

/// Which of an engine's services, in the order they were added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServiceId(pub(super) u16);

/// The name of a stream. It is never reused, so that operations on a stream that has gone are
/// errors.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId(u64);

impl StreamId {
    /// From its number.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Its number; never 0.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The loop that the stream lives on.
    pub const fn loop_index(self) -> u16 {
        (self.0 >> LOOP_SHIFT) as u16
    }

    const fn new(loop_index: u16, key: u64) -> Self {
        Self((loop_index as u64) << LOOP_SHIFT | key)
    }

    const fn key(self) -> u64 {
        self.0 & KEY
    }
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// This side aborted it.
    Aborted,
    /// This side closed it, and all that was queued has been handed to the system.
    Closed,
    /// The peer ended its side; all that was queued has been handed to the system.
    PeerClosed,
    /// The connection broke.
    Reset,
    /// The peer took nothing for too long.
    SendTimeout,
    /// The engine ends.
    Stopping,
    /// It was idle for too long, and all that was queued has been handed to the system.
    Timeout,
}

/// Why an operation on a stream was refused. Nothing has been done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamError {
    /// There is no room now: `writable` will tell, or (when connecting) the engine is at a limit.
    Full,
    /// The stream has ended or is ending, or the engine is.
    Gone,
    /// More than there is, or than there can ever be room for.
    TooMuch,
    /// There is no such service, or none whose callback is running.
    UnknownService,
    /// The stream lives on another loop.
    WrongLoop,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "there is no room now",
            Self::Gone => "the stream has ended",
            Self::TooMuch => "more than there is or can be",
            Self::UnknownService => "there is no such service here",
            Self::WrongLoop => "the stream lives on another loop",
        })
    }
}

impl std::error::Error for StreamError {}

/// Where to connect to. Names are not resolved, as that would block the loop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Ids are made of the loop's number, the generation of a place and the place.
const LOOP_SHIFT: u32 = 56;
const KEY: u64 = (1 << LOOP_SHIFT) - 1;
