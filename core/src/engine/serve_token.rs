//! Exchanges that are answered by the holder of a token.

use std::sync::Arc;

use crate::http::BodyLength;

use super::conn::Place;
use super::event_loop::Loop;
use super::token::{Fate, Outbox};

impl Loop {
    /// The holder of a token has written something.
    pub(super) fn token_letter(&mut self, outbox: &Arc<Outbox>) {
        let key = outbox.key();
        let waits = self.exchange(key).is_some_and(
            |exchange| matches!(&exchange.place, Place::Token(own) if Arc::ptr_eq(own, outbox)),
        );
        if !waits {
            // It was cancelled when the letter was on its way.
            return;
        }
        let news = outbox.take();
        if news.fate == Fate::Aborted {
            return self.respond_abort(key);
        }
        let draft = &news.draft;
        if news.first {
            let length = match news.whole {
                true => BodyLength::Known(draft.body.len() as u64),
                false => BodyLength::Unknown,
            };
            let fields = draft.fields();
            let begun = self.begin_response(key, draft.status, fields, length, news.whole);
            // Refused before: the head is taken out of the outbox once.
            if !begun.unwrap_or(false) {
                return;
            }
        }
        if let Some(exchange) = self.exchange(key) {
            exchange.received += draft.body.len() as u64;
        }
        let end = news.fate == Fate::Ended;
        let written = self.respond_body(key, &draft.body, end);
        debug_assert!(written.is_ok(), "its head is always written first");
        self.spare(news.draft.body);
    }

    /// Lets the holder of a token write as much as the client has taken.
    pub(super) fn open_token_window(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let unsent = conn.unsent() as u64;
        let Some(exchange) = conn.exchange.as_deref() else {
            return;
        };
        let Place::Token(outbox) = &exchange.place else {
            return;
        };
        let outbox = outbox.clone();
        // What is unsent has framing and may have earlier responses in it: never too much is let in.
        if let Some(mut run) = outbox.sent(exchange.received.saturating_sub(unsent)) {
            run(Some(&mut self.context()));
            if let Some(run) = outbox.keep_on_writable(run) {
                self.context().let_go(run);
            }
        }
    }

    /// Tells the holder of a token that nobody waits for the answer any more.
    pub(super) fn cancel_token(&mut self, outbox: &Outbox) {
        let (on_cancel, on_writable) = outbox.cancel();
        if let Some(run) = on_cancel {
            run(Some(&mut self.context()));
        }
        self.context().let_go(on_writable);
    }

    /// The loop ends: so do the tokens of its connections.
    pub(super) fn cancel_tokens(&mut self) {
        for key in self.conns.keys() {
            let Some(exchange) = self.exchange(key) else {
                continue;
            };
            if let Place::Token(outbox) = &exchange.place {
                let outbox = outbox.clone();
                exchange.place = Place::Here;
                self.cancel_token(&outbox);
            }
        }
    }
}
