//! Raw connections: what came and was not handed out, what is wanted next, and how long to wait.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;

use super::exchange::{Exchange, Stop, bit};
use super::{BusError, Consumer, Event, ExchangeId};
use crate::bus::{Kind, RecordHeader};
use crate::message::{TimeUp, Wait, Want};

/// What [`Consumer::stream_event`] found.
#[derive(Debug, Eq, PartialEq)]
pub enum StreamEvent {
    /// The client has sent something, or has ended its side.
    Data {
        /// The bytes; none if there is only the end to be told of. To be given back by
        /// [`Consumer::consumed`] and [`Consumer::recycle`].
        data: Vec<u8>,
        /// Nothing more comes.
        end: bool,
    },
    /// Nothing has come for as long as [`Consumer::want`] or the engine's settings allow.
    Timeout,
}

/// Why a want was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WantError {
    /// The stream is over for this side: it was ended or aborted.
    AlreadyEnded,
    /// [`Event::Disconnected`] was or is about to be reported.
    Disconnected,
    /// The exchange is a request.
    NotAStream,
    /// More than can ever be on its way.
    TooMuch,
    /// There is no such exchange, or no longer, or it was not started.
    Unknown,
    /// The engine is older than this: it does not keep the time of streams.
    Unsupported,
}

impl fmt::Display for WantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyEnded => "the stream was ended before",
            Self::Disconnected => "the client has disconnected",
            Self::NotAStream => "the exchange is a request, not a stream",
            Self::TooMuch => "more bytes are wanted than the stream's window has room for",
            Self::Unknown => "the exchange is unknown, finished or not started",
            Self::Unsupported => "the engine is too old to keep the time of streams: upgrade it",
        })
    }
}

impl Error for WantError {}

impl Consumer {
    /// Takes the next event of a stream, after [`Event::Stream`]; to be called until there is none, or
    /// [`has_stream_event`](Self::has_stream_event) says so.
    pub fn stream_event(&mut self, id: ExchangeId) -> Option<StreamEvent> {
        let slot = self.started(id)?;
        let exchange = &mut self.exchanges[slot];
        let (full, gone) = (exchange.is_full(), exchange.has(bit::GONE));
        let stream = exchange.stream.as_deref_mut()?;
        let found = stream.take(full, gone);
        // Whoever stops here, as there is nothing more, hears of what comes next.
        stream.is_listed = stream.is_due(full, gone);
        if stream.is_early {
            // There was no room for all of what was wanted: that want is over, in the engine, too.
            stream.is_early = false;
            stream.ask = Some(stream.next_want(0, Wait::Default));
            self.send_want(slot);
            self.tell_if_armed();
        }
        found
    }

    /// Whether [`stream_event`](Self::stream_event) has something to tell.
    pub fn has_stream_event(&self, id: ExchangeId) -> bool {
        let Some(slot) = self.started(id) else {
            return false;
        };
        self.exchanges[slot].has_news()
    }

    /// Arms one next event of a stream: [`StreamEvent::Data`] when at least `least` bytes have come
    /// that were not handed out before, or the client has ended its side; or
    /// [`StreamEvent::Timeout`] when neither has come in time. The last call counts.
    ///
    /// Without it data is told of as it comes, under the time that the engine's settings give. The
    /// engine keeps the time, from when it hears of the want. `least` may be up to the window of the
    /// request that opened the stream ([`Request::request_window`](super::Request::request_window));
    /// if there is no room for so many because others were not [`consumed`](Self::consumed), fewer
    /// come.
    pub fn want(
        &mut self,
        id: ExchangeId,
        least: usize,
        wait: impl Into<Wait>,
    ) -> Result<(), WantError> {
        let slot = self.started(id).ok_or(WantError::Unknown)?;
        let exchange = &mut self.exchanges[slot];
        let (full, gone) = (exchange.is_full(), exchange.has(bit::GONE));
        let window = exchange.request_window as usize;
        let over = exchange.has(bit::END | bit::ABORTED | bit::DONE);
        let stream = exchange.stream.as_deref_mut();
        let stream = stream.ok_or(WantError::NotAStream)?;
        if gone {
            return Err(WantError::Disconnected);
        }
        if over {
            return Err(WantError::AlreadyEnded);
        }
        if !self.keeps_time {
            return Err(WantError::Unsupported);
        }
        if least > window {
            return Err(WantError::TooMuch);
        }
        stream.want(least.max(1), wait.into());
        let target = stream.target;
        if stream.is_due(full, gone) && !std::mem::replace(&mut stream.is_listed, true) {
            self.news.push(id);
        }
        if exchange.has(bit::MORE_BODY) && target > Some(exchange.request_granted) {
            self.grant_request(slot);
        }
        self.send_want(slot);
        self.tell_if_armed();
        Ok(())
    }

