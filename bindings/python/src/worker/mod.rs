//! The worker process: its end of the bus, the application and the exchanges in flight.
#![forbid(unsafe_code)]

mod classes;
mod events;

use std::cell::{Cell, OnceCell, RefCell, RefMut};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use toolb_core::consumer::{Consumer, ConsumerOptions, Event, ExchangeId};

pub(crate) use self::classes::{PyLeash, PyWorker};
use crate::{
    answer::{Answer, Awaits},
    errors::{AttachError, EngineAbsent},
    exchange::{Exchange, KeptExchange},
    head::Head,
    raw::{Instance, UvHooks},
    scope::Scopes,
    spawn::Spawner,
    turn::Turn,
};

/// Response heads kept to be filled again.
const MAX_HEADS: usize = 64;

/// What exists once per worker process. It is never dropped: exchanges refer to it for as long as
/// the application keeps them.
pub(crate) struct Worker {
    consumer: RefCell<Consumer>,
    /// By slot.
    live: RefCell<Vec<Option<KeptExchange>>>,
    events: RefCell<Vec<Event>>,
    heads: RefCell<Vec<Head>>,
    scopes: RefCell<Option<Scopes>>,
    app: OnceCell<App>,
    nothing: Py<PyAny>,
    /// To be called once nothing is in flight.
    when_idle: RefCell<Option<Py<PyAny>>>,
    /// Streams are to end: to those who receive, their client has gone.
    ending: Cell<bool>,
    /// What is in flight is cancelled: its time is over.
    giving_up: Cell<bool>,
    /// The engine broke the rules, and that was told.
    broken: Cell<bool>,
    /// Requests started, ever.
    served: Cell<u64>,
    turn: Turn,
}

struct App {
    callable: Py<PyAny>,
    new_future: Py<PyAny>,
    call_soon: Py<PyAny>,
    report: Py<PyAny>,
    broken: Py<PyAny>,
    spawner: Spawner,
}

impl Worker {
    fn attach(py: Python<'_>, bus: &str, options: &ConsumerOptions) -> PyResult<&'static Self> {
        let consumer = attach(py, bus, options)?;
        let mut live = Vec::new();
        live.resize_with(usize::from(consumer.slots()), || None);
        let worker = Self {
            consumer: RefCell::new(consumer),
            live: RefCell::new(live),
            events: RefCell::new(Vec::new()),
            heads: RefCell::new(Vec::new()),
            scopes: RefCell::new(None),
            app: OnceCell::new(),
            nothing: Answer::create(py, Awaits::Nothing)?.unbind(),
            when_idle: RefCell::new(None),
            ending: Cell::new(false),
            giving_up: Cell::new(false),
            broken: Cell::new(false),
            served: Cell::new(0),
            turn: Turn::default(),
        };
        Ok(Box::leak(Box::new(worker)))
    }

    /// Attaches once more, after the engine has gone and everything that it had asked for is over.
    fn reattach(&self, py: Python<'_>, bus: &str, options: &ConsumerOptions) -> PyResult<()> {
        // Slots and generations begin anew: what is left of the old ones would be taken for new.
        let is_busy = self.live.borrow().iter().any(Option::is_some);
        if is_busy || self.consumer().in_flight() > 0 {
            return Err(PyRuntimeError::new_err("requests are still in flight"));
        }
        let consumer = attach(py, bus, options)?;
        let mut live = self.live.borrow_mut();
        live.resize_with(usize::from(consumer.slots()), || None);
        self.consumer.replace(consumer);
        self.ending.set(false);
        self.giving_up.set(false);
        self.broken.set(false);
        Ok(())
    }

    /// The end of the bus. Never held while Python runs.
    #[inline]
    pub(crate) fn consumer(&self) -> RefMut<'_, Consumer> {
        self.consumer.borrow_mut()
    }

    /// The awaitable that is over at once.
    #[inline]
    pub(crate) fn nothing<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.nothing.bind(py).clone()
    }

    /// Whether streams are to end.
    #[inline]
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Whether what is in flight is cancelled.
    pub(crate) fn is_giving_up(&self) -> bool {
        self.giving_up.get()
    }

    /// A future of the loop.
    pub(crate) fn new_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.app()?.new_future.bind(py).call0()
    }

    /// An empty head.
    pub(crate) fn new_head(&self) -> Head {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a head back.
    pub(crate) fn recycle_head(&self, head: Head) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < MAX_HEADS {
            heads.push(head);
        }
    }

    /// Calls the application. What comes back can be stepped.
    #[inline]
    pub(crate) fn call_app<'py>(
        &self,
        scope: &Bound<'py, PyAny>,
        exchange: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let app = self.app()?.callable.bind(scope.py());
        let awaitable = app.call1((scope, exchange, exchange))?;
        self.spawner()?.steppable(awaitable)
    }

    /// Logs a line.
    pub(crate) fn log(&self, py: Python<'_>, text: &str) {
        self.report(py, text, None);
    }

    /// Logs a line with what the application raised.
    pub(crate) fn log_error(&self, py: Python<'_>, text: &str, error: &PyErr) {
        self.report(py, text, Some(error));
    }

    /// Takes an exchange out of the table: its slot is free, or will be without its doing.
    pub(crate) fn forget(&self, py: Python<'_>, id: ExchangeId) {
        let kept = self.live.borrow_mut()[usize::from(id.slot)].take();
        drop(kept);
        if self.when_idle.borrow().is_some() {
            self.look_whether_idle(py);
        }
    }

    fn exchanges<'py>(&self, py: Python<'py>) -> Vec<Instance<'py, Exchange>> {
        let live = self.live.borrow();
        live.iter().flatten().map(|kept| kept.bind(py)).collect()
    }

    fn look_whether_idle(&self, py: Python<'_>) {
        if self.consumer().in_flight() > 0 {
            return;
        }
        let Some(callback) = self.when_idle.take() else {
            return;
        };
        let called = self
            .app()
            .and_then(|app| app.call_soon.bind(py).call1((callback,)));
        if let Err(error) = called {
            error.write_unraisable(py, None);
        }
    }

    fn report(&self, py: Python<'_>, text: &str, error: Option<&PyErr>) {
        let error = error.map(|error| error.value(py));
        let reported = self
            .app()
            .and_then(|app| app.report.bind(py).call1((text, error)));
        if let Err(error) = reported {
            error.write_unraisable(py, None);
        }
    }

    fn app(&self) -> PyResult<&App> {
        self.app.get().ok_or_else(not_serving)
    }

    fn spawner(&self) -> PyResult<&Spawner> {
        Ok(&self.app()?.spawner)
    }
}

impl UvHooks for Worker {
    fn before_poll(&'static self, py: Python<'_>, has_work: &dyn Fn() -> bool) -> bool {
        self.turn.before_uv_poll(py, self, has_work)
    }
}

fn attach(py: Python<'_>, bus: &str, options: &ConsumerOptions) -> PyResult<Consumer> {
    py.detach(|| Consumer::attach(bus, options))
        .map_err(|error| match error.may_pass() {
            true => EngineAbsent::new_err(error.to_string()),
            false => AttachError::new_err(error.to_string()),
        })
}

fn not_serving() -> PyErr {
    PyRuntimeError::new_err("the worker does not serve an application yet")
}
