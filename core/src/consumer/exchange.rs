//! What the consumer knows about one exchange.
#![forbid(unsafe_code)]

use super::{ExchangeId, streams::Stream};
use crate::bus::{ConsumerLane, Kind, Producer, RecordHeader, flags};

/// Body bytes per record: large enough to stream at full speed, small enough to fill a ring well.
pub(super) const CHUNK: usize = 32 * 1024;
/// An application whose exchange keeps more than this waits.
pub(super) const LOW_WATER: usize = 32 * 1024;

/// Bits of [`Exchange::bits`]. None is set while the slot is free.
pub(super) mod bit {
    /// Came, and is not finished.
    pub(crate) const ACTIVE: u16 = 1;
    /// The application has it.
    pub(crate) const STARTED: u16 = 1 << 1;
    /// Its request body is not complete.
    pub(crate) const MORE_BODY: u16 = 1 << 2;
    /// The client waits for `100 Continue`, and nobody asked for the body yet.
    pub(crate) const HOLDS_BODY: u16 = 1 << 3;
    /// The application gave the response head.
    pub(crate) const HEAD: u16 = 1 << 4;
    /// The application ended the response.
    pub(crate) const END: u16 = 1 << 5;
    /// END is in the ring.
    pub(crate) const END_SENT: u16 = 1 << 6;
    /// The application is done with the exchange.
    pub(crate) const DONE: u16 = 1 << 7;
    /// DONE is in the ring.
    pub(crate) const DONE_SENT: u16 = 1 << 8;
    /// The application gave the response up.
    pub(crate) const ABORTED: u16 = 1 << 9;
    /// The engine takes nothing more of it.
    pub(crate) const GONE: u16 = 1 << 10;
    /// The application was told to wait.
    pub(crate) const WAITING: u16 = 1 << 11;
    /// Stands in the list of blocked ones.
    pub(crate) const QUEUED: u16 = 1 << 12;
    /// It is a raw connection.
    pub(crate) const STREAM: u16 = 1 << 13;
}

/// What the engine had no room for.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The payload of the head, without body.
    pub(super) head: Option<Vec<u8>>,
    /// The body is a file, which the head names.
    pub(super) is_file: bool,
    bytes: Vec<u8>,
    sent: usize,
}

impl Backlog {
    pub(super) fn of_head(head: Vec<u8>) -> Self {
        Self {
            head: Some(head),
            ..Self::default()
        }
    }

    pub(super) fn of_file(head: Vec<u8>) -> Self {
        Self {
            is_file: true,
            ..Self::of_head(head)
        }
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn append(&mut self, data: &[u8]) {
        if self.sent >= self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(data);
    }

    pub(super) fn advance(&mut self, by: usize) {
        self.sent += by;
    }
}

/// The state of a slot.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Of its present or last use.
    pub(super) generation: u32,
    pub(super) bits: u16,
    /// The loop whose exchange it is.
    pub(super) owner: u16,
    /// Where it stands in the list of active ones.
    pub(super) place: u32,
    /// What the engine may send ahead of the application.
    pub(super) request_window: u32,
    /// Request body bytes that the engine may send in all, as last told.
    pub(super) request_granted: u64,
    /// Request body bytes that the application took.
    pub(super) consumed: u64,
    /// Response body bytes that may be sent in all, as last looked up.
    pub(super) response_granted: u64,
    /// Response body bytes in the ring so far.
    pub(super) response_sent: u64,
    pub(super) backlog: Option<Box<Backlog>>,
    /// Of a raw connection.
    pub(super) stream: Option<Box<Stream>>,
}

/// What stops an exchange from sending.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// Nothing: all is sent.
    Clear,
    /// Its window.
    Window,
    /// A full ring.
    Ring,
}

impl Exchange {
    #[inline]
    pub(super) fn has(&self, bits: u16) -> bool {
        self.bits & bits != 0
    }

    #[inline]
    pub(super) fn id(&self, slot: usize) -> ExchangeId {
        ExchangeId {
            slot: slot as u16,
            generation: self.generation,
        }
    }

    /// The kind of record that carries what it sends.
    #[inline]
    pub(super) fn body_kind(&self) -> Kind {
        match self.has(bit::STREAM) {
            true => Kind::Data,
            false => Kind::ResponseBody,
        }
    }

    #[inline]
    pub(super) fn header(&self, slot: usize, kind: Kind, flags: u8) -> RecordHeader {
        RecordHeader {
            kind: kind as u8,
            flags,
            aux: 0,
            owner: self.owner,
            slot: slot as u16,
            generation: self.generation,
            len: 0,
        }
    }

    /// Whether an application that was told to wait has waited long enough.
    #[inline]
    pub(super) fn may_send_on(&self) -> bool {
        let kept = || self.backlog.as_ref().map_or(0, |b| b.unsent().len());
        self.has(bit::WAITING)
            && !self.has(bit::END | bit::GONE | bit::ABORTED)
            && kept() <= LOW_WATER
    }

    /// What the record that completes what was given so far has to say.
    #[inline]
    pub(super) fn closing_flags(&self) -> u8 {
        let mut closing = 0;
        if self.bits & (bit::END | bit::END_SENT) == bit::END {
            closing |= flags::END;
        }
        if self.bits & (bit::DONE | bit::DONE_SENT) == bit::DONE {
            closing |= flags::DONE;
        }
        closing
    }

    /// A record with these flags is in the ring.
    #[inline]
    pub(super) fn note_sent(&mut self, sent: u8) {
        if sent & flags::END != 0 {
            self.bits |= bit::END_SENT;
        }
        if sent & flags::DONE != 0 {
            self.bits |= bit::DONE_SENT;
        }
    }

    /// Response body bytes that may be sent now, of `wanted`.
    #[inline]
    pub(super) fn window(&mut self, lane: &ConsumerLane, slot: usize, wanted: usize) -> usize {
        if self.response_sent + wanted as u64 > self.response_granted {
            // The first grant came with the request; the word may be older.
            let granted = lane.response_granted(slot as u16);
            self.response_granted = self.response_granted.max(granted);
        }
        let window = self.response_granted.saturating_sub(self.response_sent);
        wanted.min(usize::try_from(window).unwrap_or(usize::MAX))
    }

    /// Pushes `data` as body records, the last one with what closes. Returns how much went out.
    pub(super) fn push_body(
        &mut self,
        lane: &mut ConsumerLane,
        slot: usize,
        data: &[u8],
    ) -> (usize, Stop) {
        let window = self.window(lane, slot, data.len());
        let ring = &mut lane.ring(self.owner).responses;
        let chunk = CHUNK.min(ring.max_payload());
        let mut at = 0;
        loop {
            let len = chunk.min(window - at);
            let last = at + len == data.len();
            let closing = if last { self.closing_flags() } else { 0 };
            if len == 0 && closing == 0 {
                let stop = if last { Stop::Clear } else { Stop::Window };
                return (at, stop);
            }
            if !self.push(ring, slot, closing, &data[at..at + len]) {
                return (at, Stop::Ring);
            }
            at += len;
            if last {
                return (at, Stop::Clear);
            }
        }
    }

    #[inline]
    fn push(&mut self, ring: &mut Producer, slot: usize, closing: u8, data: &[u8]) -> bool {
        let header = self.header(slot, self.body_kind(), closing);
        if !ring.push(header, &[data]) {
            return false;
        }
        self.response_sent += data.len() as u64;
        self.note_sent(closing);
        true
    }
}
