//! The right to answer an exchange later, from any thread.
//!
//! The holder of a token fills an outbox and posts one letter to whoever answers for it, however much
//! it writes before that one has come to read it: a loop, which owns the connection, or a consumer,
//! which has the request over the bus. So a mailbox holds at most a letter for each token, and an
//! outbox at most a window.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::context::Context;
use super::inline::Draft;

/// The right and the duty to answer one exchange, from any thread.
///
/// Dropped without an end, it is as if [`Token::abort`] had been called. Once the client has left,
/// the time for the response is over or the engine has stopped, all of its functions say
/// [`WriteError::Gone`]; the token still has to be dropped.
pub struct Token {
    outbox: Arc<Outbox>,
    ended: bool,
}

impl Token {
    /// Sets the status code; 200 when not called, or what the handler's response said.
    pub fn status(&self, status: u16) -> Result<(), WriteError> {
        self.head()?.draft.status = status;
        Ok(())
    }

    /// Adds a field. One that HTTP does not allow makes the answer a 500 in place of this one.
    pub fn field(&self, name: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.head()?.draft.field(name, value);
        Ok(())
    }

    /// Sends the head, if it has not been sent, and a part of the body; the bytes are copied.
    ///
    /// At most the engine's response window may wait for the client to take it: what does not fit is
    /// refused as a whole by [`WriteError::Full`]. A part larger than the window is taken when
    /// nothing else waits.
    pub fn write(&self, bytes: &[u8]) -> Result<(), WriteError> {
        let mut state = self.outbox.lock();
        if state.gone {
            return Err(WriteError::Gone);
        }
        if !state.has_room(bytes.len(), self.outbox.window) {
            state.refused = state.refused.max(bytes.len());
            return Err(WriteError::Full);
        }
        state.begun = true;
        state.append(bytes);
        self.outbox.post(state);
        Ok(())
    }

    /// Completes the response. Without a `write` before, it has an empty body.
    pub fn end(self) -> Result<(), WriteError> {
        self.finish(b"", Fate::Ended)
    }

    /// Sends the rest of the response, or all of it, and completes it; whatever the window.
    pub fn answer(self, body: &[u8]) -> Result<(), WriteError> {
        self.finish(body, Fate::Ended)
    }

    /// Gives up: the client gets a 500, or a reset connection if the head has been sent.
    pub fn abort(self) -> Result<(), WriteError> {
        self.finish(b"", Fate::Aborted)
    }

    /// Has `run` called on the loop if nobody waits for the answer any more: the client has left,
    /// the time is over, or the engine has stopped. At most once, and never after `end`, `answer` or
    /// `abort` has succeeded. A function that was set before is dropped. Of a request that came over
    /// the bus it is called by its consumer, without a loop.
    ///
    /// Where that has happened already, `run` is dropped and the answer is `Gone`.
    pub fn on_cancel(
        &self,
        run: impl FnOnce(Option<&mut Context<'_>>) + Send + 'static,
    ) -> Result<(), WriteError> {
        let run: OnCancel = Box::new(run);
        let mut state = self.outbox.open()?;
        let old = state.on_cancel.replace(run);
        // What it holds may be anything: not to be dropped under the lock.
        drop(state);
        drop(old);
        Ok(())
    }

    /// Has `run` called on the loop when there is room again, once after each write that was refused
    /// as full. A function that was set before is dropped.
    ///
    /// It may still be running when another thread ends the token.
    pub fn on_writable(
        &self,
        run: impl FnMut(Option<&mut Context<'_>>) + Send + 'static,
    ) -> Result<(), WriteError> {
        let run: OnWritable = Box::new(run);
        let mut state = self.outbox.open()?;
        let old = state.on_writable.replace(run);
        drop(state);
        drop(old);
        Ok(())
    }

    /// Waits until there is room for what was refused, at most for `timeout`. False: the time is
    /// over. Not to be called on a loop, which would wait for itself.
    pub fn wait_writable(&self, timeout: Option<Duration>) -> Result<bool, WriteError> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.outbox.open()?;
        if state.has_room(state.refused.max(1), self.outbox.window) {
            state.refused = 0;
            return Ok(true);
        }
        state.refused = state.refused.max(1);
        loop {
            let room = &self.outbox.room;
            // A panic cannot leave the state half changed.
            state = match until {
                None => room
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    let waited = room.wait_timeout(state, left);
                    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
            };
            if state.gone {
                return Err(WriteError::Gone);
            }
            if state.refused == 0 {
                return Ok(true);
            }
        }
    }

    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            ended: false,
        }
    }

    /// The state, as long as the head can still be changed.
    fn head(&self) -> Result<MutexGuard<'_, State>, WriteError> {
        let state = self.outbox.open()?;
        match state.begun {
            true => Err(WriteError::Begun),
            false => Ok(state),
        }
    }

    fn finish(mut self, body: &[u8], fate: Fate) -> Result<(), WriteError> {
        self.ended = true;
        self.outbox.finish(body, fate)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.ended {
            // Gone already: then there is nobody to be told.
            let _ = self.outbox.finish(b"", Fate::Aborted);
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.outbox).finish()
    }
}

/// What a token refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteError {
    /// The head has been sent: it cannot be changed any more.
    Begun,
    /// The window is used up; nothing was taken.
    Full,
    /// Nobody waits for the answer any more.
    Gone,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Begun => "the head of the response has been sent",
            Self::Full => "the response's window is used up",
            Self::Gone => "nobody waits for the response any more",
        })
    }
}

