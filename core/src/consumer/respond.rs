//! Starting exchanges and answering them.
#![forbid(unsafe_code)]

use super::{
    Consumer, ExchangeId, RespondError, Sent,
    exchange::{Backlog, CHUNK, LOW_WATER, Stop, bit},
};
use crate::{
    bus::{Kind, flags},
    message::EncodedHead,
    sys::crash,
};

impl Consumer {
    /// To be called just before the application takes an exchange. False: the engine has recalled or
    /// cancelled it; that is answered, and the id means nothing any more.
    #[inline]
    pub fn start(&mut self, id: ExchangeId) -> bool {
        let slot = usize::from(id.slot);
        let Some(exchange) = self.exchanges.get_mut(slot) else {
            return false;
        };
        if exchange.generation != id.generation
            || exchange.bits & (bit::ACTIVE | bit::STARTED | bit::GONE) != bit::ACTIVE
        {
            return false;
        }
        let owner = exchange.owner;
        let mut tell = false;
        if exchange.has(bit::MORE_BODY) {
            if !exchange.has(bit::HOLDS_BODY) {
                exchange.request_granted = u64::from(exchange.request_window);
            }
            self.lane.grant_request(id.slot, exchange.request_granted);
            tell = true;
        }
        if self.hung_up || !self.lane.start(id.slot, id.generation) {
            crash::point("recalled");
            exchange.bits |= bit::GONE | bit::DONE;
            self.pump(slot);
            return false;
        }
        crash::point("started");
        exchange.bits |= bit::STARTED;
        let ring = self.lane.ring(owner);
        if tell || ring.requests.peer_wants_starts() {
            ring.notice.bump();
            self.lines[usize::from(owner)].kick = true;
        }
        true
    }

    /// The application took `bytes` of the request's body, the inline ones included: the engine may
    /// send as many more.
    pub fn consumed(&mut self, id: ExchangeId, bytes: usize) {
        let Some(slot) = self.started(id) else {
            return;
        };
        let exchange = &mut self.exchanges[slot];
        exchange.consumed += bytes as u64;
        if exchange.has(bit::HOLDS_BODY) || !exchange.has(bit::MORE_BODY) {
            return;
        }
        let window = u64::from(exchange.request_window);
        // Half a window at a time, so that the engine is not told of every byte.
        let due = exchange.request_granted + (window / 2).max(1);
        if exchange.consumed + window >= due || exchange.wants_beyond_grant() {
            self.grant_request(slot);
        }
    }

    /// The application wants the body: opens the window of an `Expect: 100-continue` request.
    pub fn want_body(&mut self, id: ExchangeId) {
        let Some(slot) = self.started(id) else {
            return;
        };
        let exchange = &mut self.exchanges[slot];
        if exchange.has(bit::HOLDS_BODY) {
            exchange.bits &= !bit::HOLDS_BODY;
            self.grant_request(slot);
        }
    }

    pub(super) fn grant_request(&mut self, slot: usize) {
        let exchange = &mut self.exchanges[slot];
        exchange.request_granted = exchange.consumed + u64::from(exchange.request_window);
        self.lane
            .grant_request(slot as u16, exchange.request_granted);
        self.lane.ring(exchange.owner).notice.bump();
        crash::point("granted");
        self.lines[usize::from(exchange.owner)].kick = true;
        self.tell_if_armed();
    }

