//! One request and its response, as the application sees them. The same object is `receive` (called
//! without arguments), `send` (called with a message) and the coroutine that the request's task runs:
//! it steps the application's own coroutine and sees at once when that ends. A response that is
//! complete when a step ends thus leaves in one record with the end of the exchange.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::CStr;

use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError, asyncio::CancelledError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyByteArray, PyBytes, PyDict, PyString, PyTuple, PyType},
};
use toolb_core::consumer::{ExchangeId, RespondError, Sent};

use crate::{
    answer::{Answer, Awaits},
    head::Head,
    raw::{Args, Instance, Kept, Native, Step, Visitor, send_into},
    worker::{ClientDisconnected, Worker},
};

/// Bits of [`Exchange::bits`].
mod bit {
    /// A step of the application runs right now.
    pub(super) const STEPPING: u16 = 1;
    /// `http.response.start` was sent by the application.
    pub(super) const STARTED: u16 = 1 << 1;
    /// The head went to the engine.
    pub(super) const HEAD_SENT: u16 = 1 << 2;
    /// The application sent the last of its response.
    pub(super) const COMPLETE: u16 = 1 << 3;
    /// The end of the response went to the engine.
    pub(super) const END_SENT: u16 = 1 << 4;
    /// The client has gone.
    pub(super) const DISCONNECTED: u16 = 1 << 5;
    /// All of the request's body has come.
    pub(super) const BODY_CAME: u16 = 1 << 6;
    /// The application has received all of the request's body.
    pub(super) const BODY_TAKEN: u16 = 1 << 7;
    /// The client waits to hear that the body is wanted.
    pub(super) const EXPECTS: u16 = 1 << 8;
    /// Much of the response is still here.
    pub(super) const FULL: u16 = 1 << 9;
    /// The application has ended.
    pub(super) const OVER: u16 = 1 << 10;
    /// The rest of the request's body will never come.
    pub(super) const BODY_LOST: u16 = 1 << 11;
}

/// What the application gets for a request.
pub(crate) struct Exchange {
    worker: &'static Worker,
    id: ExchangeId,
    bits: Cell<u16>,
    /// Until the application is called.
    scope: RefCell<Option<Py<PyAny>>>,
    /// The application's coroutine.
    coroutine: RefCell<Option<Py<PyAny>>>,
    /// Kept alive here once it has to wait: asyncio itself does not.
    task: RefCell<Option<Py<PyAny>>>,
    /// What has come of the body and was not received.
    body: RefCell<Vec<u8>>,
    /// A head whose body is awaited.
    head: RefCell<Option<Head>>,
    /// The last part of the response, until the step ends.
    last: RefCell<Option<Py<PyAny>>>,
    /// Futures of those who wait in `receive` or `send`.
    waiters: RefCell<Vec<Py<PyAny>>>,
}

impl Exchange {
    pub(crate) fn new(
        worker: &'static Worker,
        id: ExchangeId,
        scope: Bound<'_, PyDict>,
        body: &[u8],
        more_body: bool,
        expects_continue: bool,
    ) -> Self {
        let mut bits = 0;
        if !more_body {
            bits |= bit::BODY_CAME;
        } else if expects_continue {
            bits |= bit::EXPECTS;
        }
        Self {
            worker,
            id,
            bits: Cell::new(bits),
            scope: RefCell::new(Some(scope.into_any().unbind())),
            coroutine: RefCell::new(None),
            task: RefCell::new(None),
            body: RefCell::new(body.to_vec()),
            head: RefCell::new(None),
            last: RefCell::new(None),
            waiters: RefCell::new(Vec::new()),
        }
    }

    /// Which exchange it is.
    pub(crate) fn id(&self) -> ExchangeId {
        self.id
    }

