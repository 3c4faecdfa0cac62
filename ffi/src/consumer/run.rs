//! Serving by a handler, one whole request at a time.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use toolb_core::consumer::{ExchangeId, RespondError};
use toolb_core::engine::Response;

use super::live::id_of;
use super::turn::{Inner, NONE};
use super::{
    TOOLB_EVENT_BODY, TOOLB_EVENT_BODY_ABORTED, TOOLB_EVENT_CANCELLED, TOOLB_EVENT_END,
    TOOLB_EVENT_NONE, TOOLB_EVENT_REQUEST, toolb_consumer, with,
};
use crate::exchange::{toolb_request, toolb_response};
use crate::guard::{entry, object};
use crate::handler::{TOOLB_DONE, TOOLB_LATER, toolb_handler};
use crate::last_error::fail;
use crate::request::AnyRequest;
use crate::toolb_status;

/// Serves by `handler`, one request at a time and with its whole body, until the engine drains and all
/// is done, or toolb_consumer_stop was called (TOOLB_OK), or the engine has gone (TOOLB_HANG_UP). The
/// handler is of the type of inline handlers, runs on this thread, may block, and gets `user_data`;
/// a request over the bus has no route parameters, and TOOLB_LATER is answered by a 500. Calls
/// toolb_consumer_ready. For several threads, run a consumer on each. Streams come as events only:
/// TOOLB_BAD_STATE if the consumer was attached with `streams`.
///
/// # Safety
/// `consumer` is a live consumer; `handler` is a function of that type. Each may be NULL, which is
/// answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_run(
    consumer: *mut toolb_consumer,
    handler: toolb_handler,
    user_data: *mut c_void,
) -> toolb_status {
    entry(|| {
        let call = handler.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        let handler = Handler { call, user_data };
        // SAFETY: the caller's promise.
        let stopping = unsafe { &object(consumer)?.stopping };
        // SAFETY: the caller's promise.
        unsafe { with(consumer, |inner| inner.run(&handler, stopping)) }
    })
}

/// Makes toolb_consumer_run return once it has answered what it has begun; the rest goes to other
/// consumers when this one is freed. It ends a toolb_consumer_wait, too. Any thread, any number of
/// times, and from signal handlers.
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

/// A handler of C, and what it wants to be given.
pub(super) struct Handler {
    pub(super) call:
        unsafe extern "C" fn(*mut c_void, *const toolb_request, *mut toolb_response) -> c_int,
    pub(super) user_data: *mut c_void,
}

impl Inner {
    /// Serves until the engine drains or is gone, or the program is to stop.
    pub(super) fn run(
        &mut self,
        handler: &Handler,
        stopping: &AtomicBool,
    ) -> Result<(), toolb_status> {
        if self.consumer.takes_streams() {
            let text = "streams come as events: use toolb_consumer_next, or attach without streams";
            return Err(fail(toolb_status::TOOLB_BAD_STATE, text));
        }
        let mut response = Response::default();
        self.ready()?;
        loop {
            let leaving = stopping.load(Ordering::SeqCst);
            let found = match self.poll(0) {
                Err(toolb_status::TOOLB_HANG_UP) if self.draining => return Ok(()),
                other => other?,
            };
            if leaving {
                self.leave()?;
                self.leave_requests();
                if self.held == 0 {
                    return self.flush();
                }
            }
            if found == 0 {
                self.wait(None)?;
            }
            while self.step(handler, &mut response)? {
                if !leaving && stopping.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    }

    /// Takes one event, and calls the handler if it completes a request. False: there was none.
    fn step(&mut self, handler: &Handler, response: &mut Response) -> Result<bool, toolb_status> {
        let mut event = NONE;
        self.next(&mut event)?;
        let Some(id) = id_of(event.exchange) else {
            return Ok(event.kind != TOOLB_EVENT_NONE);
        };
        let end = event.flags & TOOLB_EVENT_END != 0;
        match event.kind {
            TOOLB_EVENT_REQUEST | TOOLB_EVENT_BODY => {
                if event.kind == TOOLB_EVENT_BODY || !end {
                    self.collect(id);
                }
                if end {
                    self.answer_by(handler, id, response);
                }
            }
            TOOLB_EVENT_BODY_ABORTED => self.abort(event.exchange)?,
            TOOLB_EVENT_CANCELLED => self.done(event.exchange)?,
            _ => {}
        }
        Ok(true)
    }

    /// Keeps the part of a body that was just handed out.
    fn collect(&mut self, id: ExchangeId) {
        if let Some(AnyRequest::Bus(request)) = self.live[usize::from(id.slot)].request.get_mut() {
            match &mut request.collected {
                Some(body) => body.extend_from_slice(&self.lent_bytes),
                None => request.collected = Some(request.head.body().to_vec()),
            }
        }
    }

    fn answer_by(&mut self, handler: &Handler, id: ExchangeId, response: &mut Response) {
        response.clear();
        let request = self.live[usize::from(id.slot)].request();
        let written: *mut Response = response;
        // SAFETY: both objects outlive the call; the request stays where it is, as the handler cannot
        // enter the consumer meanwhile; and C gets no other way to either than the functions that
        // cast the pointers back.
        let step = unsafe { (handler.call)(handler.user_data, request, written.cast()) };
        if step == TOOLB_LATER {
            // There is no token of it: nobody would answer.
            self.consumer.abort(id);
            return self.forget(id);
        }
        let close = (step != TOOLB_DONE).then_some((&b"connection"[..], &b"close"[..]));
        let (status, fields, body) = response.parts();
        let fields = fields.chain(close);
        let sent = self
            .consumer
            .respond_head(id, status, -1, fields, body, true, true);
        if sent == Err(RespondError::HeadTooLong) {
            self.consumer.abort(id);
        }
        self.forget(id);
    }
}