    /// Answers with a head and the first bytes of the body, or all of it. `content_length` is -1 if
    /// it is not known. `end`: the response is complete; `done`: the application is done with the
    /// exchange, too (which ends the response).
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the whole of a response at once")]
    pub fn respond_head<'a>(
        &mut self,
        id: ExchangeId,
        status: u16,
        content_length: i64,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        body: &[u8],
        end: bool,
        done: bool,
    ) -> Result<Sent, RespondError> {
        let mut head = self.head.take().unwrap_or_default();
        head.fill(status, fields);
        let outcome = self.respond_encoded(id, &mut head, content_length, body, end, done);
        self.head = Some(head);
        outcome
    }

    /// The same with a head that the caller has encoded, and may use again.
    #[inline]
    pub fn respond_encoded(
        &mut self,
        id: ExchangeId,
        head: &mut EncodedHead,
        content_length: i64,
        body: &[u8],
        end: bool,
        done: bool,
    ) -> Result<Sent, RespondError> {
        let slot = self.started(id).ok_or(RespondError::Unknown)?;
        let exchange = &mut self.exchanges[slot];
        if exchange.has(bit::GONE | bit::END | bit::HEAD | bit::DONE) {
            return Err(self.refuse(slot, done, RespondError::HeadAlreadySent));
        }
        // A body that is here as a whole has a length, even if it travels in parts.
        head.set_content_length(match content_length {
            -1 if end => body.len() as i64,
            known => known,
        });
        let most = self.lane.ring(exchange.owner).responses.max_payload();
        let Some(room) = most.checked_sub(head.len()) else {
            return Err(RespondError::HeadTooLong);
        };
        exchange.bits |= bit::HEAD | closing_bits(end, done);
        let inline = exchange.window(&self.lane, slot, body.len().min(CHUNK).min(room));
        let closing = if inline == body.len() {
            exchange.closing_flags()
        } else {
            0
        };
        head.announce_body(inline);
        let header = exchange.header(slot, Kind::ResponseHead, closing);
        let ring = &mut self.lane.ring(exchange.owner).responses;
        if !ring.push(header, &[head.bytes(), &body[..inline]]) {
            head.announce_body(0);
            let backlog = Backlog::of_head(head.bytes().to_vec());
            exchange.backlog = Some(Box::new(backlog));
            return Ok(self.keep(slot, body, Stop::Ring));
        }
        exchange.response_sent += inline as u64;
        exchange.note_sent(closing);
        if inline < body.len() {
            return Ok(self.send(slot, &body[inline..]));
        }
        let owner = exchange.owner;
        if closing & flags::DONE != 0 {
            self.finish(slot);
        }
        self.publish(owner);
        Ok(Sent::Below)
    }

    /// Goes on with the body of a response. `end` and `done` as in
    /// [`respond_head`](Self::respond_head).
    #[inline]
    pub fn respond_body(
        &mut self,
        id: ExchangeId,
        data: &[u8],
        end: bool,
        done: bool,
    ) -> Result<Sent, RespondError> {
        let slot = self.started(id).ok_or(RespondError::Unknown)?;
        let exchange = &mut self.exchanges[slot];
        if exchange.has(bit::GONE | bit::END | bit::DONE) || !exchange.has(bit::HEAD) {
            let error = if exchange.has(bit::END | bit::DONE) {
                RespondError::AlreadyEnded
            } else {
                RespondError::HeadNotSent
            };
            return Err(self.refuse(slot, done, error));
        }
        exchange.bits |= closing_bits(end, done);
        if exchange.backlog.is_some() || exchange.has(bit::QUEUED) {
            return Ok(self.keep(slot, data, Stop::Clear));
        }
        Ok(self.send(slot, data))
    }

    /// The application is done with an exchange whose response was ended, or whose client is gone. A
    /// response that was not ended is aborted.
    pub fn done(&mut self, id: ExchangeId) {
        let Some(slot) = self.started(id) else {
            return;
        };
        let exchange = &mut self.exchanges[slot];
        if !exchange.has(bit::END | bit::GONE) {
            self.abort(id);
            return;
        }
        exchange.bits |= bit::DONE;
        if !exchange.has(bit::QUEUED) || exchange.has(bit::GONE) {
            self.pump(slot);
        }
        self.tell_if_armed();
    }

    /// The application failed: the engine answers in its place, or breaks the response off.
    pub fn abort(&mut self, id: ExchangeId) {
        let Some(slot) = self.started(id) else {
            return;
        };
        let exchange = &mut self.exchanges[slot];
        // A response that is complete is not taken back.
        if !exchange.has(bit::END | bit::GONE) {
            exchange.bits |= bit::ABORTED;
            exchange.backlog = None;
        }
        exchange.bits |= bit::DONE;
        if !exchange.has(bit::QUEUED) || exchange.has(bit::GONE | bit::ABORTED) {
            self.pump(slot);
        }
        self.tell_if_armed();
    }

    /// A response that came too late still says when the application is done.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        slot: usize,
        done: bool,
        otherwise: RespondError,
    ) -> RespondError {
        let exchange = &mut self.exchanges[slot];
        if !exchange.has(bit::GONE) {
            return otherwise;
        }
        if done && !exchange.has(bit::DONE) {
            exchange.bits |= bit::DONE;
            self.pump(slot);
        }
        RespondError::Disconnected
    }

    /// Sends body bytes of an exchange that keeps none, and keeps what finds no room.
    fn send(&mut self, slot: usize, data: &[u8]) -> Sent {
        let exchange = &mut self.exchanges[slot];
        let owner = exchange.owner;
        let (sent, stop) = exchange.push_body(&mut self.lane, slot, data);
        let over = exchange.has(bit::DONE_SENT);
        let mut answer = Sent::Below;
        if over {
            self.finish(slot);
        } else if stop != Stop::Clear {
            answer = self.keep(slot, &data[sent..], stop);
        }
        self.publish(owner);
        answer
    }

    /// Keeps body bytes until there is room.
    #[cold]
    fn keep(&mut self, slot: usize, data: &[u8], stop: Stop) -> Sent {
        let exchange = &mut self.exchanges[slot];
        let backlog = exchange.backlog.get_or_insert_default();
        backlog.append(data);
        let above = backlog.unsent().len() > LOW_WATER;
        if above {
            exchange.bits |= bit::WAITING;
        } else {
            exchange.bits &= !bit::WAITING;
        }
        self.block(slot, stop);
        self.tell_if_armed();
        if above { Sent::Above } else { Sent::Below }
    }

    pub(super) fn block(&mut self, slot: usize, stop: Stop) {
        let exchange = &mut self.exchanges[slot];
        let line = &mut self.lines[usize::from(exchange.owner)];
        line.full |= stop == Stop::Ring;
        if !exchange.has(bit::QUEUED) {
            exchange.bits |= bit::QUEUED;
            line.blocked.push(slot as u16);
        }
    }

    /// Sends whatever an exchange has to send and there is room for. Registers it as blocked, or
    /// finishes it. True: something went out.
    pub(super) fn pump(&mut self, slot: usize) -> bool {
        if !self.send_want(slot) {
            return false;
        }
        let exchange = &mut self.exchanges[slot];
        let owner = exchange.owner;
        let (moved, stop) = if exchange.has(bit::GONE | bit::ABORTED) {
            self.push_verdict(slot)
        } else {
            self.push_backlog(slot)
        };
        let exchange = &mut self.exchanges[slot];
        if exchange.has(bit::DONE_SENT) {
            self.finish(slot);
        } else if stop == Stop::Clear {
            exchange.backlog = None;
            self.report_room(slot);
        } else {
            self.report_room(slot);
            self.block(slot, stop);
        }
        if moved {
            self.publish(owner);
        }
        moved
    }

    /// The last record of an exchange that does not end as usual, once the application is done.
    fn push_verdict(&mut self, slot: usize) -> (bool, Stop) {
        let exchange = &mut self.exchanges[slot];
        if !exchange.has(bit::DONE) {
            return (false, Stop::Clear);
        }
        if self.hung_up {
            exchange.note_sent(flags::DONE);
            return (false, Stop::Clear);
        }
        // Nothing but DONE may follow a message that is complete.
        let kind = if exchange.has(bit::END_SENT) {
            exchange.body_kind()
        } else if exchange.has(bit::GONE) {
            Kind::Cancelled
        } else {
            Kind::ResponseAbort
        };
        let mut header = exchange.header(slot, kind, flags::DONE);
        if kind == Kind::Cancelled {
            header.aux = u16::from(exchange.has(bit::STARTED));
        }
        if !self.lane.ring(exchange.owner).responses.push(header, &[]) {
            return (false, Stop::Ring);
        }
        exchange.note_sent(flags::DONE);
        (true, Stop::Clear)
    }

    fn push_backlog(&mut self, slot: usize) -> (bool, Stop) {
        let exchange = &mut self.exchanges[slot];
        let Some(mut backlog) = exchange.backlog.take() else {
            let (_, stop) = exchange.push_body(&mut self.lane, slot, &[]);
            return (stop == Stop::Clear, stop);
        };
        let mut moved = false;
        if let Some(head) = backlog.head.take() {
            let all = backlog.unsent().is_empty();
            let closing = if all { exchange.closing_flags() } else { 0 };
            let (kind, own) = match backlog.is_file {
                true => (
                    Kind::ResponseFile,
                    flags::FD_FOLLOWS | flags::MUST_UNDERSTAND,
                ),
                false => (Kind::ResponseHead, 0),
            };
            let header = exchange.header(slot, kind, closing | own);
            if !self
                .lane
                .ring(exchange.owner)
                .responses
                .push(header, &[&head])
            {
                backlog.head = Some(head);
                exchange.backlog = Some(backlog);
                return (false, Stop::Ring);
            }
            exchange.note_sent(closing);
            moved = true;
        }
        let before = exchange.bits;
        let (sent, stop) = exchange.push_body(&mut self.lane, slot, backlog.unsent());
        moved |= sent > 0 || exchange.bits != before;
        backlog.advance(sent);
        exchange.backlog = Some(backlog);
        (moved, stop)
    }

    /// Notes for the next poll that an application that waits may send on.
    fn report_room(&mut self, slot: usize) {
        let exchange = &self.exchanges[slot];
        let id = exchange.id(slot);
        if exchange.may_send_on() && !self.writable.contains(&id) {
            self.writable.push(id);
        }
    }

    /// Tries the blocked exchanges of a ring once more. True: something went out.
    #[cold]
    pub(super) fn pump_blocked(&mut self, line: usize) -> bool {
        let mut pass = std::mem::take(&mut self.pass);
        std::mem::swap(&mut pass, &mut self.lines[line].blocked);
        self.lines[line].full = false;
        let mut moved = false;
        for slot in pass.drain(..) {
            let exchange = &mut self.exchanges[usize::from(slot)];
            if exchange.has(bit::QUEUED) {
                exchange.bits &= !bit::QUEUED;
                moved |= self.pump(usize::from(slot));
            }
        }
        self.pass = pass;
        if let [_, _, ..] = self.lines[line].blocked[..] {
            // Not always the same one first.
            self.lines[line].blocked.rotate_left(1);
        }
        moved
    }

    /// Asks for a kick wherever a full ring stops something. False: something moved after all.
    pub(super) fn wait_for_room(&mut self) -> bool {
        for line in 0..self.lines.len() {
            if self.lines[line].full && !self.lines[line].blocked.is_empty() {
                self.lane.ring(line as u16).responses.want_space();
                if self.pump_blocked(line) {
                    return false;
                }
            }
        }
        true
    }
}

#[inline]
pub(super) fn closing_bits(end: bool, done: bool) -> u16 {
    match (end, done) {
        (_, true) => bit::END | bit::DONE,
        (true, false) => bit::END,
        (false, false) => 0,
    }
}
