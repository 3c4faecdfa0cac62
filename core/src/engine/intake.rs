//! The client's side inwards: what comes of what was read.

use std::sync::atomic::Ordering;

use crate::bus::{Kind, flags};
use crate::http::{BodyReader, Head, Reject, ResponseFacts, Version};
use crate::log::access::Said;
use crate::sys::epoll;

use super::conn::{Conn, Exchange, Phase, Place};
use super::event_loop::{Loop, TURN_BUDGET};

/// A record carries at most this much of a body along with the head.
pub(super) const INLINE_BODY: usize = 16 * 1024;
/// Body parts are sent in records of at most this much.
pub(super) const BODY_PART: usize = 32 * 1024;
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Loop {
    pub(super) fn conn_event(&mut self, key: u64, flags: u32) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.can_read |= flags & (epoll::IN | epoll::RDHUP | epoll::HUP) != 0;
        conn.hung_up |= flags & (epoll::RDHUP | epoll::HUP | epoll::ERR) != 0;
        // When both sides have ended, who lingers has yet to read what is left, and the consumer of a
        // raw connection to get it.
        let has_left = flags & epoll::HUP != 0;
        let is_over =
            flags & epoll::ERR != 0 || has_left && conn.phase != Phase::Linger && !conn.raw;
        if has_left || flags & epoll::OUT != 0 {
            conn.can_write = true;
            if conn.unsent() > 0 {
                self.mark_dirty(key);
            }
        }
        if is_over {
            return self.drop_conn(key);
        }
        self.advance(key);
    }

    /// Goes on with a connection as far as its input, its handler and its budget allow.
    pub(super) fn advance(&mut self, key: u64) {
        let mut budget = TURN_BUDGET;
        self.at = key;
        while let Some(conn) = self.conns.get_mut(key) {
            let more = match conn.phase {
                Phase::Head => self.advance_head(key, &mut budget),
                Phase::Body => self.advance_body(key, &mut budget),
                Phase::Response => self.watch_for_hang_up(key),
                Phase::Discard => self.discard_body(key, &mut budget),
                Phase::Linger => self.linger(key, &mut budget),
                Phase::Closing => false,
            };
            if !more {
                break;
            }
            if budget == 0 {
                self.at = u64::MAX;
                self.mark_ready(key);
                break;
            }
        }
        self.at = u64::MAX;
        if let Some(conn) = self.conns.get_mut(key) {
            conn.stow(&mut self.read_buffer);
        }
        self.set_timer(key);
    }

    pub(super) fn mark_ready(&mut self, key: u64) {
        if key == self.at {
            return;
        }
        if let Some(conn) = self.conns.get_mut(key)
            && !std::mem::replace(&mut conn.ready, true)
        {
            self.ready.push_back(key);
        }
    }

    fn advance_head(&mut self, key: u64, budget: &mut usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if conn.is_behind(&self.shared.config) {
            // A client that asks and does not read: sending its answers goes on with it.
            return false;
        }
        conn.drop_line_end();
        if !conn.unread().is_empty() {
            let unread = &conn.input[conn.consumed..];
            match self.head.parse(unread, &self.shared.config.limits) {
                Ok(true) => {
                    self.begin(key);
                    return true;
                }
                Ok(false) => {}
                Err(reject) => {
                    self.refuse(key, reject);
                    return false;
                }
            }
        }
        self.fill(key, budget)
    }

    /// A head has come whole: finds who answers it and passes it on.
    fn begin(&mut self, key: u64) {
        self.stats().requests.add(1);
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let shared = &self.shared;
        let head = &self.head;
        let input = &conn.input[conn.consumed..];
        let response_timeout = shared.config.timeouts.response.as_nanos() as u64;
        let facts = ResponseFacts {
            version: head.version,
            head_request: head.method.of(input) == b"HEAD",
            keep_alive: head.keep_alive
                && !shared.config.timeouts.keep_alive.is_zero()
                && !shared.draining.load(Ordering::Relaxed),
        };
        let mut exchange = match self.exchanges.pop() {
            Some(mut spare) => {
                spare.renew(facts, self.now);
                spare
            }
            None => Box::new(Exchange::new(facts, self.now)),
        };
        exchange.counted = true;
        exchange.wants_continue = head.expect_continue;
        if response_timeout > 0 {
            exchange.deadline = self.now + response_timeout;
        }
        match shared.access {
            Some(_) => take_down(&mut exchange.said, head, input),
            None => {
                let line = head.line().of(input);
                exchange.said.set_line(&line[..line.len().min(LINE)]);
            }
        }
        conn.body = BodyReader::new(head.framing, shared.config.limits.body);
        conn.is_last = !head.keep_alive;
        conn.exchange = Some(exchange);
        conn.enter(Phase::Body, self.now);
        if self.begin_inline(key) {
            return;
        }
        if self.shared.routes.pool {
            return self.begin_pooled(key);
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.consumed += self.head.len;
            if let Some(exchange) = conn.exchange.as_deref_mut() {
                exchange.body_done = conn.body.is_done();
            }
        }
        self.answer_simply(key, 404, "Not Found\n", &[]);
    }

    /// Encodes the request with what is here of its body, and asks the pool for room.
    fn begin_pooled(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return;
        };
        let head_start = conn.consumed;
        let mut at = head_start + self.head.len;
        let window = self.shared.config.request_window as usize;
        let room = super::encode::body_room(&self.head, INLINE_BODY.min(window));
        self.scratch.clear();
        match conn
            .body
            .collect(&conn.input[at..], room, &mut self.scratch)
        {
            Ok(consumed) => at += consumed,
            Err(reject) => return self.refuse(key, reject),
        }
        exchange.body_done = conn.body.is_done();
        conn.body_read = 0;
        // The client's clock runs only once the consumer's window is open.
        conn.wants_body = false;
        // A client that sends the body unasked does not wait to be asked.
        exchange.wants_continue &= self.scratch.is_empty() && !exchange.body_done;
        exchange.body_inline = self.scratch.len() as u64;
        exchange.record = self.spares.pop().unwrap_or_default();
        exchange.record.clear();
        exchange.record_flags = if exchange.body_done { flags::END } else { 0 };
        if exchange.body_done {
            conn.phase = Phase::Response;
        }
        let input = &conn.input[head_start..];
        let encoded = super::encode::request(
            &mut exchange.record,
            &self.head,
            input,
            &super::encode::Surroundings {
                peer: conn.peer.as_ref().map(|(host, port)| (&**host, *port)),
                server: &self.shared.servers[usize::from(conn.address)],
                deadline: exchange.deadline,
                wants_continue: exchange.wants_continue,
                body: &self.scratch,
                config: &self.shared.config,
            },
            &mut self.path,
        );
        conn.consumed = at;
        if encoded.is_err() {
            return self.refuse(
                key,
                Reject {
                    status: 431,
                    reason: "the request head is too large",
                },
            );
        }
        self.admit(key);
    }

    /// Passes on what comes of a request's body. True: there may be more to do at once.
    fn advance_body(&mut self, key: u64, budget: &mut usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        match conn.exchange.as_deref().map(|exchange| &exchange.place) {
            Some(Place::Lane {
                lane,
                slot,
                generation,
            }) => {
                let place = (*lane, *slot, *generation);
                if conn.raw {
                    return self.send_stream(key, place, budget);
                }
                self.send_body(key, place, budget)
            }
            Some(Place::Here) if conn.collects() => self.collect_body(key, budget),
            Some(Place::Queued(..)) if conn.raw => self.watch_waiting_stream(key, budget),
            _ => self.watch_for_hang_up(key),
        }
    }

    /// Sends body parts to the consumer as far as its window and the ring have room.
    fn send_body(&mut self, key: u64, place: (u16, u16, u32), budget: &mut usize) -> bool {
        let (lane_index, slot, generation) = place;
        loop {
            let (Some(conn), Some(lane)) = (
                self.conns.get_mut(key),
                self.lanes[usize::from(lane_index)].as_deref_mut(),
            ) else {
                return false;
            };
            let Some(exchange) = conn.exchange.as_deref_mut() else {
                return false;
            };
            let granted = match lane.has_started(slot, generation) {
                true => lane.ends.slots.request_granted(slot),
                false => 0,
            };
            let sent = exchange.body_inline + exchange.body_sent;
            let window = granted.saturating_sub(sent) as usize;
            if window == 0 {
                lane.list_waiter(slot);
                // The client's clock runs only while we want its bytes.
                conn.wants_body = false;
                return self.watch_for_hang_up(key);
            }
            if !std::mem::replace(&mut conn.wants_body, true) {
                conn.since = self.now;
                conn.moved = self.now;
                conn.body_read = 0;
            }
            if std::mem::take(&mut exchange.wants_continue) && exchange.writer.is_none() {
                conn.output.extend_from_slice(CONTINUE);
                self.mark_dirty(key);
                continue;
            }
            let unread = conn.input.len() - conn.consumed;
            if unread == 0 {
                return self.fill(key, budget);
            }
            let part = window.min(BODY_PART);
            if !lane.room_for(part.min(unread)) {
                lane.list_waiter(slot);
                conn.wants_body = false;
                return self.watch_for_hang_up(key);
            }
            let at = conn.consumed;
            let step = match conn.body.next_up_to(&conn.input[at..], part) {
                Ok(step) => step,
                Err(reject) => {
                    self.refuse(key, reject);
                    return false;
                }
            };
            conn.consumed += step.consumed;
            if step.needs_more() {
                return self.fill(key, budget);
            }
            let data = &conn.input[at..][step.data];
            exchange.body_sent += data.len() as u64;
            conn.body_read += data.len() as u64;
            let flag = if step.is_end { flags::END } else { 0 };
            lane.push(Kind::RequestBody, flag, (slot, generation), data);
            if step.is_end {
                exchange.body_done = true;
                conn.enter(Phase::Response, self.now);
                return true;
            }
            if *budget == 0 {
                return true;
            }
        }
    }

    /// Throws away the rest of a request's body after its response.
    fn discard_body(&mut self, key: u64, budget: &mut usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if conn.unread().is_empty() {
            return self.fill(key, budget);
        }
        let Ok(step) = conn.body.next(&conn.input[conn.consumed..]) else {
            // Its response is out; there is nobody left to tell.
            self.close_after_output(key);
            return false;
        };
        conn.consumed += step.consumed;
        conn.body_read += step.data.len() as u64;
        if step.needs_more() {
            return self.fill(key, budget);
        }
        if step.is_end {
            conn.enter(Phase::Head, self.now);
        }
        true
    }

    /// Reads and forgets until the client has closed, so that it can read our last answer.
    fn linger(&mut self, key: u64, budget: &mut usize) -> bool {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.consumed = conn.input.len();
        }
        self.fill(key, budget)
    }

    /// While the answer is being made nothing is read, but a client that leaves is noticed.
    fn watch_for_hang_up(&mut self, key: u64) -> bool {
        let left = |conn: &mut Conn| conn.hung_up && !conn.raw;
        if self.conns.get_mut(key).is_some_and(left) {
            self.drop_conn(key);
        }
        false
    }

    /// Answers what cannot be accepted, and closes.
    pub(super) fn refuse(&mut self, key: u64, reject: Reject) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let unread = conn.consumed..conn.input.len();
        conn.consumed = conn.input.len();
        if conn.has_answered() {
            // The response is on its way: all that can be said is that it ends here.
            return self.reset(key);
        }
        self.abandon(key);
        if let Some(conn) = self.conns.get_mut(key) {
            // Stands for a request that never became one.
            let unknown = ResponseFacts {
                version: Version::Http11,
                head_request: false,
                keep_alive: false,
            };
            let exchange = match &mut conn.exchange {
                Some(exchange) => exchange,
                none => {
                    // Its time began when the client did.
                    let mut exchange = Box::new(Exchange::new(unknown, conn.since));
                    if self.shared.access.is_some() {
                        take_down_unread(&mut exchange.said, &conn.input[unread]);
                    }
                    none.insert(exchange)
                }
            };
            exchange.facts.keep_alive = false;
        }
        let text = format!("{}\n", reject.reason);
        self.answer_simply(key, reject.status, &text, &[]);
    }
}