    /// Bytes of a stream.
    pub(super) fn take_data(
        &mut self,
        header: RecordHeader,
        end: bool,
    ) -> Result<Option<Event>, BusError> {
        let mut data = self.spare.pop().unwrap_or_default();
        self.lane.ring(header.owner).requests.read(&mut data);
        let slot = usize::from(header.slot);
        let exchange = &mut self.exchanges[slot];
        if let Some(stream) = exchange.stream.as_deref_mut() {
            stream.put(data, end);
        }
        Ok(self.list(slot))
    }

    /// The engine says that nothing has come in time.
    pub(super) fn take_time_up(&mut self, header: RecordHeader) -> Result<Option<Event>, BusError> {
        let Some(id) = self.addressee(header, "the end of a time")? else {
            return Ok(None);
        };
        self.scratch.clear();
        self.lane
            .ring(header.owner)
            .requests
            .read(&mut self.scratch);
        let time_up = TimeUp::decode(&self.scratch)
            .map_err(|error| BusError(format!("the end of a time for exchange {id}: {error}")))?;
        let slot = usize::from(header.slot);
        let exchange = &mut self.exchanges[slot];
        if !exchange.has(bit::STARTED) {
            return Err(BusError(format!(
                "the engine sent the end of a time for exchange {id} before its start"
            )));
        }
        let full = exchange.is_full();
        let kept = exchange.backlog.as_ref().map_or(0, |b| b.unsent().len());
        let sent = exchange.response_sent + kept as u64;
        let over = exchange.has(bit::GONE | bit::END | bit::ABORTED | bit::DONE);
        let Some(stream) = exchange.stream.as_deref_mut() else {
            return Err(BusError(format!(
                "the engine sent the end of a time for exchange {id}, which is a request"
            )));
        };
        if !over && stream.is_in_time(&time_up, sent, full) {
            stream.time_is_up = true;
            stream.target = None;
            return Ok(self.list(slot));
        }
        Ok(None)
    }

    /// Tells of the streams that have something to be told by what the application wants of them.
    #[inline]
    pub(super) fn report_news(&mut self, events: &mut Vec<Event>) {
        while let Some(id) = self.news.pop() {
            if self.started(id).is_some() {
                events.push(Event::Stream { id });
            }
        }
    }

    /// Sends what is wanted of a stream, or keeps it until there is room. False: there is none.
    pub(super) fn send_want(&mut self, slot: usize) -> bool {
        let exchange = &mut self.exchanges[slot];
        let Some(stream) = exchange.stream.as_deref_mut() else {
            return true;
        };
        let Some(want) = stream.ask.take() else {
            return true;
        };
        if exchange.has(bit::GONE | bit::END | bit::ABORTED | bit::DONE) || self.hung_up {
            return true;
        }
        let header = exchange.header(slot, Kind::Want, 0);
        let owner = exchange.owner;
        let ring = &mut self.lane.ring(owner).responses;
        if ring.push(header, &[&want.encode()]) {
            ring.publish();
            self.lines[usize::from(owner)].kick = true;
            return true;
        }
        if let Some(stream) = self.exchanges[slot].stream.as_deref_mut() {
            stream.ask = Some(want);
        }
        self.block(slot, Stop::Ring);
        false
    }

    /// The event of a stream that has something to be told, unless one is out already.
    pub(super) fn list(&mut self, slot: usize) -> Option<Event> {
        let exchange = &mut self.exchanges[slot];
        let id = exchange.id(slot);
        if !exchange.has_news() {
            return None;
        }
        let stream = exchange.stream.as_deref_mut()?;
        let is_listed = std::mem::replace(&mut stream.is_listed, true);
        (!is_listed).then_some(Event::Stream { id })
    }
}