    /// The application has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.has(bit::OVER)
    }

    /// Keeps the task that runs this exchange.
    pub(crate) fn keep_task(&self, task: Py<PyAny>) {
        self.task.replace(Some(task));
    }

    /// The task, if it is still to be heard of.
    pub(crate) fn task<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.task
            .borrow()
            .as_ref()
            .map(|task| task.bind(py).clone())
    }

    /// More of the body came.
    pub(crate) fn on_body(&self, py: Python<'_>, data: &[u8], end: bool) {
        self.body.borrow_mut().extend_from_slice(data);
        if end {
            self.set(bit::BODY_CAME);
        }
        self.wake(py);
    }

    /// The rest of the body will never come; a response still may go.
    pub(crate) fn on_body_lost(&self, py: Python<'_>) {
        self.set(bit::BODY_LOST);
        self.wake(py);
    }

    /// The client has gone.
    pub(crate) fn on_disconnect(&self, py: Python<'_>) {
        self.set(bit::DISCONNECTED);
        self.wake(py);
    }

    /// The engine takes more of the response.
    pub(crate) fn on_writable(&self, py: Python<'_>) {
        self.unset(bit::FULL);
        self.wake(py);
    }

    /// The message that `receive` waits for, once there is one.
    pub(crate) fn message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let over = self.has(bit::DISCONNECTED | bit::BODY_LOST | bit::COMPLETE | bit::OVER)
            || (self.has(bit::HEAD_SENT) && self.worker.is_ending());
        if !over && !self.has(bit::BODY_TAKEN) {
            let ended = self.has(bit::BODY_CAME);
            let mut body = self.body.borrow_mut();
            if ended || !body.is_empty() {
                let bytes = PyBytes::new(py, &body);
                let taken = body.len();
                *body = Vec::new();
                drop(body);
                return Ok(Some(self.take_body(bytes, taken, ended)?));
            }
            drop(body);
            if self.has(bit::EXPECTS) {
                self.unset(bit::EXPECTS);
                self.worker.consumer().want_body(self.id);
            }
            return Ok(None);
        }
        if !over {
            return Ok(None);
        }
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?;
        Ok(Some(message.into_any()))
    }

    fn take_body<'py>(
        &self,
        bytes: Bound<'py, PyBytes>,
        taken: usize,
        ended: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = bytes.py();
        if ended {
            self.set(bit::BODY_TAKEN);
        } else {
            self.worker.consumer().consumed(self.id, taken);
        }
        let message = PyDict::new(py);
        message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
        message.set_item(intern!(py, "body"), bytes)?;
        message.set_item(intern!(py, "more_body"), !ended)?;
        Ok(message.into_any())
    }

    /// Whether `send` may return: what it sent is below the mark, or will never be.
    pub(crate) fn may_send_on(&self) -> PyResult<bool> {
        if self.has(bit::DISCONNECTED) && !self.has(bit::COMPLETE) {
            return Err(disconnected());
        }
        Ok(!self.has(bit::FULL))
    }

    /// A future that is resolved when anything happens to this exchange.
    pub(crate) fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let future = self.worker.new_future(py)?;
        let full = |waiters: &Vec<_>| !waiters.is_empty() && waiters.len() == waiters.capacity();
        if full(&self.waiters.borrow()) {
            self.forget_cancelled(py);
        }
        let mut waiters = self.waiters.borrow_mut();
        waiters.push(future.clone().unbind());
        Ok(future)
    }

    /// Lets go of those who wait no more, before the list grows: an application may listen, and
    /// cease to, as often as it likes.
    #[cold]
    fn forget_cancelled(&self, py: Python<'_>) {
        let is_done = |future: &Py<PyAny>| {
            let done = future.bind(py).call_method0(intern!(py, "done"));
            done.and_then(|done| done.is_truthy()).unwrap_or(false)
        };
        let mut left = self.waiters.take();
        left.retain(|future| !is_done(future));
        // Other code may have run meanwhile.
        left.append(&mut self.waiters.borrow_mut());
        self.waiters.replace(left);
    }

    /// Has whoever waits for this exchange look again.
    #[inline]
    pub(crate) fn wake(&self, py: Python<'_>) {
        if !self.waiters.borrow().is_empty() {
            self.wake_all(py);
        }
    }

    #[cold]
    fn wake_all(&self, py: Python<'_>) {
        for future in self.waiters.take() {
            let future = future.bind(py);
            let resolved = future
                .call_method0(intern!(py, "done"))
                .and_then(|done| done.is_truthy())
                .and_then(|done| {
                    if !done {
                        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
                    }
                    Ok(())
                });
            if let Err(error) = resolved {
                error.write_unraisable(py, Some(future));
            }
        }
    }

    /// `send(message)`.
    fn send<'py>(
        this: &Instance<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let converted;
        let message = if let Ok(message) = message.cast::<PyDict>() {
            message
        } else {
            converted = PyDict::new(py);
            converted.update(message.cast()?)?;
            &converted
        };
        let kind = message
            .get_item(intern!(py, "type"))?
            .ok_or_else(|| PyRuntimeError::new_err("an ASGI message without 'type'"))?;
        let kind = kind
            .cast::<PyString>()
            .map_err(|_| PyRuntimeError::new_err("an ASGI message whose 'type' is no str"))?;
        let kind = kind.to_str()?;
        if this.has(bit::DISCONNECTED) {
            return Err(disconnected());
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
        let more = match message.get_item(intern!(py, "more_body"))? {
            Some(more) => more.is_truthy()?,
            None => false,
        };
        let body = message.get_item(intern!(py, "body"))?;
        this.send_body(py, body, more)?;
        if this.has(bit::FULL) && more {
            return Answer::create(py, Awaits::Room(this.clone().unbind()));
        }
        Ok(this.worker.nothing(py))
    }

    fn in_body(&self) -> bool {
        self.bits.get() & (bit::STARTED | bit::COMPLETE | bit::OVER) == bit::STARTED
    }

    fn send_body(
        &self,
        py: Python<'_>,
        body: Option<Bound<'_, PyAny>>,
        more: bool,
    ) -> PyResult<()> {
        let body = match body {
            Some(body) if body.is_exact_instance_of::<PyBytes>() => Some(body),
            Some(body) if !body.is_none() => Some(copy_of(&body)?.into_any()),
            _ => None,
        };
        if !more {
            self.set(bit::COMPLETE);
            // Whoever still receives is to hear that it is over.
            self.wake(py);
            if self.has(bit::STEPPING) {
                // Goes out when the step ends, in one record with DONE if the application does too.
                let body = body.map_or_else(|| py.None(), Bound::unbind);
                self.last.replace(Some(body));
                return Ok(());
            }
        }
        match self.put(py, body.as_ref(), !more, false) {
            Ok(Sent::Below) => Ok(()),
            Ok(Sent::Above) => {
                self.set(bit::FULL);
                Ok(())
            }
            Err(RespondError::Disconnected | RespondError::Unknown) => {
                self.set(bit::DISCONNECTED);
                Err(disconnected())
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
        let Some(head) = self.head.take() else {
            return self
                .worker
                .consumer()
                .respond_body(self.id, body, end, done);
        };
        self.set(bit::HEAD_SENT);
        let sent = self.worker.consumer().respond_head(
            self.id,
            head.status(),
            head.content_length(),
            head.fields(),
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

    /// The application's coroutine, called for at the first step.
    fn coroutine<'py>(this: &Instance<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        if let Some(coroutine) = this.coroutine.borrow().as_ref() {
            return Ok(coroutine.bind(py).clone());
        }
        let Some(scope) = this.scope.take() else {
            return Err(PyRuntimeError::new_err("the exchange is over"));
        };
        let coroutine = this.worker.call_app(scope.bind(py), this.object())?;
        this.coroutine.replace(Some(coroutine.clone().unbind()));
        Ok(coroutine)
    }

    /// What a step of the application came to: sends what is to be sent, ends what has ended.
    fn after<'py>(this: &Instance<'py, Self>, step: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        let py = this.py();
        this.unset(bit::STEPPING);
        match step {
            Ok(Step::Yield(future)) => {
                this.put_last(py, false);
                Ok(Step::Yield(future))
            }
            Ok(Step::Return(value)) => {
                this.end(py);
                Ok(Step::Return(value))
            }
            Err(error) => {
                this.fail(py, &error);
                if error.is_instance_of::<CancelledError>(py) {
                    return Err(error);
                }
                Ok(Step::Return(py.None().into_bound(py)))
            }
        }
    }

    /// Sends the last part of the response, if the application has given it. True: nothing more is
    /// to be said about the exchange.
    fn put_last(&self, py: Python<'_>, done: bool) -> bool {
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

    /// The application returned.
    fn end(&self, py: Python<'_>) {
        if !self.put_last(py, true) {
            if !self.has(bit::COMPLETE | bit::DISCONNECTED) {
                self.complain(py);
            } else {
                self.worker.consumer().done(self.id);
            }
        }
        self.leave(py);
    }

    fn complain(&self, py: Python<'_>) {
        if self.has(bit::STARTED) {
            self.worker.log(
                py,
                "The ASGI application returned without completing its response.",
            );
            self.worker.consumer().abort(self.id);
        } else {
            self.worker.log(
                py,
                "The ASGI application returned without starting a response.",
            );
            self.put_error();
        }
    }

    /// The application raised.
    fn fail(&self, py: Python<'_>, error: &PyErr) {
        let gone = self.has(bit::DISCONNECTED);
        let quiet = error.is_instance_of::<CancelledError>(py)
            || error.is_instance_of::<ClientDisconnected>(py)
            || (gone && error.is_instance_of::<pyo3::exceptions::PyOSError>(py));
        if !quiet {
            self.worker.log_error(py, error);
        }
        if !self.put_last(py, true) {
            if self.has(bit::COMPLETE) || gone {
                self.worker.consumer().done(self.id);
            } else if self.has(bit::HEAD_SENT) {
                self.worker.consumer().abort(self.id);
            } else {
                self.put_error();
            }
        }
        self.leave(py);
    }

    /// Answers in place of an application that sent nothing.
    fn put_error(&self) {
        let mut head = self.worker.new_head();
        head.plain(500);
        let mut consumer = self.worker.consumer();
        let body = b"Internal Server Error";
        let sent = consumer.respond_head(self.id, 500, -1, head.fields(), body, true, true);
        if sent.is_err() {
            consumer.done(self.id);
        }
        drop(consumer);
        self.worker.recycle_head(head);
    }

    /// Lets go of everything.
    fn leave(&self, py: Python<'_>) {
        self.set(bit::OVER);
        self.worker.forget(py, self.id);
        self.clear();
        self.wake(py);
    }

    #[inline]
    fn has(&self, bits: u16) -> bool {
        self.bits.get() & bits != 0
    }

    #[inline]
    fn set(&self, bits: u16) {
        self.bits.set(self.bits.get() | bits);
    }

    #[inline]
    fn unset(&self, bits: u16) {
        self.bits.set(self.bits.get() & !bits);
    }
}

impl Native for Exchange {
    const NAME: &'static CStr = c"toolb._toolb.Exchange";
    const DOC: &'static CStr = c"A request and its response: exchange() receives a message, \
        exchange(message) sends one.";
    const CALLABLE: bool = true;
    const AWAITABLE: bool = true;

    fn type_cell() -> &'static PyOnceLock<Py<PyType>> {
        static CELL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        &CELL
    }

    #[inline]
    fn call<'py>(this: &Instance<'py, Self>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        match (args.len() + args.named(), args.at(0)) {
            (0, None) => Answer::create(this.py(), Awaits::Message(this.clone().unbind())),
            (1, Some(message)) => Self::send(this, &message),
            _ => Err(PyTypeError::new_err(
                "receive() takes no argument, send() takes a message",
            )),
        }
    }

    #[inline]
    fn step<'py>(this: &Instance<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        if this.has(bit::STEPPING | bit::OVER) {
            return Err(PyRuntimeError::new_err(
                "an exchange is awaited by its own task only",
            ));
        }
        this.set(bit::STEPPING);
        let step = Self::coroutine(this).and_then(|coroutine| send_into(&coroutine, value));
        Self::after(this, step)
    }

    fn throw<'py>(this: &Instance<'py, Self>, args: &Bound<'py, PyTuple>) -> PyResult<Step<'py>> {
        let py = this.py();
        if this.has(bit::STEPPING | bit::OVER) {
            return Err(PyRuntimeError::new_err(
                "an exchange is awaited by its own task only",
            ));
        }
        this.set(bit::STEPPING);
        let step = Self::coroutine(this)
            .and_then(|coroutine| coroutine.call_method1(intern!(py, "throw"), args.clone()));
        let step = match step {
            Ok(future) => Ok(Step::Yield(future)),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) => {
                Ok(Step::Return(py.None().into_bound(py)))
            }
            Err(error) => Err(error),
        };
        Self::after(this, step)
    }

    fn close(this: &Instance<'_, Self>) -> PyResult<()> {
        let py = this.py();
        if this.has(bit::STEPPING | bit::OVER) {
            return Ok(());
        }
        let coroutine = this.coroutine.take();
        let closed = match coroutine {
            Some(coroutine) => coroutine
                .bind(py)
                .call_method0(intern!(py, "close"))
                .map(drop),
            None => Ok(()),
        };
        this.worker.consumer().abort(this.id);
        this.leave(py);
        closed
    }

    /// What asyncio, anyio and debuggers ask of a coroutine, they are told of the application's.
    fn attribute<'py>(
        this: &Instance<'py, Self>,
        name: &str,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        if !name.starts_with("cr_") && name != "__name__" && name != "__qualname__" {
            return None;
        }
        let coroutine = this.coroutine.borrow();
        let coroutine = coroutine.as_ref()?.bind(this.py()).clone();
        Some(coroutine.getattr(name))
    }

    fn traverse(&self, visit: &mut Visitor<'_>) {
        for cell in [&self.scope, &self.coroutine, &self.task, &self.last] {
            if let Ok(object) = cell.try_borrow() {
                visit.see(object.as_ref());
            }
        }
        if let Ok(waiters) = self.waiters.try_borrow() {
            for waiter in waiters.iter() {
                visit.see(Some(waiter));
            }
        }
    }

    fn clear(&self) {
        drop(self.scope.take());
        drop(self.coroutine.take());
        drop(self.task.take());
        drop(self.last.take());
    }
}

/// An exchange that is kept somewhere.
pub(crate) type KeptExchange = Kept<Exchange>;

fn disconnected() -> PyErr {
    ClientDisconnected::new_err("the client has disconnected")
}

/// A private copy of a body that is not plain bytes and may change.
fn copy_of<'py>(body: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = body.py();
    if let Ok(array) = body.cast::<PyByteArray>() {
        return Ok(PyBytes::new(py, &array.to_vec()));
    }
    let is_buffer =
        body.is_instance_of::<PyBytes>() || body.is_instance_of::<pyo3::types::PyMemoryView>();
    if !is_buffer {
        return Err(PyRuntimeError::new_err(format!(
            "'body' must be bytes, not {}",
            body.get_type().name()?
        )));
    }
    Ok(py.get_type::<PyBytes>().call1((body,))?.cast_into()?)
}
