//! The worker process: its end of the bus, the application and the exchanges in flight.
#![forbid(unsafe_code)]

use std::{
    cell::{Cell, OnceCell, RefCell, RefMut},
    os::fd::AsRawFd,
    time::Duration,
};

use pyo3::{
    create_exception,
    exceptions::{PyConnectionError, PyOSError, PyRuntimeError},
    intern,
    prelude::*,
    types::{PyDict, PyTuple},
};
use toolb_core::consumer::{
    Consumer, ConsumerOptions, ControlEvent, Event, ExchangeId, Leash, Request,
};

use crate::{
    answer::{Answer, Awaits},
    exchange::{Exchange, KeptExchange},
    head::Head,
    orphan,
    raw::{Instance, UvAttachment, UvHooks},
    scope::Scopes,
    spawn::Spawner,
    turn::Turn,
};

create_exception!(
    toolb._toolb,
    ClientDisconnected,
    PyOSError,
    "The client has gone: nothing more can be sent."
);
create_exception!(
    toolb._toolb,
    AttachError,
    PyConnectionError,
    "The worker could not attach to its engine."
);
create_exception!(
    toolb._toolb,
    EngineAbsent,
    AttachError,
    "There is no engine at that address, or not now."
);
create_exception!(
    toolb._toolb,
    BusError,
    PyConnectionError,
    "The engine broke the rules of the bus."
);

/// Events taken from the bus before the loop gets its turn again.
const BUDGET: usize = 64;
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

    /// Logs what the application raised.
    pub(crate) fn log_error(&self, py: Python<'_>, error: &PyErr) {
        self.report(py, "Exception in ASGI application", Some(error));
    }

    /// Takes an exchange out of the table: its slot is free, or will be without its doing.
    pub(crate) fn forget(&self, py: Python<'_>, id: ExchangeId) {
        let kept = self.live.borrow_mut()[usize::from(id.slot)].take();
        drop(kept);
        if self.when_idle.borrow().is_some() {
            self.look_whether_idle(py);
        }
    }

    /// Serves what has come, at most a budget's worth. Returns how many events that were.
    pub(crate) fn drain(&'static self, py: Python<'_>) -> usize {
        let mut events = self.events.take();
        let polled = self.consumer().poll(BUDGET, &mut events);
        let count = polled.unwrap_or_else(|error| self.break_off(py, &error.to_string()));
        for event in events.drain(..) {
            self.handle(py, event);
        }
        self.events.replace(events);
        if count > 0 {
            self.consumer().flush(false);
        }
        count
    }

    /// The bus cannot be used any more.
    #[cold]
    fn break_off(&self, py: Python<'_>, why: &str) -> usize {
        if !self.broken.replace(true) {
            let told = self
                .app()
                .and_then(|app| app.call_soon.bind(py).call1((&app.broken, why)));
            if let Err(error) = told {
                error.write_unraisable(py, None);
            }
        }
        0
    }

    #[inline]
    fn handle(&'static self, py: Python<'_>, event: Event) {
        match event {
            Event::Request {
                id,
                request,
                more_body,
            } => {
                if let Err(error) = self.begin(py, id, &request, more_body) {
                    error.write_unraisable(py, None);
                    self.consumer().abort(id);
                    self.forget(py, id);
                }
                self.consumer().recycle(request.into_bytes());
            }
            Event::Body { id, data, end } => {
                if let Some(exchange) = self.find(py, id) {
                    exchange.on_body(py, &data, end);
                }
                self.consumer().recycle(data);
            }
            Event::Disconnected { id } => match self.find(py, id) {
                Some(exchange) => exchange.on_disconnect(py),
                None => self.consumer().done(id),
            },
            Event::RequestAborted { id } => {
                if let Some(exchange) = self.find(py, id) {
                    exchange.on_body_lost(py);
                }
            }
            Event::Writable { id } => {
                if let Some(exchange) = self.find(py, id) {
                    exchange.on_writable(py);
                }
            }
        }
    }

    /// Starts a request and runs the application up to where it first waits.
    #[inline]
    fn begin(
        &'static self,
        py: Python<'_>,
        id: ExchangeId,
        request: &Request,
        more_body: bool,
    ) -> PyResult<()> {
        if !self.consumer().start(id) {
            return Ok(());
        }
        self.served.set(self.served.get() + 1);
        let scope = match self.scopes.borrow_mut().as_mut() {
            Some(scopes) => scopes.build(py, request)?,
            None => return Err(not_serving()),
        };
        let exchange = Exchange::new(
            self,
            id,
            scope,
            request.body(),
            more_body,
            request.expects_continue(),
        );
        let exchange = Instance::new(py, exchange)?;
        let kept = exchange.clone().unbind();
        let former = self.live.borrow_mut()[usize::from(id.slot)].replace(kept);
        drop(former);
        let task = self.spawner()?.spawn(exchange.object())?;
        if !exchange.is_over() {
            exchange.keep_task(task.unbind());
        }
        Ok(())
    }

    fn find<'py>(&self, py: Python<'py>, id: ExchangeId) -> Option<Instance<'py, Exchange>> {
        let live = self.live.borrow();
        let exchange = live.get(usize::from(id.slot))?.as_ref()?.bind(py);
        (exchange.id() == id).then_some(exchange)
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

