//! Raw connections for consumers: to the engine each is an exchange with a body in both directions
//! and no head, under the windows that bodies have.

use std::sync::atomic::Ordering;

use crate::bus::{Kind, flags};
use crate::http::{ResponseFacts, Version};
use crate::message::{RequestHeadParts, TimeUp, Want, encode_request_head};

use super::super::conn::{Conn, Exchange, Phase};
use super::super::event_loop::{Loop, Purpose};
use super::super::intake::BODY_PART;
use super::super::reply::Offence;
use super::Wants;

impl Loop {
    /// A raw connection has come: asks the pool for room.
    pub(in crate::engine) fn begin_stream(&mut self, key: u64) {
        let limit = self.shared.config.limit_streams;
        let open = self.shared.open_streams.fetch_add(1, Ordering::Relaxed);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.raw = true;
        if open >= limit {
            self.stats().overloaded.add(1);
            self.warn_of_streams();
            return self.reset(key);
        }
        let facts = ResponseFacts {
            version: Version::Http11,
            head_request: false,
            keep_alive: false,
        };
        let Purpose::Streams(server) = &self.purposes[usize::from(conn.address)] else {
            return;
        };
        let (peer, peer_port) = conn
            .peer
            .as_ref()
            .map_or(("", 0), |(host, port)| (host, *port));
        let parts = RequestHeadParts {
            request_window: self.shared.config.request_window,
            response_window: self.shared.config.response_window,
            peer: peer.as_bytes(),
            peer_port,
            server: server.0.as_bytes(),
            server_port: server.1,
            ..RequestHeadParts::default()
        };
        let mut exchange = Box::new(Exchange::new(facts, self.now));
        // Who does not know streams must not let it pass in silence.
        exchange.record_flags = flags::MUST_UNDERSTAND;
        let encoded = encode_request_head(&mut exchange.record, &parts, std::iter::empty());
        conn.exchange = Some(exchange);
        conn.enter(Phase::Body, self.now);
        conn.wants_body = false;
        match encoded {
            Ok(()) => self.admit(key),
            Err(_) => self.reset(key),
        }
    }

    /// A stream waits for room. Its client has left if it ends its side without having said anything;
    /// what has been said is for the consumer, and may have an answer.
    pub(in crate::engine) fn watch_waiting_stream(&mut self, key: u64, budget: &mut usize) -> bool {
        let says_nothing = |conn: &mut Conn| conn.hung_up && conn.unread().is_empty();
        if self.conns.get_mut(key).is_some_and(says_nothing)
            && !self.fill(key, budget)
            && self.conns.get_mut(key).is_some_and(|conn| conn.raw_ended)
        {
            self.drop_conn(key);
        }
        false
    }

    /// Sends what the client sends to the consumer, as far as its window and the ring have room.
    pub(in crate::engine) fn send_stream(
        &mut self,
        key: u64,
        (lane_index, slot, generation): (u16, u16, u32),
        budget: &mut usize,
    ) -> bool {
        loop {
            let (Some(conn), Some(lane)) = (
                self.conns.get_mut(key),
                self.lanes[usize::from(lane_index)].as_deref_mut(),
            ) else {
                return false;
            };
            let (unread, ended) = (conn.unread().len(), conn.raw_ended);
            let Some(exchange) = conn.exchange.as_deref_mut() else {
                return false;
            };
            let started = lane.has_started(slot, generation);
            let window = match started {
                true => lane
                    .ends
                    .slots
                    .request_granted(slot)
                    .saturating_sub(exchange.body_sent),
                false => 0,
            };
            let part = unread.min(BODY_PART).min(window as usize);
            let end = ended && part == unread;
            let may = started && (end || window > 0);
            if may && unread == 0 && !ended {
                let filled = self.fill(key, budget);
                let ended = self.conns.get_mut(key).is_some_and(|conn| conn.raw_ended);
                match filled || ended {
                    true => continue,
                    false => return false,
                }
            }
            if !may || !lane.room_for(part) {
                lane.list_waiter(slot);
                return false;
            }
            let flag = if end { flags::END } else { 0 };
            let data = &conn.input[conn.consumed..][..part];
            lane.push(Kind::Data, flag, (slot, generation), data);
            exchange.body_sent += part as u64;
            exchange.body_done = end;
            conn.consumed += part;
            if let Some(wants) = conn.wants.as_deref_mut() {
                wants.pass(exchange.body_sent, end, self.now);
            }
            if end {
                conn.enter(Phase::Response, self.now);
                return true;
            }
            if *budget == 0 {
                return true;
            }
        }
    }

    /// An exchange has begun whose consumer wants to be told when nothing comes, if it is a stream.
    pub(in crate::engine) fn time_stream(&mut self, key: u64) {
        let idle = self.shared.config.timeouts.stream_idle;
        let default = (!idle.is_zero()).then_some(idle);
        if let Some(conn) = self.conns.get_mut(key)
            && conn.raw
        {
            conn.wants = Some(Box::new(Wants::new(default, self.now)));
            self.set_timer(key);
        }
    }

    /// A consumer has said what it waits for.
    pub(in crate::engine) fn take_want(&mut self, key: u64, want: &Want) -> Result<(), Offence> {
        let Some(conn) = self.conns.get_mut(key) else {
            return Ok(());
        };
        let (Some(wants), Some(exchange)) = (&mut conn.wants, &conn.exchange) else {
            return Err(Offence::Borrowed(
                "what is wanted of a stream for a request",
            ));
        };
        wants.ask(want, exchange.body_sent, exchange.body_done, self.now);
        self.set_timer(key);
        Ok(())
    }

    /// Nothing has come in time: tells the consumer, as soon as its ring has room.
    pub(in crate::engine) fn time_out_stream(
        &mut self,
        key: u64,
        (lane_index, slot, generation): (u16, u16, u32),
    ) {
        let (Some(conn), Some(lane)) = (
            self.conns.get_mut(key),
            self.lanes[usize::from(lane_index)].as_deref_mut(),
        ) else {
            return;
        };
        let (Some(wants), Some(exchange)) = (&mut conn.wants, &conn.exchange) else {
            return;
        };
        if !lane.room_for(TimeUp::LEN) {
            lane.list_waiter(slot);
            return wants.put_off();
        }
        let time_up = wants.expire(exchange.received, self.now).encode();
        lane.push(Kind::Timeout, 0, (slot, generation), &time_up);
    }

    /// Sends what a consumer sends to the client.
    pub(in crate::engine) fn take_data(
        &mut self,
        key: u64,
        data: &[u8],
        end: bool,
    ) -> Result<(), Offence> {
        let Some(conn) = self.conns.get_mut(key) else {
            return Ok(());
        };
        if !conn.raw {
            return Err(Offence::Borrowed("bytes of a stream for a request"));
        }
        conn.output.extend_from_slice(data);
        self.mark_dirty(key);
        if end {
            self.finish(key, true);
        }
        Ok(())
    }
}