impl Exchange {
    /// Whether the client can send no more before something is taken as read.
    fn is_full(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.handed + stream.unread >= self.request_granted)
    }

    fn has_news(&self) -> bool {
        let (full, gone) = (self.is_full(), self.has(bit::GONE));
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.time_is_up || stream.is_due(full, gone))
    }

    /// Whether more is wanted than the client may send.
    pub(super) fn wants_beyond_grant(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.target > Some(self.request_granted))
    }
}

/// What is known of a stream beyond an exchange. Decided from what came and was asked for; the time
/// is the engine's.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// What came and was not handed out, by record; none is empty.
    parts: VecDeque<Vec<u8>>,
    /// Bytes in there.
    unread: u64,
    /// Bytes that were handed out.
    handed: u64,
    /// The client has ended its side, and the application knows.
    ended: bool,
    end_told: bool,
    /// Data is told of when so many bytes have come in all.
    target: Option<u64>,
    /// The number of the last want.
    serial: u32,
    /// The engine has said that the time of that want, or the default's, is over.
    time_is_up: bool,
    /// Fewer bytes than wanted were handed out.
    is_early: bool,
    /// What is still to be sent to the engine.
    ask: Option<Want>,
    /// Its event is on its way to the application.
    is_listed: bool,
}

impl Stream {
    /// Something has come.
    fn put(&mut self, data: Vec<u8>, end: bool) {
        self.ended |= end;
        self.unread += data.len() as u64;
        if !data.is_empty() {
            self.parts.push_back(data);
        }
    }

    /// The application wants `least` bytes more than it has.
    fn want(&mut self, least: usize, wait: Wait) {
        self.time_is_up = false;
        self.target = Some(self.handed + least as u64);
        // Of one that knows of the end nothing can come but the end of its time.
        let target = match self.end_told && self.unread == 0 {
            true => 0,
            false => self.handed + least as u64,
        };
        self.ask = Some(self.next_want(target, wait));
    }

    fn next_want(&mut self, target: u64, wait: Wait) -> Want {
        self.serial = self.serial.wrapping_add(1);
        Want {
            target,
            wait,
            serial: self.serial,
        }
    }

    /// Whether data is to be told of; `full`: no more can come before; `gone`: no more ever comes.
    fn is_due(&self, full: bool, gone: bool) -> bool {
        if self.unread == 0 {
            return self.ended && !self.end_told;
        }
        self.is_met() || self.ended || gone || full
    }

    fn is_met(&self) -> bool {
        self.target
            .is_none_or(|target| self.handed + self.unread >= target)
    }

    /// Whether the end of a time is still to be told. One that a later want has overtaken is not, nor
    /// is one by default that crossed something on its way: to the application the stream was not idle.
    fn is_in_time(&self, time_up: &TimeUp, sent: u64, full: bool) -> bool {
        let crossed = time_up.by_default && time_up.received != sent;
        time_up.serial == self.serial && !crossed && !self.is_due(full, false)
    }

