//! One request and its response, as the application sees them: `receive` and `send`.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use toolb_core::consumer::{ExchangeId, RespondError, Sent};

use crate::awaitable::Value;
use crate::raw::UnderGil;
use crate::worker::Worker;

/// What of a response has been said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Response {
    /// Nothing.
    Unsaid,
    /// Its start, which waits for the first part of the body.
    Announced,
    /// Its head has been sent, its body has not ended.
    Streaming,
    /// All of it.
    Ended,
}

/// One request and its response.
#[pyclass(frozen, module = "toolb._toolb")]
pub(crate) struct Exchange {
    worker: Py<Worker>,
    id: ExchangeId,
    body: UnderGil<RefCell<VecDeque<Part>>>,
    /// The application has had the last part of the body.
    body_read: UnderGil<Cell<bool>>,
    response: UnderGil<Cell<Response>>,
    start: UnderGil<RefCell<Option<Start>>>,
    disconnected: UnderGil<Cell<bool>>,
    /// More was sent than the client has taken.
    above: UnderGil<Cell<bool>>,
    /// The application has returned or raised.
    over: UnderGil<Cell<bool>>,
    receiver: UnderGil<RefCell<Option<Py<PyAny>>>>,
    sender: UnderGil<RefCell<Option<Py<PyAny>>>>,
    /// asyncio holds tasks weakly.
    pub(crate) task: UnderGil<RefCell<Option<Py<PyAny>>>>,
}

struct Part {
    bytes: Py<PyBytes>,
    more: bool,
    /// Bytes that the window is to be moved on by once they have been taken.
    window: usize,
}

struct Start {
    status: u16,
    fields: Vec<(Py<PyBytes>, Py<PyBytes>)>,
}

impl Exchange {
    pub(crate) fn new(worker: Py<Worker>, id: ExchangeId) -> Self {
        Self {
            worker,
            id,
            body: UnderGil::default(),
            body_read: UnderGil::new(Cell::new(false)),
            response: UnderGil::new(Cell::new(Response::Unsaid)),
            start: UnderGil::new(RefCell::new(None)),
            disconnected: UnderGil::new(Cell::new(false)),
            above: UnderGil::new(Cell::new(false)),
            over: UnderGil::new(Cell::new(false)),
            receiver: UnderGil::new(RefCell::new(None)),
            sender: UnderGil::new(RefCell::new(None)),
            task: UnderGil::new(RefCell::new(None)),
        }
    }

    pub(crate) fn id(&self) -> ExchangeId {
        self.id
    }

    /// Another part of the request's body has come.
    pub(crate) fn push_body(&self, py: Python<'_>, bytes: &[u8], more: bool, window: usize) {
        let part = Part {
            bytes: PyBytes::new(py, bytes).unbind(),
            more,
            window,
        };
        self.body.borrow_mut().push_back(part);
        self.wake(py, &self.receiver);
    }

    /// The client has gone, or the engine does not want the response any more.
    pub(crate) fn disconnect(&self, py: Python<'_>) {
        self.disconnected.set(true);
        self.wake(py, &self.receiver);
        self.wake(py, &self.sender);
        if self.over.get() {
            self.worker.get().forget(py, self.id);
        }
    }

    /// The client has taken enough.
    pub(crate) fn writable(&self, py: Python<'_>) {
        self.above.set(false);
        self.wake(py, &self.sender);
    }

    fn wake(&self, py: Python<'_>, waiter: &RefCell<Option<Py<PyAny>>>) {
        let Some(future) = waiter.borrow_mut().take() else {
            return;
        };
        let future = future.bind(py);
        let done = future
            .call_method0(intern!(py, "done"))
            .and_then(|done| done.is_truthy());
        if !done.unwrap_or(true) {
            let _ = future.call_method1(intern!(py, "set_result"), (py.None(),));
        }
    }

