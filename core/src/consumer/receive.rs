//! Draining request rings and noticing what happened to exchanges.
#![forbid(unsafe_code)]

use super::{
    BusError, Consumer, Event, ExchangeId,
    exchange::{Exchange, bit},
};
use crate::{
    bus::{Kind, RecordHeader, fence, flags},
    message::{Control, Request},
    sys::crash,
};

impl Consumer {
    /// Appends what came to `events`, at most about `budget` of them. Returns how many.
    pub fn poll(&mut self, budget: usize, events: &mut Vec<Event>) -> Result<usize, BusError> {
        let before = events.len();
        self.disarm();
        self.send_parcels();
        self.report_news(events);
        if self.hung_up {
            self.report_hang_up(events);
            return Ok(events.len() - before);
        }
        let rings = self.lane.rings();
        for offset in 0..rings {
            let index = (self.turn + offset) % rings;
            let left = budget.saturating_sub(events.len() - before);
            if let Err(error) = self.poll_ring(index, left, events) {
                self.tell(&Control::Error(error.to_string()));
                return Err(error);
            }
        }
        self.turn = if self.turn + 1 < rings {
            self.turn + 1
        } else {
            0
        };
        self.report_writable(events);
        let found = events.len() - before;
        self.lane.tick();
        if found > 0 || self.in_flight > 0 {
            self.pace.begin();
        }
        Ok(found)
    }

    #[inline]
    fn poll_ring(
        &mut self,
        index: u16,
        budget: usize,
        events: &mut Vec<Event>,
    ) -> Result<(), BusError> {
        let at = usize::from(index);
        let ring = self.lane.ring(index);
        let noticed = ring.notice.changed();
        let waiting = ring.requests.refresh()?;
        if let Some(violation) = ring.responses.violation() {
            return Err(violation.into());
        }
        // It has rung for this side if that slept; for a notice alone it does not begin to look.
        self.lines[at].looks |= waiting;
        if noticed {
            self.look_for_cancels(at, events);
        }
        if (noticed || self.lines[at].full) && !self.lines[at].blocked.is_empty() {
            self.pump_blocked(at);
        }
        if waiting {
            self.drain(index, budget, events)?;
        }
        Ok(())
    }

    #[inline]
    fn drain(
        &mut self,
        index: u16,
        budget: usize,
        events: &mut Vec<Event>,
    ) -> Result<(), BusError> {
        let end = events.len().saturating_add(budget);
        while events.len() < end {
            let Some(header) = self.lane.ring(index).requests.peek()? else {
                break;
            };
            match Kind::from_wire(header.kind) {
                Some(Kind::RequestHead) => events.push(self.take_head(header)?),
                Some(Kind::Open) if self.streams => events.push(self.take_head(header)?),
                Some(Kind::RequestBody | Kind::Data) => events.extend(self.take_body(header)?),
                Some(Kind::Timeout) if self.streams => events.extend(self.take_time_up(header)?),
                Some(Kind::Cancelled) => events.extend(self.take_abort(header)?),
                _ if header.flags & flags::MUST_UNDERSTAND != 0 => {
                    return Err(BusError(format!(
                        "the engine sent a record of kind {} that this consumer must but does not \
                         understand: upgrade toolb in the worker's environment",
                        header.kind
                    )));
                }
                _ => self.lane.ring(index).requests.skip(),
            }
        }
        let ring = self.lane.ring(index);
        ring.requests.release();
        crash::point("taken");
        fence();
        if ring.requests.peer_wants_space() {
            let _ = ring.waker.kick();
        }
        Ok(())
    }