    /// What is to be told next.
    fn take(&mut self, full: bool, gone: bool) -> Option<StreamEvent> {
        if std::mem::take(&mut self.time_is_up) && !gone {
            return Some(StreamEvent::Timeout);
        }
        if !self.is_due(full, gone) {
            return None;
        }
        self.is_early = !self.is_met() && !self.ended && !gone;
        let least = match self.target.take() {
            Some(target) => target.saturating_sub(self.handed).min(self.unread),
            None => 0,
        };
        let mut data = self.parts.pop_front().unwrap_or_default();
        while (data.len() as u64) < least
            && let Some(part) = self.parts.pop_front()
        {
            data.extend_from_slice(&part);
        }
        self.unread -= data.len() as u64;
        self.handed += data.len() as u64;
        self.end_told = self.ended && self.unread == 0;
        Some(StreamEvent::Data {
            data,
            end: self.end_told,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(bytes: &[u8], end: bool) -> Option<StreamEvent> {
        let data = bytes.to_vec();
        Some(StreamEvent::Data { data, end })
    }

    fn time_up(serial: u32, by_default: bool) -> TimeUp {
        TimeUp {
            received: 0,
            serial,
            by_default,
        }
    }

    fn next(stream: &mut Stream) -> Option<StreamEvent> {
        stream.take(false, false)
    }

    #[test]
    fn without_a_want_data_is_told_of_as_it_came() {
        let mut stream = Stream::default();
        stream.put(b"one".into(), false);
        stream.put(b"two".into(), false);
        assert_eq!(next(&mut stream), data(b"one", false));
        assert_eq!(next(&mut stream), data(b"two", false));
        assert_eq!(next(&mut stream), None);
        stream.put(b"three".into(), true);
        assert_eq!(next(&mut stream), data(b"three", true));
        assert_eq!(next(&mut stream), None);
    }

    #[test]
    fn parts_of_what_is_wanted_are_kept_until_it_is_whole() {
        let mut stream = Stream::default();
        stream.want(5, Wait::Forever);
        for part in [b"12", b"34"] {
            stream.put(part.into(), false);
            assert_eq!(next(&mut stream), None);
        }
        stream.put(b"56".into(), false);
        assert_eq!(next(&mut stream), data(b"123456", false));
        // One want, one event: what comes now is told of as it comes.
        stream.put(b"7".into(), false);
        assert_eq!(next(&mut stream), data(b"7", false));
        stream.want(2, Wait::Forever);
        stream.put(b"8".into(), true);
        assert_eq!(next(&mut stream), data(b"8", true));
    }

    #[test]
    fn an_end_without_bytes_is_told_once() {
        let mut stream = Stream::default();
        stream.want(5, Wait::Forever);
        stream.put(Vec::new(), true);
        assert_eq!(next(&mut stream), data(b"", true));
        stream.want(1, Wait::Forever);
        assert_eq!(next(&mut stream), None);
        assert_eq!(stream.ask.unwrap().target, 0);
    }

    #[test]
    fn what_was_held_back_is_told_of_when_less_is_wanted() {
        let mut stream = Stream::default();
        stream.want(5, Wait::Forever);
        stream.put(b"12".into(), false);
        assert_eq!(next(&mut stream), None);
        stream.want(1, Wait::Forever);
        assert_eq!(next(&mut stream), data(b"12", false));
    }

    #[test]
    fn a_full_window_and_a_client_that_has_gone_bring_what_there_is() {
        for (full, gone) in [(true, false), (false, true)] {
            let mut stream = Stream::default();
            stream.want(5, Wait::Forever);
            stream.put(b"12".into(), false);
            assert_eq!(stream.take(full, gone), data(b"12", false));
            assert_eq!((stream.is_early, stream.target), (full, None));
        }
    }

    #[test]
    fn a_time_that_is_up_comes_before_the_parts_of_what_was_wanted() {
        let mut stream = Stream::default();
        stream.want(5, Wait::Forever);
        stream.put(b"12".into(), false);
        assert!(stream.is_in_time(&time_up(1, false), 0, false));
        stream.time_is_up = true;
        stream.target = None;
        assert_eq!(next(&mut stream), Some(StreamEvent::Timeout));
        assert_eq!(next(&mut stream), data(b"12", false));
        assert_eq!(next(&mut stream), None);
    }

    #[test]
    fn a_time_that_was_overtaken_is_not_told_of() {
        let mut stream = Stream::default();
        stream.want(5, Wait::Forever);
        stream.want(5, Wait::Forever);
        assert!(!stream.is_in_time(&time_up(1, false), 0, false));
        assert!(stream.is_in_time(&time_up(2, false), 0, false));
        stream.time_is_up = true;
        stream.want(5, Wait::Forever);
        assert_eq!(next(&mut stream), None);
    }

    #[test]
    fn the_default_time_is_not_up_for_who_has_yet_to_see_or_say_something() {
        let mut stream = Stream::default();
        assert!(stream.is_in_time(&time_up(0, true), 0, false));
        // Bytes for the client are on their way: an answer is no idleness, whatever was wanted is.
        assert!(!stream.is_in_time(&time_up(0, true), 7, false));
        assert!(stream.is_in_time(&time_up(0, false), 7, false));
        stream.put(b"1".into(), false);
        assert!(!stream.is_in_time(&time_up(0, true), 0, false));
    }
}