    /// The next message of `receive`, if there is one now.
    fn message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let message = PyDict::new(py);
        if let Some(part) = self.body.borrow_mut().pop_front() {
            if part.window > 0 {
                let worker = self.worker.get();
                worker.consumer().consumed(self.id, part.window);
            }
            self.body_read.set(!part.more);
            message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
            message.set_item(intern!(py, "body"), part.bytes)?;
            message.set_item(intern!(py, "more_body"), part.more)?;
            return Ok(Some(message));
        }
        if self.disconnected.get() || self.response.get() == Response::Ended {
            message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
            return Ok(Some(message));
        }
        Ok(None)
    }

    fn announce(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<()> {
        if self.response.get() != Response::Unsaid {
            return Err(PyRuntimeError::new_err(
                "http.response.start was sent a second time; a response has one start",
            ));
        }
        let status = message
            .get_item(intern!(py, "status"))?
            .ok_or_else(|| PyRuntimeError::new_err("http.response.start has no status"))?;
        let status: u16 = status.extract().map_err(|_| {
            PyTypeError::new_err("the status of http.response.start must be an int, such as 200")
        })?;
        if !(200..600).contains(&status) {
            return Err(PyValueError::new_err(format!(
                "the status {status} of http.response.start is not in 200 to 599"
            )));
        }
        let fields = match message.get_item(intern!(py, "headers"))? {
            Some(headers) => fields_of(&headers)?,
            None => Vec::new(),
        };
        *self.start.borrow_mut() = Some(Start { status, fields });
        self.response.set(Response::Announced);
        Ok(())
    }

    fn respond(&self, py: Python<'_>, message: &Bound<'_, PyDict>) -> PyResult<Sent> {
        let more = match message.get_item(intern!(py, "more_body"))? {
            Some(more) => more.is_truthy()?,
            None => false,
        };
        let body = message.get_item(intern!(py, "body"))?;
        let copy;
        let bytes: &[u8] = match &body {
            None => b"",
            Some(body) => match body.cast::<PyBytes>() {
                Ok(bytes) => bytes.as_bytes(),
                Err(_) => {
                    copy = copy_of(body)?;
                    &copy
                }
            },
        };
        let worker = self.worker.get();
        let sent = match self.response.get() {
            Response::Announced => {
                let Some(start) = self.start.borrow_mut().take() else {
                    return Err(PyRuntimeError::new_err("the response has no start"));
                };
                let fields = start
                    .fields
                    .iter()
                    .map(|(name, value)| (name.as_bytes(py), value.as_bytes(py)));
                worker.consumer().respond_head(
                    self.id,
                    start.status,
                    -1,
                    fields,
                    bytes,
                    !more,
                    false,
                )
            }
            Response::Streaming => worker.consumer().respond_body(self.id, bytes, !more, false),
            Response::Unsaid => {
                return Err(PyRuntimeError::new_err(
                    "http.response.body was sent before http.response.start",
                ));
            }
            Response::Ended => {
                return Err(PyRuntimeError::new_err(
                    "http.response.body was sent after the response had ended",
                ));
            }
        };
        self.response.set(match more {
            true => Response::Streaming,
            false => Response::Ended,
        });
        if !more {
            // A `receive` that waits for the disconnect waits no longer.
            self.wake(py, &self.receiver);
        }
        match sent {
            Ok(sent) => Ok(sent),
            Err(RespondError::HeadTooLong) => Err(PyValueError::new_err(
                "the headers of the response are too long: they must fit 60 KiB",
            )),
            Err(_) => Err(worker.disconnected(py)),
        }
    }

    /// The application is done: whatever it left undone is settled.
    fn settle(&self, py: Python<'_>) -> bool {
        self.over.set(true);
        let complete = self.response.get() == Response::Ended;
        let worker = self.worker.get();
        {
            let mut consumer = worker.consumer();
            match complete || self.disconnected.get() {
                true => consumer.done(self.id),
                false => consumer.abort(self.id),
            }
        }
        worker.forget(py, self.id);
        self.task.borrow_mut().take();
        complete || self.disconnected.get()
    }
}