/// A worker process as `toolb.worker` drives it.
#[pyclass(name = "Worker", module = "toolb._toolb", unsendable, frozen)]
pub(crate) struct PyWorker {
    worker: &'static Worker,
    options: ConsumerOptions,
    uv: RefCell<Option<UvAttachment>>,
}

#[pymethods]
impl PyWorker {
    #[new]
    #[pyo3(signature = (bus, *, name, pool, generation, token, slots, concurrency, window, timeout))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn new(
        py: Python<'_>,
        bus: &str,
        name: String,
        pool: String,
        generation: u32,
        token: u64,
        slots: u16,
        concurrency: u16,
        window: u16,
        timeout: f64,
    ) -> PyResult<Self> {
        let options = ConsumerOptions {
            language: String::from("python"),
            name,
            pool,
            slots,
            concurrency,
            window,
            generation,
            token,
            kick_at_once: false,
            streams: 0,
            timeout: Duration::try_from_secs_f64(timeout)
                .map_err(|error| PyRuntimeError::new_err(error.to_string()))?,
        };
        let worker = Worker::attach(py, bus, &options)?;
        // Who came by a path stays when the engine goes, and has a supervisor elsewhere or none.
        if bus.starts_with("fd:") {
            let hang_up = worker.consumer().hang_up();
            hang_up.and_then(orphan::watch).map_err(|error| {
                AttachError::new_err(format!("cannot watch the engine: {error}"))
            })?;
        }
        Ok(Self {
            worker,
            options,
            uv: RefCell::new(None),
        })
    }

    /// Attaches to an engine again, after the last one has gone.
    fn reattach(&self, py: Python<'_>, bus: &str) -> PyResult<()> {
        self.worker.reattach(py, bus, &self.options)
    }

    /// Wants no more requests.
    fn leave(&self) {
        self.worker.consumer().leave();
    }

    #[getter]
    fn fd(&self) -> i32 {
        self.worker.consumer().fd()
    }

    #[getter]
    fn control_fd(&self) -> i32 {
        self.worker.consumer().control_fd()
    }

    #[getter]
    fn in_flight(&self) -> usize {
        self.worker.consumer().in_flight()
    }

    #[getter]
    fn served(&self) -> u64 {
        self.worker.served.get()
    }

    /// The next word of the engine: (kind, text), None if there is none.
    fn control(&self) -> PyResult<Option<(&'static str, String)>> {
        let event = self
            .worker
            .consumer()
            .control()
            .map_err(|error| BusError::new_err(error.to_string()))?;
        Ok(word(event))
    }

    fn ready(&self) {
        self.worker.consumer().ready();
    }

    fn fail(&self, reason: &str, permanent: bool) {
        self.worker.consumer().fail(reason, permanent);
    }

    fn drained(&self) {
        self.worker.consumer().drained();
    }

    /// Prepares for requests: what to call, on which loop.
    #[pyo3(signature = (app, event_loop, *, report, broken, root_path, state))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments")]
    fn serve(
        &self,
        py: Python<'_>,
        app: Py<PyAny>,
        event_loop: &Bound<'_, PyAny>,
        report: Py<PyAny>,
        broken: Py<PyAny>,
        root_path: &str,
        state: Option<Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let scopes = Scopes::new(py, root_path, state)?;
        self.worker.scopes.replace(Some(scopes));
        self.worker.turn.watch(event_loop);
        let app = App {
            callable: app,
            new_future: event_loop.getattr(intern!(py, "create_future"))?.unbind(),
            call_soon: event_loop.getattr(intern!(py, "call_soon"))?.unbind(),
            report,
            broken,
            spawner: Spawner::new(event_loop)?,
        };
        self.worker
            .app
            .set(app)
            .map_err(|_| PyRuntimeError::new_err("the worker serves an application already"))
    }

    /// Serves what has come. Returns how many events that were.
    fn drain(&self, py: Python<'_>) -> usize {
        self.worker.drain(py)
    }

    /// For a loop about to poll descriptors: serves what has come. Returns how long the loop may
    /// block (-1: for ever), None if it need not poll at all this time.
    fn before_poll(&self, py: Python<'_>, timeout: Option<f64>) -> Option<f64> {
        self.worker.turn.before_poll(py, self.worker, timeout)
    }

    /// For a loop that has polled and found so many events: serves what it was woken for.
    fn after_poll(&self, py: Python<'_>, found: usize) {
        self.worker.turn.after_poll(py, self.worker, found);
    }

    /// Serves from within the libuv loop of `event_loop`, a `uvloop.Loop`.
    fn attach_uv(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let attachment = UvAttachment::attach(event_loop, self.fd(), self.worker)?;
        self.uv.replace(Some(attachment));
        Ok(())
    }

    /// Ends that. To be called in the loop's thread while the loop still runs.
    fn detach_uv(&self, py: Python<'_>) {
        if let Some(attachment) = self.uv.take() {
            attachment.detach(py);
        }
    }

    fn arm(&self) -> bool {
        self.worker.consumer().arm()
    }

    fn disarm(&self) {
        self.worker.consumer().disarm();
    }

    fn flush(&self, idle: bool) {
        self.worker.consumer().flush(idle);
    }

    fn clear_doorbell(&self) {
        self.worker.consumer().clear_doorbell();
    }

    /// Has `callback` called from the loop, once, when nothing is in flight.
    fn when_idle(&self, py: Python<'_>, callback: Py<PyAny>) {
        self.worker.when_idle.replace(Some(callback));
        self.worker.look_whether_idle(py);
    }

    /// Tells the applications in the middle of a response, if they receive, that it is to end.
    fn end_streams(&self, py: Python<'_>) {
        self.worker.ending.set(true);
        for exchange in self.worker.exchanges(py) {
            exchange.wake(py);
        }
    }

    /// The tasks of the exchanges in flight.
    fn tasks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let exchanges = self.worker.exchanges(py);
        let tasks: Vec<_> = exchanges.iter().filter_map(|it| it.task(py)).collect();
        PyTuple::new(py, tasks)
    }
}

/// What ties this process to the `toolb work` that has started it.
#[pyclass(name = "Leash", module = "toolb._toolb", frozen)]
pub(crate) struct PyLeash(Leash);

#[pymethods]
impl PyLeash {
    #[new]
    fn new(address: &str) -> PyResult<Self> {
        Leash::take(address)
            .map(Self)
            .map_err(|error| AttachError::new_err(error.to_string()))
    }

    #[getter]
    fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn ready(&self) {
        self.0.ready();
    }

    fn fail(&self, reason: &str, permanent: bool) {
        self.0.fail(reason, permanent);
    }

    /// It is with an engine, or not, and why.
    #[pyo3(signature = (attached, why = ""))]
    fn attached(&self, attached: bool, why: &str) {
        self.0.attached(attached, why);
    }

    /// The next word of the supervisor, as `Worker.control` has it.
    fn word(&self) -> Option<(&'static str, String)> {
        word(self.0.word())
    }
}

fn word(event: ControlEvent) -> Option<(&'static str, String)> {
    match event {
        ControlEvent::None => None,
        ControlEvent::Drain => Some(("drain", String::new())),
        ControlEvent::Error(text) => Some(("error", text)),
        ControlEvent::HangUp => Some(("hang-up", String::new())),
    }
}
