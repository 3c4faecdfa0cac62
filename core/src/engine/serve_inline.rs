//! Running handlers on the loop.

use std::sync::Arc;

use crate::http::{BodyFraming, BodyLength, BodyReader, ResponseWriter};
use crate::route::Match;

use super::conn::{Phase, Place};
use super::context::Context;
use super::encode::decoded_path;
use super::event_loop::Loop;
use super::inline::{Request, Step};
use super::routes::Refusal;
use super::token::Outbox;

impl Loop {
    /// Gives a request to the inline handler of its route. False: no handler is meant.
    pub(super) fn begin_inline(&mut self, key: u64) -> bool {
        if self.shared.routes.inline.is_empty() {
            return false;
        }
        let Some(conn) = self.conns.get_mut(key) else {
            return true;
        };
        let start = conn.consumed;
        let input = &conn.input[start..];
        let head_len = self.head.len;
        let ready = match self.head.framing {
            BodyFraming::None => Some(0),
            BodyFraming::Length(len) => usize::try_from(len)
                .ok()
                .filter(|len| input.len() - head_len >= *len),
            BodyFraming::Chunked => None,
        };
        if let Some(len) = ready {
            if let Some(exchange) = conn.exchange.as_deref_mut() {
                exchange.body_done = true;
            }
            // Lent out for the call: the connection has nothing unread meanwhile.
            let input = std::mem::take(&mut conn.input);
            conn.consumed = 0;
            conn.phase = Phase::Response;
            let taken = self.run_inline(key, &input[start..], &input[start + head_len..][..len]);
            if let Some(conn) = self.conns.get_mut(key) {
                conn.input = input;
                conn.consumed = start;
                match taken {
                    true => {
                        conn.consumed += head_len + len;
                        // It was passed on without its reader.
                        conn.body = BodyReader::default();
                    }
                    false => conn.phase = Phase::Body,
                }
            }
            if !taken && let Some(exchange) = self.exchange(key) {
                exchange.body_done = false;
            }
            return taken;
        }
        let method = self.head.method.of(input);
        let path = decoded_path(&self.head, input, &mut self.path);
        let routes = &self.shared.routes;
        match routes.find(method, path) {
            Match::Found(..) => self.collect(key, start),
            other => match routes.refusal(other, path) {
                None => return false,
                Some(refusal) => {
                    conn.consumed = start + head_len;
                    self.refuse_route(key, &refusal);
                }
            },
        }
        true
    }

