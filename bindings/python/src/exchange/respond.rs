//! What the application sends: its messages on their way to the engine.
#![forbid(unsafe_code)]

use pyo3::{
    exceptions::PyRuntimeError,
    intern,
    prelude::*,
    types::{PyByteArray, PyBytes, PyDict, PyMemoryView, PyString},
};
use toolb_core::consumer::{RespondError, Sent};

use super::{Exchange, bit};
use crate::{
    answer::{Answer, Awaits},
    errors::wrong_type,
    raw::Instance,
};

/// Whether a response can go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    /// It can.
    Enough,
    /// The client has gone.
    Never,
    /// Later.
    None,
}

impl Exchange {
    /// The engine takes more of the response.
    pub(crate) fn on_writable(&self, py: Python<'_>) {
        self.unset(bit::FULL);
        self.wake(py);
    }

    /// Whether `send` may return: what it sent is below the mark, or will never be.
    pub(crate) fn room(&self) -> Room {
        if self.has(bit::DISCONNECTED) && !self.has(bit::COMPLETE) {
            Room::Never
        } else if self.has(bit::FULL) {
            Room::None
        } else {
            Room::Enough
        }
    }

    /// `send(message)`.
    pub(super) fn send<'py>(
        this: &Instance<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let converted;
        let message = if let Ok(message) = message.cast::<PyDict>() {
            message
        } else {
            let mapping = message.cast().map_err(|_| not_a_message(message))?;
            converted = PyDict::new(py);
            converted.update(mapping)?;
            &converted
        };
        let kind = message.get_item(intern!(py, "type"))?.ok_or_else(|| {
            PyRuntimeError::new_err(
                "an ASGI message without 'type': it is such as 'http.response.start'",
            )
        })?;
        let kind = kind
            .cast::<PyString>()
            .map_err(|_| wrong_type("'type' of an ASGI message", "str", &kind, TYPES))?;
        let kind = kind.to_str()?;
        if this.has(bit::DISCONNECTED) {
            return match this.drop_whole(kind, message)? {
                true => Ok(this.worker.nothing(py)),
                false => Answer::create(py, Awaits::FAREWELL),
            };
        }
        match kind {
            "http.response.body" if this.in_body() => {}
            "http.response.start" if !this.has(bit::STARTED | bit::COMPLETE | bit::OVER) => {
                let mut head = this.worker.new_head();
                head.fill(message)?;
                this.head.replace(Some(head));
                this.set(bit::STARTED);
                return Ok(this.worker.nothing(py));
            }
            _ => return Err(this.unexpected(kind)),
        }
        let body = message.get_item(intern!(py, "body"))?;
        // Most have a type and a body, and nothing else.
        let more = (body.is_none() || message.len() > 2) && more_body(message)?;
        if !this.send_body(py, body, more)? {
            return Answer::create(py, Awaits::FAREWELL);
        }
        if this.has(bit::FULL) && more {
            return Answer::create(py, Awaits::Room(this.clone().unbind()));
        }
        Ok(this.worker.nothing(py))
    }

    /// Sends the last part of the response, if the application has given it. True: nothing more is
    /// to be said about the exchange.
    pub(super) fn put_last(&self, py: Python<'_>, done: bool) -> bool {
        let Some(body) = self.last.take() else {
            return false;
        };
        match self.put(py, Some(body.bind(py)), true, done) {
            Ok(_) => true,
            // The consumer has taken note of `done`.
            Err(RespondError::Disconnected | RespondError::Unknown) => {
                self.set(bit::DISCONNECTED);
                true
            }
            Err(error) => {
                self.worker.log(py, &error.to_string());
                self.worker.consumer().abort(self.id);
                true
            }
        }
    }

    /// Answers in place of an application that sent nothing, be it that its time was over.
    pub(super) fn put_error(&self) {
        let mut head = self.worker.new_head();
        let (status, body): (u16, &[u8]) = match self.worker.is_giving_up() {
            true => (503, b"the server is about to end\n"),
            false => (500, b"Internal Server Error\n"),
        };
        head.plain(status);
        let mut consumer = self.worker.consumer();
        let sent = consumer.respond_encoded(self.id, head.encoded(), -1, body, true, true);
        if sent.is_err() {
            consumer.done(self.id);
        }
        drop(consumer);
        self.worker.recycle_head(head);
    }

    /// The client has gone: a response that the application gives as a whole is dropped, so that it
    /// goes on to what it does afterwards. False: it is streamed, and might go on for ever.
    #[cold]
    fn drop_whole(&self, kind: &str, message: &Bound<'_, PyDict>) -> PyResult<bool> {
        let whole = match kind {
            "http.response.start" => !self.has(bit::STARTED | bit::COMPLETE | bit::OVER),
            _ => self.in_body() && !self.has(bit::HEAD_SENT) && !more_body(message)?,
        };
        if whole {
            self.set(match kind {
                "http.response.start" => bit::STARTED,
                _ => bit::COMPLETE,
            });
        }
        Ok(whole)
    }

    fn in_body(&self) -> bool {
        self.bits.get() & (bit::STARTED | bit::COMPLETE | bit::OVER) == bit::STARTED
    }

    /// False: the client has gone.
    fn send_body(
        &self,
        py: Python<'_>,
        body: Option<Bound<'_, PyAny>>,
        more: bool,
    ) -> PyResult<bool> {
        let body = match body {
            Some(body) if body.is_exact_instance_of::<PyBytes>() => Some(body),
            Some(body) => Some(copy_of(&body)?.into_any()),
            None => None,
        };
        if !more {
            self.set(bit::COMPLETE);
            // Whoever still receives is to hear that it is over.
            self.wake(py);
            if self.has(bit::STEPPING) {
                // Goes out when the step ends, in one record with DONE if the application does too.
                let body = body.map_or_else(|| py.None(), Bound::unbind);
                self.last.replace(Some(body));
                return Ok(true);
            }
        }
        match self.put(py, body.as_ref(), !more, false) {
            Ok(Sent::Below) => Ok(true),
            Ok(Sent::Above) => {
                self.set(bit::FULL);
                Ok(true)
            }
            Err(RespondError::Disconnected | RespondError::Unknown) => {
                self.set(bit::DISCONNECTED);
                Ok(false)
            }
            Err(error) => Err(PyRuntimeError::new_err(error.to_string())),
        }
    }

    /// Hands a part of the response to the engine, after the head if that is still here.
    fn put(
        &self,
        py: Python<'_>,
        body: Option<&Bound<'_, PyAny>>,
        end: bool,
        done: bool,
    ) -> Result<Sent, RespondError> {
        let body = body
            .and_then(|body| body.cast_exact::<PyBytes>().ok())
            .map_or(&b""[..], |body| body.as_bytes());
        if end {
            self.set(bit::END_SENT);
        }
        let _ = py;
        let Some(mut head) = self.head.take() else {
            return self
                .worker
                .consumer()
                .respond_body(self.id, body, end, done);
        };
        self.set(bit::HEAD_SENT);
        let length = head.content_length();
        let sent = self.worker.consumer().respond_encoded(
            self.id,
            head.encoded(),
            length,
            body,
            end,
            done,
        );
        self.worker.recycle_head(head);
        sent
    }

    fn unexpected(&self, kind: &str) -> PyErr {
        PyRuntimeError::new_err(if self.has(bit::COMPLETE | bit::OVER) {
            format!("unexpected ASGI message '{kind}': the response is already complete")
        } else if self.has(bit::STARTED) {
            format!("expected ASGI message 'http.response.body', got '{kind}'")
        } else {
            format!("expected ASGI message 'http.response.start', got '{kind}'")
        })
    }
}

fn more_body(message: &Bound<'_, PyDict>) -> PyResult<bool> {
    match message.get_item(intern!(message.py(), "more_body"))? {
        Some(more) => more.is_truthy(),
        None => Ok(false),
    }
}

/// A private copy of a body that is not plain bytes and may change.
fn copy_of<'py>(body: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = body.py();
    if let Ok(array) = body.cast::<PyByteArray>() {
        return Ok(PyBytes::new(py, &array.to_vec()));
    }
    if PyMemoryView::from(body).is_err() {
        let mend = if body.is_none() {
            "leave it out if there is none"
        } else if body.is_instance_of::<PyString>() {
            "encode it, as text.encode() does"
        } else {
            "turn it into bytes, or a bytearray or memoryview"
        };
        return Err(wrong_type(
            "'body' of 'http.response.body'",
            "bytes",
            body,
            mend,
        ));
    }
    Ok(py.get_type::<PyBytes>().call1((body,))?.cast_into()?)
}

#[cold]
fn not_a_message(value: &Bound<'_, PyAny>) -> PyErr {
    wrong_type(
        "an ASGI message",
        "a dict",
        value,
        "it holds 'type' and what goes with it",
    )
}

const TYPES: &str = "'http.response.start' or 'http.response.body'";
