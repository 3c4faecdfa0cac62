//! Serving by handlers, one whole request at a time.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use toolb_core::consumer::{ExchangeId, RespondError};
use toolb_core::engine::{EventFd, Match, Outbox, Refusal, Response, log_error};

use super::later::{Letters, WINDOW, cancel};
use super::live::{id_of, number};
use super::turn::{Inner, NONE};
use super::{
    TOOLB_EVENT_BODY, TOOLB_EVENT_BODY_ABORTED, TOOLB_EVENT_CANCELLED, TOOLB_EVENT_END,
    TOOLB_EVENT_NONE, TOOLB_EVENT_REQUEST, TOOLB_EVENT_WRITABLE, toolb_consumer, with,
};
use crate::context;
use crate::guard::{entry, object};
use crate::handler::{CHandler, CState, TOOLB_DONE, TOOLB_LATER, toolb_handler, toolb_route};
use crate::last_error::fail;
use crate::request::{AnyRequest, ServedRequest};
use crate::toolb_status;

/// Serves by the routes of toolb_consumer_route, one request at a time and with its whole body, until
/// the engine drains and all is done, or toolb_consumer_stop was called (TOOLB_OK), or the engine has
/// gone (TOOLB_HANG_UP). What no route matches is answered by `handler`, which gets `user_data`; or if
/// that is NULL by a 404, 405 or 400, as the engine does it. TOOLB_NULL_ARGUMENT if there is neither.
///
/// Handlers are those of the engine's routes, and see and answer requests in the same way, tokens
/// included; but they run on this thread, and may block: then all that this consumer has to say waits,
/// answers by token, too. A request has begun when the first part of its body was taken, which is before
/// the handler sees it: if this process dies then, the client gets a 502. Calls toolb_consumer_ready. For several threads, run a consumer on each.
/// Streams come as events only: TOOLB_BAD_STATE if the consumer was attached with `streams`.
///
/// Tokens that are still out when it returns are of no use any more, as when an engine ends.
///
/// # Safety
/// `consumer` is a live consumer, which NULL is answered for by TOOLB_NULL_ARGUMENT; `handler` is a
/// function of that type or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_run(
    consumer: *mut toolb_consumer,
    handler: toolb_handler,
    user_data: *mut c_void,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (stopping, bell) = unsafe { object(consumer).map(|it| (&it.stopping, &it.stop))? };
        let route = toolb_route::plain(handler, user_data);
        let rest = match handler {
            // SAFETY: the route is whole.
            Some(_) => Some(unsafe { CHandler::read(&route)? }),
            None => None,
        };
        // SAFETY: the caller's promise.
        unsafe { with(consumer, |inner| inner.run(rest.as_ref(), stopping, bell)) }
    })
}

/// Makes toolb_consumer_run return once all that it has begun is answered, by token, too, and the engine
/// has the answers; the rest goes to other consumers when this one is freed. It ends a
/// toolb_consumer_wait, too. Any thread, any number of times, and from signal handlers.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_stop(consumer: *mut toolb_consumer) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let consumer = unsafe { object(consumer)? };
        // An atomic store and a write: both are safe in a signal handler.
        consumer.stopping.store(true, Ordering::SeqCst);
        let _ = consumer.stop.signal();
        Ok(())
    })
}

impl Inner {
    /// Serves until the engine drains or is gone, or the program is to stop. `rest` answers what no
    /// route matches.
    fn run(
        &mut self,
        rest: Option<&CHandler>,
        stopping: &AtomicBool,
        bell: &Arc<EventFd>,
    ) -> Result<(), toolb_status> {
        if self.consumer.takes_streams() {
            let text = "streams come as events: use toolb_consumer_next, or attach without streams";
            return Err(fail(toolb_status::TOOLB_BAD_STATE, text));
        }
        if rest.is_none() && self.routes.is_empty() {
            return Err(toolb_status::TOOLB_NULL_ARGUMENT);
        }
        let desk = Arc::new(Letters::new(bell.clone()));
        let states = self.routes.make_states();
        let mut run = Run {
            inner: self,
            rest,
            states,
            response: Response::at(desk.clone(), WINDOW),
            desk,
        };
        run.serve(stopping)
    }
}

/// A consumer that serves by handlers.
struct Run<'a> {
    inner: &'a mut Inner,
    /// Answers what no route matches.
    rest: Option<&'a CHandler>,
    /// Of each route.
    states: Vec<Option<CState>>,
    response: Response,
    desk: Arc<Letters>,
}

