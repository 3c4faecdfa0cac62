//! The consumers' side inwards: reading the records of responses and turning them into HTTP.

use std::borrow::Cow;

use crate::bus::{Kind, RecordHeader, Violation, flags};
use crate::http::{BodyError, BodyLength, ResponseWriter};
use crate::log::access::End;
use crate::message::{ResponseHead, Want};

use super::conn::{Exchange, Phase};
use super::event_loop::Loop;
use super::lane_end::NOBODY;
use super::shared::ControlEvent;

/// Take at most this many bytes from one lane before the other lanes have had their turn.
const LANE_BUDGET: usize = 256 * 1024;
/// Which rule of the bus a consumer broke.
pub(super) type Offence = Cow<'static, str>;

fn offence(violation: Violation) -> Offence {
    Cow::Borrowed(violation.0)
}

impl Loop {
    pub(super) fn drain_lanes(&mut self) {
        for index in 0..self.lanes.len() as u16 {
            let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
                continue;
            };
            if lane.poisoned {
                continue;
            }
            if let Some(violation) = lane.ends.requests.violation() {
                self.poison(index, violation.to_string());
                continue;
            }
            let noticed = lane.ends.notice.changed();
            lane.look_for_starts |= noticed;
            if noticed || lane.has_room_for_waiters() {
                self.wake_waiters(index);
            }
            self.drain_lane(index);
            self.note_starts(index);
        }
    }

    /// Whether any lane has something to read or to go on with, after `arm`.
    pub(super) fn lanes_have_news(&mut self) -> bool {
        let mut lanes = self.lanes.iter_mut().flatten();
        lanes.any(|lane| !lane.poisoned && lane.has_news())
    }

    /// Reads the records of one lane. True: the budget ended it, there is more.
    pub(super) fn drain_lane(&mut self, index: u16) -> bool {
        let mut budget = LANE_BUDGET;
        match self.try_drain(index, &mut budget) {
            Ok(()) => budget == 0,
            Err(offence) => {
                self.poison(index, offence.into_owned());
                false
            }
        }
    }

    fn try_drain(&mut self, index: u16, budget: &mut usize) -> Result<(), Offence> {
        let place = usize::from(index);
        let Some(lane) = self.lanes[place]
            .as_deref_mut()
            .filter(|lane| !lane.poisoned)
        else {
            return Ok(());
        };
        if !lane.ends.responses.refresh().map_err(offence)? {
            return Ok(());
        }
        while *budget > 0 {
            let Some(lane) = self.lanes[place].as_deref_mut() else {
                return Ok(());
            };
            let Some(record) = lane.ends.responses.peek().map_err(offence)? else {
                return Ok(());
            };
            *budget = budget.saturating_sub(record.len as usize + 16);
            lane.moved = true;
            let mut payload = std::mem::take(&mut self.scratch);
            payload.clear();
            lane.ends.responses.read(&mut payload);
            let outcome = self.take_record(index, &record, &payload);
            self.scratch = payload;
            outcome?;
        }
        Ok(())
    }

    /// Deals with one record, whose payload is a private copy.
    fn take_record(
        &mut self,
        index: u16,
        record: &RecordHeader,
        payload: &[u8],
    ) -> Result<(), Offence> {
        if record.owner != self.index {
            return Err(Offence::Borrowed(
                "a record names a loop that does not own its exchange",
            ));
        }
        let (slot, generation) = (record.slot, record.generation);
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return Ok(());
        };
        let Some(held) = lane.held(slot, generation).filter(|held| !held.done) else {
            return match record.flags & flags::MUST_UNDERSTAND {
                0 => Err(Offence::Borrowed(
                    "a record speaks of an exchange that is not in flight",
                )),
                _ => Err(Offence::Borrowed("a record must be understood and is not")),
            };
        };
        let held = *held;
        let tells_time = lane.handle.tells_time();
        let body = [Kind::ResponseBody as u8, Kind::Data as u8].contains(&record.kind);
        if held.ended && !body {
            return Err(Offence::Borrowed("a message goes on after its end"));
        }
        if !held.started && record.kind != Kind::Cancelled as u8 {
            self.note_start(index, slot);
        }
        let key = held.conn;
        let end = record.flags & flags::END != 0;
        match Kind::from_wire(record.kind) {
            Some(Kind::ResponseHead) => {
                let head = ResponseHead::decode(payload)
                    .map_err(|error| Offence::Owned(format!("a bad response head: {error}")))?;
                if key != NOBODY {
                    self.count_received(key, head.body().len())?;
                    self.respond(key, &head, end)?;
                }
            }
            Some(Kind::ResponseBody) => {
                if held.ended && !payload.is_empty() {
                    return Err(Offence::Borrowed("a body goes on after its end"));
                }
                if key != NOBODY {
                    self.count_received(key, payload.len())?;
                    self.respond_body(key, payload, end)?;
                }
            }
            Some(Kind::Data) => {
                if held.ended && !payload.is_empty() {
                    return Err(Offence::Borrowed("a stream goes on after its end"));
                }
                if key != NOBODY {
                    self.count_received(key, payload.len())?;
                    self.take_data(key, payload, end)?;
                }
            }
            Some(Kind::Want) if tells_time => {
                let want = Want::decode(payload)
                    .map_err(|error| Offence::Owned(format!("a bad want: {error}")))?;
                if key != NOBODY {
                    self.take_want(key, &want)?;
                }
            }
            Some(Kind::ResponseFile) if end => self.respond_file(key, index, record, payload)?,
            Some(Kind::ResponseFile) => {
                return Err(Offence::Borrowed("a response by file does not end with it"));
            }
            Some(Kind::ResponseAbort) if key == NOBODY => {}
            Some(Kind::ResponseAbort) => self.respond_abort(key),
            Some(Kind::Cancelled) => self.take_cancelled(index, slot, record.aux)?,
            _ if record.flags & flags::MUST_UNDERSTAND != 0 => {
                return Err(Offence::Owned(format!(
                    "a record of kind {} must be understood and is not",
                    record.kind
                )));
            }
            _ => {}
        }
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return Ok(());
        };
        let awaits_file = lane.meeting.awaits(slot, generation);
        let Some(held) = lane.held(slot, generation) else {
            return Ok(());
        };
        held.ended |= end;
        if record.flags & flags::DONE != 0 || record.kind == Kind::Cancelled as u8 {
            let unanswered = held.conn;
            if awaits_file {
                // Else a consumer could leave behind as many clients without a file as it likes.
                held.done = true;
                return Ok(());
            }
            lane.free(slot, generation, &self.shared.pool);
            if unanswered != NOBODY {
                // DONE without END: the consumer let go of an exchange that it never answered.
                self.respond_abort(unanswered);
            }
        }
        Ok(())
    }

    /// A consumer says that it has dropped an exchange that was cancelled or recalled.
    fn take_cancelled(&mut self, index: u16, slot: u16, aux: u16) -> Result<(), Offence> {
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return Ok(());
        };
        let held = &mut lane.slots[usize::from(slot)];
        let (key, recalled) = (held.conn, held.recalled);
        if key == NOBODY {
            return Ok(());
        }
        if aux != 0 || !recalled {
            // It stays in its slot until the lane is taken down, as those of any dead consumer.
            return Err(Offence::Borrowed(
                "an exchange was cancelled that nobody called back",
            ));
        }
        // Recalled in the instant of its start, and the consumer saw the recall.
        held.conn = NOBODY;
        let untouched = self
            .exchange(key)
            .is_some_and(|exchange| exchange.writer.is_none() && exchange.body_sent == 0);
        if let Some(conn) = self.conns.get_mut(key) {
            // Its time has not begun after all.
            conn.wants = None;
        }
        match untouched {
            true => {
                self.try_again(key);
            }
            // What was sent of its body since cannot be sent again.
            false => self.respond_abort(key),
        }
        Ok(())
    }

    /// The windows bound what a consumer may send.
    fn count_received(&mut self, key: u64, bytes: usize) -> Result<(), Offence> {
        let Some(exchange) = self.exchange(key) else {
            return Ok(());
        };
        exchange.received += bytes as u64;
        match exchange.received > exchange.granted {
            true => Err(Offence::Borrowed("a response exceeds its window")),
            false => Ok(()),
        }
    }

    /// The head of a response, perhaps with all of its body.
    fn respond(&mut self, key: u64, head: &ResponseHead<'_>, end: bool) -> Result<(), Offence> {
        let length = match end {
            true => BodyLength::Known(head.body().len() as u64),
            false => {
                u64::try_from(head.content_length()).map_or(BodyLength::Unknown, BodyLength::Known)
            }
        };
        match self.begin_response(key, head.status(), head.fields(), length, end)? {
            true => self.respond_body(key, head.body(), end),
            false => Ok(()),
        }
    }

    /// Writes the head of a response that comes from elsewhere; `end`: its body is all at hand.
    /// False: there is nobody to be answered, or the head cannot be sent and has become a 500.
    pub(super) fn begin_response<'f>(
        &mut self,
        key: u64,
        status: u16,
        fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
        length: BodyLength,
        end: bool,
    ) -> Result<bool, Offence> {
        let output_spare = self.spares.pop();
        let Some(conn) = self.conns.get_mut(key) else {
            return Ok(false);
        };
        if conn.output.capacity() == 0 {
            conn.output = output_spare.unwrap_or_default();
        } else if let Some(spare) = output_spare {
            self.spares.push(spare);
        }
        let before = conn.output.len();
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return Ok(false);
        };
        if conn.raw {
            return Err(Offence::Borrowed("a response head on a stream"));
        }
        if exchange.writer.is_some() {
            return Err(Offence::Borrowed("a second response head for one exchange"));
        }
        // If much of the request is still to come, the connection cannot be kept in step.
        let unread_body = end && !exchange.body_done && !conn.body.rest_is_small();
        let facts = crate::http::ResponseFacts {
            keep_alive: exchange.facts.keep_alive
                && !conn.hung_up
                && !unread_body
                && !exchange.wants_continue
                && !self
                    .shared
                    .draining
                    .load(std::sync::atomic::Ordering::Relaxed),
            ..exchange.facts
        };
        let mut writer = ResponseWriter::new(facts);
        let extras = super::event_loop::extras(&self.date, &self.shared);
        let written = writer.head(&mut conn.output, status, fields, length, &extras);
        if let Err(error) = written {
            conn.output.truncate(before);
            let why = format!("the response was refused: {error}");
            self.blame(key, &why);
            self.abandon(key);
            self.answer_simply(key, 500, "Internal Server Error\n", &[]);
            return Ok(false);
        }
        exchange.status = status;
        exchange.writer = Some(writer);
        Ok(true)
    }

    pub(super) fn respond_body(&mut self, key: u64, body: &[u8], end: bool) -> Result<(), Offence> {
        let Some(conn) = self.conns.get_mut(key) else {
            return Ok(());
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return Ok(());
        };
        let Some(writer) = exchange.writer.as_mut() else {
            return Err(Offence::Borrowed("a response body without a head"));
        };
        let written = match writer.body(&mut conn.output, body) {
            Ok(()) if end => writer.end(&mut conn.output),
            other => other,
        };
        match written {
            Ok(()) => {}
            Err(BodyError::TooLong) => {
                // Never more than was announced: the rest is dropped, the connection is not reused.
                self.blame(
                    key,
                    "the response is longer than its Content-Length; the rest is dropped",
                );
                if !end {
                    // Nobody waits for what it goes on to say.
                    self.abandon(key);
                }
                self.finish(key, true);
                return Ok(());
            }
            Err(BodyError::TooShort) => {
                self.blame(
                    key,
                    "the response is shorter than its Content-Length; closing",
                );
                self.abandon_place(key);
                self.reset(key);
                return Ok(());
            }
        }
        self.mark_dirty(key);
        if end {
            self.finish(key, false);
        }
        Ok(())
    }

    /// The application failed: 500 before the head, a cut connection after it.
    pub(super) fn respond_abort(&mut self, key: u64) {
        let answered = self
            .conns
            .get_mut(key)
            .is_some_and(|conn| conn.has_answered());
        self.abandon_place(key);
        match answered {
            true => self.reset(key),
            false => self.answer_simply(key, 500, "Internal Server Error\n", &[]),
        }
    }

    /// A response is complete: the connection goes on to its next request, or ends.
    pub(super) fn finish(&mut self, key: u64, close: bool) {
        self.abandon_place(key);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(mut exchange) = conn.exchange.take() else {
            return;
        };
        let record = std::mem::take(&mut exchange.record);
        conn.served = true;
        let is_raw = conn.raw;
        let closes = close
            || exchange
                .writer
                .as_ref()
                .is_none_or(|writer| writer.will_close());
        if closes {
            conn.enter(Phase::Closing, now);
        } else if !exchange.body_done {
            conn.enter(Phase::Discard, now);
        } else {
            conn.enter(Phase::Head, now);
        }
        if !closes && (conn.can_read || !conn.unread().is_empty()) {
            self.mark_ready(key);
        }
        self.mark_dirty(key);
        self.spare(record);
        if !is_raw {
            self.log_access(key, &mut exchange);
        }
        if exchange.collected.capacity() <= READ_SPARE && self.exchanges.len() < MAX_SPARES {
            self.exchanges.push(exchange);
        }
    }

    fn log_access(&mut self, key: u64, exchange: &mut Exchange) {
        self.stats().count_response(exchange.status);
        // Some answers stand for a request that never became one.
        if exchange.counted {
            self.stats().answered.add(1);
            self.stats().failed.add(u64::from(exchange.status >= 500));
        }
        if let Some(access) = &self.shared.access {
            let peer = self.conns.get_mut(key).and_then(|conn| conn.peer.as_ref());
            let peer = peer.map(|(host, _)| host.clone());
            access.push(exchange.entry(peer, exchange.status, self.now, End::Whole));
        }
    }

    /// Keeps a buffer for later use, unless it has grown large.
    pub(super) fn spare(&mut self, mut buffer: Vec<u8>) {
        if (1..=READ_SPARE).contains(&buffer.capacity()) && self.spares.len() < MAX_SPARES {
            buffer.clear();
            self.spares.push(buffer);
        }
    }

    #[inline]
    pub(super) fn exchange(&mut self, key: u64) -> Option<&mut Exchange> {
        self.conns.exchange(key)
    }

    /// A consumer broke the contract: it gets no more work, and the supervisor ends it.
    fn poison(&mut self, index: u16, reason: String) {
        let Some(lane) = self.lanes[usize::from(index)].as_deref_mut() else {
            return;
        };
        lane.poisoned = true;
        let handle = lane.handle.clone();
        self.stats().poisoned.add(1);
        handle.close(&self.shared.pool);
        if !handle
            .poisoned
            .swap(true, std::sync::atomic::Ordering::Relaxed)
        {
            self.shared.tell(ControlEvent::Poisoned {
                lane_id: handle.id,
                reason,
            });
        }
    }
}

/// A larger buffer is not kept.
const READ_SPARE: usize = 32 * 1024;
/// No more of a kind is kept than this.
const MAX_SPARES: usize = 64;