#[pymethods]
impl Exchange {
    /// The `receive` of ASGI.
    fn receive<'py>(this: &Bound<'py, Self>, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let exchange = this.get();
        if let Some(message) = exchange.message(py)? {
            return Ok(Bound::new(py, Value(message.into_any().unbind()))?.into_any());
        }
        let worker = exchange.worker.get();
        worker.consumer().want_body(exchange.id);
        worker.later(py, intern!(py, "receive_later"), this)
    }

    /// The `send` of ASGI.
    fn send<'py>(
        this: &Bound<'py, Self>,
        py: Python<'py>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let exchange = this.get();
        let worker = exchange.worker.get();
        let Ok(message) = message.cast::<PyDict>() else {
            return Err(PyTypeError::new_err("send takes a dict"));
        };
        if exchange.disconnected.get() {
            return Err(worker.disconnected(py));
        }
        let kind = message
            .get_item(intern!(py, "type"))?
            .ok_or_else(|| PyRuntimeError::new_err("the message has no type"))?;
        if kind.eq(intern!(py, "http.response.start"))? {
            exchange.announce(py, message)?;
            return Ok(worker.done(py));
        }
        if !kind.eq(intern!(py, "http.response.body"))? {
            return Err(PyRuntimeError::new_err(format!(
                "send got a message of type {kind}; a response has http.response.start and \
                 http.response.body"
            )));
        }
        match exchange.respond(py, message)? {
            Sent::Below => Ok(worker.done(py)),
            Sent::Above if exchange.response.get() == Response::Ended => Ok(worker.done(py)),
            Sent::Above => {
                exchange.above.set(true);
                worker.later(py, intern!(py, "send_later"), this)
            }
        }
    }

    /// Keeps `future` to be resolved when there may be something to receive.
    fn wait_to_receive(&self, future: Py<PyAny>) {
        *self.receiver.borrow_mut() = Some(future);
    }

    /// The next message, None if there is none now.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.message(py)
    }

    /// Keeps `future` to be resolved when the client has taken enough.
    fn wait_to_send(&self, future: Py<PyAny>) {
        *self.sender.borrow_mut() = Some(future);
    }

    /// Whether more was sent than the client has taken.
    #[getter]
    fn is_above(&self) -> bool {
        self.above.get()
    }

    /// Whether the client has gone.
    #[getter]
    fn is_disconnected(&self) -> bool {
        self.disconnected.get()
    }

    /// The application has returned. False: its response is not complete.
    fn finish(&self, py: Python<'_>) -> bool {
        self.settle(py)
    }

    /// The application has raised. The client gets a 500 if nothing was sent, a cut connection if
    /// something was. False: the client was waiting for more.
    fn fail(&self, py: Python<'_>) -> bool {
        self.settle(py)
    }

    /// Whether the head of the response is out.
    #[getter]
    fn has_begun(&self) -> bool {
        matches!(self.response.get(), Response::Streaming | Response::Ended)
    }
}

/// The fields of a response: pairs of bytes, whatever holds them.
fn fields_of(headers: &Bound<'_, PyAny>) -> PyResult<Vec<(Py<PyBytes>, Py<PyBytes>)>> {
    let mut fields = Vec::new();
    for pair in headers.try_iter()? {
        let pair = pair?;
        let wrong = |_| {
            PyTypeError::new_err(
                "headers are pairs of bytes: [(b\"content-type\", b\"text/plain\")]",
            )
        };
        let (name, value): (Bound<'_, PyBytes>, Bound<'_, PyBytes>) =
            match pair.extract().map_err(wrong) {
                Ok(pair) => pair,
                Err(error) => {
                    let (Ok(name), Ok(value)) = (pair.get_item(0), pair.get_item(1)) else {
                        return Err(error);
                    };
                    (
                        name.cast_into()
                            .map_err(|_| wrong(PyTypeError::new_err("")))?,
                        value
                            .cast_into()
                            .map_err(|_| wrong(PyTypeError::new_err("")))?,
                    )
                }
            };
        check_field(name.as_bytes(), value.as_bytes())?;
        fields.push((name.unbind(), value.unbind()));
    }
    Ok(fields)
}

/// A field that could begin another one, or another response, is the application's error.
fn check_field(name: &[u8], value: &[u8]) -> PyResult<()> {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(token) {
        return Err(PyValueError::new_err(format!(
            "the header name {:?} has a character that HTTP does not allow",
            String::from_utf8_lossy(name)
        )));
    }
    if value
        .iter()
        .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7F)
    {
        return Err(PyValueError::new_err(format!(
            "the value of the header {:?} has a control character",
            String::from_utf8_lossy(name)
        )));
    }
    Ok(())
}

/// The bytes of a bytearray or memoryview, copied: the application may change it afterwards.
fn copy_of(body: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let py = body.py();
    let kind = body.get_type();
    let name = kind.name()?;
    if name != "bytearray" && name != "memoryview" {
        return Err(PyTypeError::new_err(format!(
            "the body of http.response.body must be bytes, not {name}"
        )));
    }
    let bytes = py.get_type::<PyBytes>().call1((body,))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
}