    #[inline]
    fn take_head(&mut self, header: RecordHeader) -> Result<Event, BusError> {
        let slot = usize::from(header.slot);
        let id = ExchangeId {
            slot: header.slot,
            generation: header.generation,
        };
        let exchange = &mut self.exchanges[slot];
        if exchange.has(bit::ACTIVE) {
            return Err(BusError(format!(
                "the engine sent request {id} into a slot that exchange {} still holds",
                exchange.id(slot)
            )));
        }
        if id.generation == 0 || (exchange.generation != 0 && !is_newer(id.generation, exchange)) {
            return Err(BusError(format!(
                "the engine sent request {id} after exchange {} of the same slot",
                exchange.id(slot)
            )));
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        self.lane.ring(header.owner).requests.read(&mut bytes);
        let request = Request::decode(bytes)
            .map_err(|error| BusError(format!("request {id} of the engine: {error}")))?;
        let more_body = header.flags & flags::END == 0;
        let mut bits = bit::ACTIVE;
        if request.is_stream() != (header.kind == Kind::Open as u8) {
            return Err(BusError(format!(
                "the engine sent exchange {id} as what it is not: a stream is no request"
            )));
        }
        if request.is_stream() {
            // There is no head to be given.
            bits |= bit::STREAM | bit::HEAD;
        }
        if more_body {
            bits |= bit::MORE_BODY;
            if request.expects_continue() {
                bits |= bit::HOLDS_BODY;
            }
        }
        let line = &mut self.lines[usize::from(header.owner)];
        *exchange = Exchange {
            generation: id.generation,
            bits,
            owner: header.owner,
            place: line.active.len() as u32,
            request_window: request.request_window(),
            request_granted: 0,
            consumed: 0,
            response_granted: u64::from(request.response_window()),
            response_sent: 0,
            backlog: None,
            stream: request.is_stream().then(Box::default),
        };
        line.active.push(header.slot);
        self.in_flight += 1;
        Ok(Event::Request {
            id,
            request,
            more_body,
        })
    }

    /// The event of a body record; none if nobody waits for it any more.
    fn take_body(&mut self, header: RecordHeader) -> Result<Option<Event>, BusError> {
        let Some(id) = self.receiver(header, "a body")? else {
            return Ok(None);
        };
        let exchange = &mut self.exchanges[usize::from(id.slot)];
        let end = header.flags & flags::END != 0;
        if end {
            exchange.bits &= !bit::MORE_BODY;
        }
        if exchange.has(bit::GONE) {
            self.lane.ring(header.owner).requests.skip();
            return Ok(None);
        }
        if exchange.has(bit::STREAM) {
            return self.take_data(header, end);
        }
        let mut data = self.spare.pop().unwrap_or_default();
        self.lane.ring(header.owner).requests.read(&mut data);
        Ok(Some(Event::Body { id, data, end }))
    }

    /// The engine gives a body up.
    fn take_abort(&mut self, header: RecordHeader) -> Result<Option<Event>, BusError> {
        let Some(id) = self.receiver(header, "the abort of a body")? else {
            return Ok(None);
        };
        self.lane.ring(header.owner).requests.skip();
        let exchange = &mut self.exchanges[usize::from(id.slot)];
        exchange.bits &= !bit::MORE_BODY;
        let gone = exchange.has(bit::GONE);
        Ok((!gone).then_some(Event::RequestAborted { id }))
    }

    /// The exchange whose body a record goes on with. None, and the record is skipped, if that
    /// exchange is finished: the engine could not know yet.
    fn receiver(
        &mut self,
        header: RecordHeader,
        what: &str,
    ) -> Result<Option<ExchangeId>, BusError> {
        let Some(id) = self.addressee(header, what)? else {
            return Ok(None);
        };
        let exchange = &self.exchanges[usize::from(id.slot)];
        if !exchange.has(bit::STARTED) || !exchange.has(bit::MORE_BODY) {
            let when = if exchange.has(bit::STARTED) {
                "after the body's end"
            } else {
                "before its start"
            };
            return Err(BusError(format!(
                "the engine sent {what} for exchange {id} {when}"
            )));
        }
        Ok(Some(id))
    }

    /// The exchange that a record speaks of. None, and the record is skipped, if that exchange is
    /// finished: the engine could not know yet.
    pub(super) fn addressee(
        &mut self,
        header: RecordHeader,
        what: &str,
    ) -> Result<Option<ExchangeId>, BusError> {
        let exchange = &self.exchanges[usize::from(header.slot)];
        let id = ExchangeId {
            slot: header.slot,
            generation: header.generation,
        };
        if exchange.generation != id.generation || !exchange.has(bit::ACTIVE) {
            if exchange.generation == 0 || is_newer(id.generation, exchange) {
                return Err(BusError(format!(
                    "the engine sent {what} for the unknown exchange {id}"
                )));
            }
            self.lane.ring(header.owner).requests.skip();
            return Ok(None);
        }
        Ok(Some(id))
    }

    /// Finds the exchanges of a ring that the engine cancelled.
    #[cold]
    fn look_for_cancels(&mut self, line: usize, events: &mut Vec<Event>) {
        // From the end, because an exchange may be removed on the way.
        for at in (0..self.lines[line].active.len()).rev() {
            let slot = self.lines[line].active[at];
            let exchange = &self.exchanges[usize::from(slot)];
            let has_it = exchange.has(bit::STARTED) && !exchange.has(bit::GONE);
            if has_it && self.lane.cancelled(slot, exchange.generation) {
                self.disconnect(usize::from(slot), events);
            }
        }
    }

    fn disconnect(&mut self, slot: usize, events: &mut Vec<Event>) {
        crash::point("cancelled");
        let exchange = &mut self.exchanges[slot];
        exchange.bits |= bit::GONE;
        exchange.backlog = None;
        if exchange.has(bit::DONE) {
            self.pump(slot);
            return;
        }
        // What came before is told of first.
        events.extend(self.list(slot));
        let exchange = &self.exchanges[slot];
        events.push(Event::Disconnected {
            id: exchange.id(slot),
        });
    }

    #[cold]
    fn report_hang_up(&mut self, events: &mut Vec<Event>) {
        if !std::mem::take(&mut self.hang_up_is_news) {
            return;
        }
        for line in 0..self.lines.len() {
            for at in (0..self.lines[line].active.len()).rev() {
                let slot = usize::from(self.lines[line].active[at]);
                let exchange = &self.exchanges[slot];
                if exchange.has(bit::STARTED) && !exchange.has(bit::GONE) {
                    self.disconnect(slot, events);
                } else if exchange.has(bit::DONE) {
                    self.pump(slot);
                }
            }
        }
    }

    #[inline]
    fn report_writable(&mut self, events: &mut Vec<Event>) {
        while let Some(id) = self.writable.pop() {
            let exchange = &mut self.exchanges[usize::from(id.slot)];
            // The application may have gone on since.
            if exchange.generation == id.generation && exchange.may_send_on() {
                exchange.bits &= !bit::WAITING;
                events.push(Event::Writable { id });
            }
        }
    }
}

#[inline]
fn is_newer(generation: u32, exchange: &Exchange) -> bool {
    generation.wrapping_sub(exchange.generation) as i32 > 0
}