impl Conn {
    /// Whether the body is collected for an inline handler.
    fn collects(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(|exchange| exchange.collects)
    }
}

/// Keeps what the access log repeats of a request.
#[cold]
fn take_down(said: &mut Said, head: &Head, input: &[u8]) {
    said.set_line(head.line().of(input));
    let field = |wanted: &[u8]| {
        let mut fields = head.fields.iter();
        let found = fields.find(|(name, _)| name.of(input).eq_ignore_ascii_case(wanted));
        found.map_or(&b""[..], |(_, value)| value.of(input))
    };
    said.set_fields(field(b"referer"), field(b"user-agent"));
}

/// Keeps what the access log repeats of a head that is refused or has not come whole: from the lines
/// of it that are there.
#[cold]
fn take_down_unread(said: &mut Said, input: &[u8]) {
    let input = input.strip_prefix(b"\r\n").unwrap_or(input);
    // The last one has no end yet, or there is nothing in it.
    let ends = input.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
    let lines = input[..ends].split(|&byte| byte == b'\n');
    let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    said.set_line(line_of(lines.next().unwrap_or_default()));
    let (mut referer, mut user_agent) = (None, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"referer") {
            referer.get_or_insert(value);
        } else if name.eq_ignore_ascii_case(b"user-agent") {
            user_agent.get_or_insert(value);
        }
    }
    said.set_fields(referer.unwrap_or_default(), user_agent.unwrap_or_default());
}

/// The line, if it is that of a request: three words, of which the last names a version.
fn line_of(line: &[u8]) -> &[u8] {
    let mut words = line.split(|&byte| byte == b' ');
    let is_line = words.next().is_some_and(|method| !method.is_empty())
        && words.next().is_some_and(|target| !target.is_empty())
        && words.next().is_some_and(|word| word.starts_with(b"HTTP/"))
        && words.next().is_none();
    if is_line { line } else { b"" }
}

/// So much of a request line is kept, if only for lines about an application's faults.
const LINE: usize = 240;

#[cfg(test)]
mod tests;
