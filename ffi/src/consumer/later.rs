//! Requests of a consumer that are answered by the holders of tokens.

use std::sync::{Arc, Mutex, MutexGuard};

use toolb_core::consumer::{ExchangeId, RespondError, Sent};
use toolb_core::engine::{Desk, EventFd, Fate, Outbox};

use super::live::{Live, id_of};
use super::turn::Inner;
use crate::context;

/// How many bytes of an answer the holder of a token may write ahead of what the engine takes.
pub(super) const WINDOW: usize = 128 * 1024;

/// Where the holders of a consumer's tokens leave word, from any thread.
pub(super) struct Letters {
    /// `None` once the consumer has stopped to serve: letters hold on to the desk they lie on, so
    /// that without this they would keep each other for ever.
    waiting: Mutex<Option<Vec<Arc<Outbox>>>>,
    /// Wakes the consumer.
    bell: Arc<EventFd>,
}

impl Letters {
    pub(super) fn new(bell: Arc<EventFd>) -> Self {
        Self {
            waiting: Mutex::new(Some(Vec::new())),
            bell,
        }
    }

    /// All that have come.
    pub(super) fn take(&self) -> Vec<Arc<Outbox>> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        let rest = self.lock().take();
        drop(rest);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Arc<Outbox>>>> {
        // A panic cannot leave the list half changed.
        self.waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Desk for Letters {
    fn post(&self, outbox: Arc<Outbox>) {
        let is_first = match &mut *self.lock() {
            Some(waiting) => {
                waiting.push(outbox);
                waiting.len() == 1
            }
            None => return,
        };
        if is_first {
            // Whoever takes the letters has not done so since the first of them rang.
            let _ = self.bell.signal();
        }
    }
}

/// A request whose answer was given away to the holder of a token.
pub(super) struct GivenAway {
    outbox: Arc<Outbox>,
    /// Body bytes that went on to the engine.
    handed: u64,
}

impl Inner {
    /// The answer to this request comes from the holder of a token. The request ends here.
    pub(super) fn give_away(&mut self, id: ExchangeId, outbox: Arc<Outbox>) {
        let Some(live) = self.find(id) else {
            return;
        };
        live.given_away = Some(GivenAway { outbox, handed: 0 });
        if let Some(request) = live.end_request() {
            self.consumer.recycle(request.head.into_bytes());
        }
    }

    /// Hands on to the engine what the holder of a token has written. What the engine does not take
    /// yet waits in the consumer, and counts as unsent all the same: no more than a window of it.
    pub(super) fn hand_on(&mut self, outbox: &Arc<Outbox>) {
        let Some(id) = id_of(outbox.key()) else {
            return;
        };
        if !self.find(id).is_some_and(|live| live.is_given_to(outbox)) {
            // It was cancelled when the letter was on its way.
            return;
        }
        let news = outbox.take();
        if news.fate == Fate::Aborted {
            self.consumer.abort(id);
            return self.forget(id);
        }
        let ended = news.fate == Fate::Ended;
        let (status, body) = (news.draft.status, &news.draft.body[..]);
        let sent = match news.first {
            true => {
                let fields = news.draft.fields();
                self.consumer
                    .respond_head(id, status, -1, fields, body, ended, ended)
            }
            false => self.consumer.respond_body(id, body, ended, ended),
        };
        match sent {
            Ok(_) if ended => self.forget(id),
            Ok(sent) => self.note_handed(id, body.len(), sent),
            // The event that says so is on its way.
            Err(RespondError::Disconnected) if !ended => {}
            Err(_) => {
                self.consumer.abort(id);
                self.cancel_token(id);
                self.forget(id);
            }
        }
    }

    /// Lets the holder of a token write as much as the engine has taken.
    pub(super) fn open_token_window(&mut self, id: ExchangeId) {
        let Some(given) = self.find(id).and_then(|live| live.given_away.as_ref()) else {
            return;
        };
        let outbox = given.outbox.clone();
        if let Some(mut run) = outbox.sent(given.handed) {
            context::serve(|| {
                run(None);
                drop(outbox.keep_on_writable(run));
            });
        }
    }

    /// Tells the holder of a token, if there is one, that nobody waits for the answer any more.
    pub(super) fn cancel_token(&mut self, id: ExchangeId) {
        if let Some(given) = self.find(id).and_then(|live| live.given_away.take()) {
            cancel(&given.outbox);
        }
    }

    /// The same for all of them.
    pub(super) fn cancel_tokens(&mut self) {
        for live in &mut self.live {
            if let Some(given) = live.given_away.take() {
                cancel(&given.outbox);
            }
        }
    }

    fn note_handed(&mut self, id: ExchangeId, bytes: usize, sent: Sent) {
        let Some(live) = self.find(id) else {
            return;
        };
        if let Some(given) = &mut live.given_away {
            given.handed += bytes as u64;
        }
        if sent == Sent::Above {
            live.full = true;
            live.told_full = true;
        }
        if !live.full {
            self.open_token_window(id);
        }
    }
}

impl Live {
    fn is_given_to(&self, outbox: &Arc<Outbox>) -> bool {
        let given = self.given_away.as_ref();
        given.is_some_and(|given| Arc::ptr_eq(&given.outbox, outbox))
    }
}

/// Tells the holder of a token that nobody waits for the answer any more.
pub(super) fn cancel(outbox: &Outbox) {
    let (on_cancel, on_writable) = outbox.cancel();
    context::serve(|| {
        if let Some(run) = on_cancel {
            run(None);
        }
        drop(on_writable);
    });
}