impl std::error::Error for WriteError {}

/// Where the holders of tokens leave word.
pub trait Desk: Send + Sync {
    /// There is something new in this outbox. Called by any thread, at most once until it is taken.
    fn post(&self, outbox: Arc<Outbox>);
}

/// What the holder of a token shares with whoever answers the request: a loop, or a consumer.
pub struct Outbox {
    /// The connection on the loop, or the exchange of the consumer.
    key: u64,
    window: usize,
    /// `None` if there never was an exchange to answer.
    desk: Option<Arc<dyn Desk>>,
    state: Mutex<State>,
    room: Condvar,
}

/// What is found in an outbox.
#[derive(Debug)]
pub struct News {
    /// The head, if `first`; its body is what is to be sent now.
    pub draft: Draft,
    /// The head has not been taken before.
    pub first: bool,
    /// Together with the head this is all of the response.
    pub whole: bool,
    /// What the holder of the token has decided.
    pub fate: Fate,
}

/// What became of a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It was given up.
    Aborted,
    /// The response is complete.
    Ended,
    /// There is more to come.
    Open,
}

impl Outbox {
    /// For the exchange `key` of whoever has the desk.
    pub(super) fn new(key: u64, window: usize, desk: Option<Arc<dyn Desk>>, draft: Draft) -> Self {
        Self {
            key,
            window,
            state: Mutex::new(State {
                posted: draft.body.len() as u64,
                sent: 0,
                draft,
                begun: false,
                whole: false,
                taken: false,
                fate: Fate::Open,
                gone: desk.is_none(),
                letter: false,
                refused: 0,
                on_cancel: None,
                on_writable: None,
            }),
            desk,
            room: Condvar::new(),
        }
    }

    /// The exchange that it is for.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// What has been written since the last time.
    pub fn take(&self) -> News {
        let mut state = self.lock();
        state.letter = false;
        News {
            draft: std::mem::take(&mut state.draft),
            first: !std::mem::replace(&mut state.taken, true),
            whole: state.whole,
            fate: state.fate,
        }
    }

    /// Of all that was written, so much has left for the client. Gives the function to be run if a
    /// write that was refused would be taken now; to be put back by `keep_on_writable`.
    pub fn sent(&self, total: u64) -> Option<OnWritable> {
        let mut state = self.lock();
        state.sent = state.sent.max(total);
        let half = self.window as u64 / 2;
        let reopened = state.refused > 0
            && state.has_room(state.refused, self.window)
            && state.posted - state.sent <= half;
        if !reopened {
            return None;
        }
        state.refused = 0;
        self.room.notify_all();
        state.on_writable.take()
    }

    /// Keeps the function for the next time; gives it back if there is another by now, or no next
    /// time.
    pub fn keep_on_writable(&self, run: OnWritable) -> Option<OnWritable> {
        let mut state = self.lock();
        if state.fate == Fate::Open && !state.gone && state.on_writable.is_none() {
            return state.on_writable.replace(run);
        }
        Some(run)
    }

    /// Nobody waits for the answer any more. Gives the function that is to be told, if the token has
    /// not been ended before; and the other one, to be dropped only after it, as they may share what
    /// they hold.
    pub fn cancel(&self) -> (Option<OnCancel>, Option<OnWritable>) {
        let mut state = self.lock();
        state.gone = true;
        let callbacks = (state.on_cancel.take(), state.on_writable.take());
        let rest = std::mem::take(&mut state.draft);
        self.room.notify_all();
        drop(state);
        drop(rest);
        callbacks
    }

    fn finish(self: &Arc<Self>, body: &[u8], fate: Fate) -> Result<(), WriteError> {
        let mut state = self.open()?;
        state.whole = !state.begun;
        state.begun = true;
        state.append(body);
        state.fate = fate;
        let callbacks = (state.on_cancel.take(), state.on_writable.take());
        self.post(state);
        drop(callbacks);
        Ok(())
    }

    /// Leaves word, unless a letter is on its way.
    fn post(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if std::mem::replace(&mut state.letter, true) {
            return;
        }
        drop(state);
        if let Some(desk) = &self.desk {
            desk.post(self.clone());
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, WriteError> {
        let state = self.lock();
        match state.gone {
            true => Err(WriteError::Gone),
            false => Ok(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What is to be called when nobody waits for an answer any more: with the loop, if there is one.
pub type OnCancel = Box<dyn FnOnce(Option<&mut Context<'_>>) + Send>;
/// What is to be called when there is room again: with the loop, if there is one.
pub type OnWritable = Box<dyn FnMut(Option<&mut Context<'_>>) + Send>;

struct State {
    /// Head and body as far as they have not been taken.
    draft: Draft,
    /// The head is settled.
    begun: bool,
    /// The response was ended before any of it was written.
    whole: bool,
    /// The head has been taken.
    taken: bool,
    fate: Fate,
    gone: bool,
    /// A letter is on its way.
    letter: bool,
    /// Body bytes written, and those of them that have left for the client.
    posted: u64,
    sent: u64,
    /// The size of the largest write that found no room since there last was room; 0 for none.
    refused: usize,
    on_cancel: Option<OnCancel>,
    on_writable: Option<OnWritable>,
}

impl State {
    fn has_room(&self, len: usize, window: usize) -> bool {
        let waiting = self.posted - self.sent;
        waiting == 0 || waiting.saturating_add(len as u64) <= window as u64
    }

    fn append(&mut self, bytes: &[u8]) {
        self.draft.body.extend_from_slice(bytes);
        self.posted += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests;