impl Run<'_> {
    fn serve(&mut self, stopping: &AtomicBool) -> Result<(), toolb_status> {
        self.inner.ready()?;
        loop {
            let found = match self.inner.poll(0) {
                Err(toolb_status::TOOLB_HANG_UP) if self.inner.draining => return Ok(()),
                other => other?,
            };
            // After the poll, which may take the ring of the bell that told of them.
            let leaving = stopping.load(Ordering::SeqCst);
            let letters = self.desk.take();
            for outbox in &letters {
                self.inner.hand_on(outbox);
            }
            if leaving {
                self.inner.leave()?;
                self.inner.leave_requests();
                if !self.inner.consumer.is_answering() {
                    return self.inner.flush();
                }
            }
            if found == 0 && letters.is_empty() {
                self.inner.wait(None)?;
            }
            while self.step()? {
                if !leaving && stopping.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    }

    /// Takes one event, and calls the handler if it completes a request. False: there was none.
    fn step(&mut self) -> Result<bool, toolb_status> {
        let inner = &mut *self.inner;
        let mut event = NONE;
        inner.next(&mut event)?;
        let Some(id) = id_of(event.exchange) else {
            return Ok(event.kind != TOOLB_EVENT_NONE);
        };
        let end = event.flags & TOOLB_EVENT_END != 0;
        match event.kind {
            TOOLB_EVENT_REQUEST | TOOLB_EVENT_BODY => {
                if event.kind == TOOLB_EVENT_BODY || !end {
                    inner.collect(id);
                }
                if end {
                    self.answer(id);
                }
            }
            TOOLB_EVENT_BODY_ABORTED => inner.abort(event.exchange)?,
            TOOLB_EVENT_CANCELLED => {
                inner.cancel_token(id);
                inner.done(event.exchange)?;
            }
            TOOLB_EVENT_WRITABLE => inner.open_token_window(id),
            _ => {}
        }
        Ok(true)
    }

    /// Answers a request by its handler.
    fn answer(&mut self, id: ExchangeId) {
        self.response.reset(number(id));
        let step = self.call_handler(id);
        let outbox = self.response.take_outbox();
        let is_later = step == TOOLB_LATER;
        if is_later != outbox.is_some() {
            return self.refuse_step(id, outbox.as_deref());
        }
        if let Some(outbox) = outbox {
            return self.inner.give_away(id, outbox);
        }
        let inner = &mut *self.inner;
        let close = (step != TOOLB_DONE).then_some((&b"connection"[..], &b"close"[..]));
        let (status, fields, body) = self.response.parts();
        let fields = fields.chain(close);
        let sent = inner
            .consumer
            .respond_head(id, status, -1, fields, body, true, true);
        if sent == Err(RespondError::HeadTooLong) {
            inner.consumer.abort(id);
        }
        inner.forget(id);
        self.response.shrink();
    }

    /// Has the handler of its route answer a request, or says that there is none.
    fn call_handler(&mut self, id: ExchangeId) -> c_int {
        let AnyRequest::Bus(request) = &*self.inner.live[usize::from(id.slot)].request else {
            return TOOLB_DONE;
        };
        let (method, path) = (request.head.method(), request.head.path());
        let routes = &self.inner.routes;
        let (handler, params, state) = match (routes.find(method, path), self.rest) {
            (Match::Found(number, params), _) => {
                let state = self.states.get(*number).and_then(Option::as_ref);
                (routes.handler(*number), Some(params), state)
            }
            (_, Some(rest)) => (Some(rest), None, None),
            (other, None) => {
                refuse(&mut self.response, &Refusal::of(other, path));
                return TOOLB_DONE;
            }
        };
        let request = AnyRequest::Served(ServedRequest {
            request,
            params: params.as_ref(),
            state: state.map(|state| state.pointer),
        });
        let response = &mut self.response;
        let call = |handler: &CHandler| context::serve(|| handler.call(&request, response));
        handler.map_or(TOOLB_DONE, call)
    }

    /// The handler has a token and does not say so, or the other way round.
    #[cold]
    fn refuse_step(&mut self, id: ExchangeId, outbox: Option<&Outbox>) {
        let text = match outbox {
            Some(outbox) => {
                cancel(outbox);
                "a handler has taken a token and does not say that it answers later"
            }
            None => "a handler answers later and has taken no token",
        };
        log_error(format_args!("{text}"));
        self.inner.consumer.abort(id);
        self.inner.forget(id);
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.inner.cancel_tokens();
        self.desk.close();
        context::serve(|| self.states.clear());
    }
}

impl Inner {
    /// Keeps the part of a body that was just handed out.
    fn collect(&mut self, id: ExchangeId) {
        if let Some(AnyRequest::Bus(request)) = self.live[usize::from(id.slot)].request.get_mut() {
            match &mut request.collected {
                Some(body) => body.extend_from_slice(&self.lent_bytes),
                None => request.collected = Some(request.head.body().to_vec()),
            }
        }
    }
}

/// The answer to a request that no route is for.
#[cold]
fn refuse(response: &mut Response, refusal: &Refusal) {
    response.status(refusal.status);
    response.field(b"content-type", b"text/plain; charset=utf-8");
    if let Some(allow) = &refusal.allow {
        response.field(b"allow", allow.as_bytes());
    }
    response.write(refusal.text.as_bytes());
}
