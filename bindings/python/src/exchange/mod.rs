//! One request and its response, as the application sees them. The same object is `receive` (called
//! without arguments), `send` (called with a message) and the coroutine that the request's task runs:
//! it steps the application's own coroutine and sees at once when that ends. A response that is
//! complete when a step ends thus leaves in one record with the end of the exchange.
#![forbid(unsafe_code)]

mod receive;
mod respond;
mod run;
mod waiters;

pub(crate) use self::respond::Room;

use std::{
    cell::{Cell, RefCell},
    ffi::CStr,
};

use pyo3::{
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{PyDict, PyTuple},
};
use toolb_core::consumer::ExchangeId;

use crate::{
    answer::{Answer, Awaits},
    fork,
    head::Head,
    raw::{Args, Instance, Kept, Native, Step, Visitor, send_into, type_cell},
    worker::Worker,
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
    /// What the application is called with, until it has ended.
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

    /// The client has gone.
    pub(crate) fn on_disconnect(&self, py: Python<'_>) {
        self.set(bit::DISCONNECTED);
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

    type_cell!();

    #[inline]
    fn call<'py>(this: &Instance<'py, Self>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        if fork::is_fork() {
            fork::end(this.py());
        }
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