    /// Keeps the head aside and begins to collect the body.
    fn collect(&mut self, key: u64, start: usize) {
        let mut kept = self.spares.pop().unwrap_or_default();
        let head_len = self.head.len;
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        kept.clear();
        kept.extend_from_slice(&conn.input[start..start + head_len]);
        conn.consumed = start + head_len;
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return;
        };
        exchange.record = kept;
        exchange.collects = true;
        if std::mem::take(&mut exchange.wants_continue) && conn.input.len() == conn.consumed {
            conn.output.extend_from_slice(super::intake::CONTINUE);
            self.mark_dirty(key);
        }
    }

    /// Collects the body of a request for its inline handler. True: go on with the connection.
    pub(super) fn collect_body(&mut self, key: u64, budget: &mut usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return false;
        };
        let collected = &mut exchange.collected;
        let before = collected.len();
        let unread = &conn.input[conn.consumed..];
        match conn.body.collect(unread, usize::MAX, collected) {
            Ok(consumed) => conn.consumed += consumed,
            Err(reject) => {
                self.refuse(key, reject);
                return false;
            }
        }
        conn.body_read += (collected.len() - before) as u64;
        if !conn.body.is_done() {
            return self.fill(key, budget);
        }
        exchange.body_done = true;
        let body = std::mem::take(&mut exchange.collected);
        let kept = std::mem::take(&mut exchange.record);
        conn.enter(Phase::Response, self.now);
        // It was parsed before, so it parses again.
        if matches!(self.head.parse(&kept, &self.shared.config.limits), Ok(true)) {
            self.run_inline(key, &kept, &body);
        }
        self.spare(kept);
        true
    }

    /// Calls the handler and writes its response. False: the pool is meant instead.
    fn run_inline(&mut self, key: u64, input: &[u8], body: &[u8]) -> bool {
        let shared = &self.shared;
        let Some(conn) = self.conns.get_mut(key) else {
            return true;
        };
        let head = &self.head;
        let path = decoded_path(head, input, &mut self.path);
        let (route, params) = match shared.routes.find(head.method.of(input), path) {
            Match::Found(route, params) => (route, params),
            other => {
                let refusal = shared.routes.refusal(other, path);
                if let Some(refusal) = &refusal {
                    self.refuse_route(key, refusal);
                }
                return refusal.is_some();
            }
        };
        let request = Request {
            input,
            head,
            path,
            params: &params,
            body,
            peer: conn.peer.as_ref().map(|(host, port)| (&**host, *port)),
            state: self.states.get(route.state).and_then(|s| s.as_deref()),
        };
        let response = &mut self.inline_response;
        response.reset(key);
        let mut context = Context::new(self.index, self.now, &self.epoll, &mut self.calls);
        let step = route.handler.handle(&mut context, &request, response);
        let Some(exchange) = conn.exchange.as_deref_mut() else {
            return true;
        };
        if step == Step::Later || response.outbox.is_some() {
            let outbox = response.outbox.take();
            self.answer_later(key, step, outbox);
            return true;
        }
        let mut facts = exchange.facts;
        facts.keep_alive &= step == Step::Done && !self.draining;
        let mut writer = ResponseWriter::new(facts);
        if conn.output.capacity() == 0 {
            conn.output = self.spares.pop().unwrap_or_default();
        }
        let before = conn.output.len();
        let draft = &response.draft;
        let extras = super::event_loop::extras(&self.date, shared);
        let length = BodyLength::Known(draft.body.len() as u64);
        let head = writer.head(
            &mut conn.output,
            draft.status,
            draft.fields(),
            length,
            &extras,
        );
        if let Err(error) = head {
            conn.output.truncate(before);
            let why = format!("the handler's response was refused: {error}");
            self.blame(key, &why);
            self.answer_simply(key, 500, "Internal Server Error\n", &[]);
            return true;
        }
        let written = writer
            .body(&mut conn.output, &draft.body)
            .and_then(|()| writer.end(&mut conn.output));
        exchange.status = draft.status;
        exchange.writer = Some(writer);
        response.shrink();
        debug_assert!(matches!(exchange.place, Place::Here));
        if let Err(error) = written {
            let why = format!("the handler's response does not fit its length: {error}");
            self.blame(key, &why);
            self.reset(key);
            return true;
        }
        self.finish(key, false);
        true
    }

    /// The handler leaves the answer to the holder of a token.
    #[cold]
    fn answer_later(&mut self, key: u64, step: Step, outbox: Option<Arc<Outbox>>) {
        let mistake = match (step, outbox) {
            (Step::Later, Some(outbox)) => {
                if let Some(exchange) = self.exchange(key) {
                    exchange.place = Place::Token(outbox);
                }
                return;
            }
            (Step::Later, None) => "the handler answers later and has taken no token",
            (_, outbox) => {
                if let Some(outbox) = outbox {
                    self.cancel_token(&outbox);
                }
                "the handler has taken a token and does not say that it answers later"
            }
        };
        self.blame(key, mistake);
        self.answer_simply(key, 500, "Internal Server Error\n", &[]);
    }

    #[cold]
    fn refuse_route(&mut self, key: u64, refusal: &Refusal) {
        let allow = refusal.allow.as_deref().map(|allow| ("allow", allow));
        self.answer_simply(key, refusal.status, refusal.text, allow.as_slice());
    }
}
