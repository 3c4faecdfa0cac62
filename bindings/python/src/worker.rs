//! A worker: the consumer's end of the bus, and the exchanges the application is at.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell, RefMut};
use std::env;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use toolb_core::consumer::{Consumer, ConsumerOptions, ControlEvent, Event, ExchangeId, Request};

use crate::awaitable::Done;
use crate::exchange::Exchange;
use crate::raw::UnderGil;
use crate::scope::Scopes;

/// Events taken from the bus before the loop's other callbacks have their turn.
const BATCH: usize = 64;

/// The consumer's end of the bus. It belongs to the thread that made it.
#[pyclass(frozen, module = "toolb._toolb")]
pub(crate) struct Worker {
    consumer: UnderGil<RefCell<Consumer>>,
    events: UnderGil<Cell<Vec<Event>>>,
    exchanges: UnderGil<RefCell<Vec<Option<Py<Exchange>>>>>,
    scopes: UnderGil<RefCell<Option<Scopes>>>,
    driver: UnderGil<RefCell<Option<Driver>>>,
    done: Py<Done>,
}

/// What of Python a worker calls.
struct Driver {
    /// `async def serve(exchange, scope)`: runs the application.
    serve: Py<PyAny>,
    /// The module with `receive_later` and `send_later`.
    helpers: Py<PyAny>,
    disconnected: Py<PyAny>,
    start: StartTask,
}

/// How the first step of a task is run at once.
enum StartTask {
    /// `Task(..., eager_start=True)`, from 3.12 on.
    Eager {
        task: Py<PyAny>,
        keywords: Py<PyDict>,
    },
    /// The loop's `call_soon` is replaced while the task is made, so that its first step is caught.
    Caught {
        task: Py<PyAny>,
        keywords: Py<PyDict>,
        /// The loop's instance attributes.
        attributes: Py<PyDict>,
        catch: Py<Catch>,
    },
}

/// Stands in for `call_soon` and keeps what it is called with.
#[pyclass(frozen, module = "toolb._toolb")]
struct Catch {
    caught: UnderGil<RefCell<Option<FirstStep>>>,
}

/// A callback, and the context it is to run in.
type FirstStep = (Py<PyAny>, Option<Py<PyAny>>);

#[pymethods]
impl Catch {
    #[pyo3(signature = (callback, *_args, context=None))]
    fn __call__(
        &self,
        callback: Py<PyAny>,
        _args: &Bound<'_, PyTuple>,
        context: Option<Py<PyAny>>,
    ) {
        *self.caught.borrow_mut() = Some((callback, context));
    }
}

#[pymethods]
impl Worker {
    /// Attaches to the engine that started this process.
    #[new]
    #[pyo3(signature = (*, name, slots=1024, concurrency=1024, window=16))]
    fn new(
        py: Python<'_>,
        name: String,
        slots: u16,
        concurrency: u16,
        window: u16,
    ) -> PyResult<Self> {
        let bus = env::var("TOOLB_BUS").map_err(|_| {
            PyRuntimeError::new_err(
                "TOOLB_BUS is not set: workers are started by `toolb run MODULE:ATTR`",
            )
        })?;
        let options = ConsumerOptions {
            language: "python".into(),
            name,
            slots,
            concurrency,
            window,
            ..ConsumerOptions::default()
        };
        let consumer = py
            .detach(|| Consumer::attach(&bus, &options))
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        let slots = usize::from(consumer.slots());
        Ok(Self {
            consumer: UnderGil::new(RefCell::new(consumer)),
            events: UnderGil::default(),
            exchanges: UnderGil::new(RefCell::new((0..slots).map(|_| None).collect())),
            scopes: UnderGil::new(RefCell::new(None)),
            driver: UnderGil::new(RefCell::new(None)),
            done: Py::new(py, Done)?,
        })
    }

    /// Says how requests are served. `serve(exchange, scope)` makes the coroutine of one; `helpers`
    /// has `receive_later` and `send_later`; `disconnected` is what `send` raises when the client has
    /// gone.
    #[expect(clippy::too_many_arguments, reason = "called once, by name")]
    #[pyo3(signature = (*, loop_, task, eager, serve, helpers, disconnected, root_path, state))]
    fn configure(
        &self,
        py: Python<'_>,
        loop_: &Bound<'_, PyAny>,
        task: Py<PyAny>,
        eager: bool,
        serve: Py<PyAny>,
        helpers: Py<PyAny>,
        disconnected: Py<PyAny>,
        root_path: &str,
        state: Option<Py<PyDict>>,
    ) -> PyResult<()> {
        let keywords = PyDict::new(py);
        keywords.set_item("loop", loop_)?;
        let start = match eager {
            true => {
                keywords.set_item("eager_start", true)?;
                StartTask::Eager {
                    task,
                    keywords: keywords.unbind(),
                }
            }
            false => StartTask::Caught {
                task,
                keywords: keywords.unbind(),
                attributes: loop_.getattr("__dict__")?.cast_into::<PyDict>()?.unbind(),
                catch: Py::new(
                    py,
                    Catch {
                        caught: UnderGil::new(RefCell::new(None)),
                    },
                )?,
            },
        };
        *self.driver.borrow_mut() = Some(Driver {
            serve,
            helpers,
            disconnected,
            start,
        });
        *self.scopes.borrow_mut() = Some(Scopes::new(py, root_path, state)?);
        Ok(())
    }

    /// The doorbell: readable when the engine rang it.
    fn fd(&self) -> i32 {
        self.consumer().fd()
    }

    /// Makes the doorbell unreadable again, for loops that look at states.
    fn clear_doorbell(&self) {
        self.consumer().clear_doorbell();
    }

    /// The control socket: readable when `control` has something to tell.
    fn control_fd(&self) -> i32 {
        self.consumer().control_fd()
    }

    /// What the engine says: "drain", "hang-up", an error's text, or None.
    fn control(&self) -> PyResult<Option<String>> {
        let event = self.consumer().control();
        let event = event.map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(match event {
            ControlEvent::None => None,
            ControlEvent::Drain => Some("drain".into()),
            ControlEvent::HangUp => Some("hang-up".into()),
            ControlEvent::Error(text) => Some(text),
        })
    }

    /// Tells the engine that requests may come.
    fn ready(&self) {
        self.consumer().ready();
    }

    /// Tells the engine that this worker cannot serve, and whether trying again is no use.
    fn fail(&self, reason: &str, permanent: bool) {
        self.consumer().fail(reason, permanent);
    }

    /// Tells the engine that all is done.
    fn drained(&self) {
        self.consumer().drained();
    }

    /// Exchanges that are not over.
    fn in_flight(&self) -> usize {
        self.consumer().in_flight()
    }

    /// Announces that the loop is about to block. False: there is something to do first.
    fn arm(&self) -> bool {
        self.consumer().arm()
    }

    /// Announces that the loop is awake.
    fn disarm(&self) {
        self.consumer().disarm();
    }

    /// Takes what has come and gives it to the application. True: something had come.
    fn drain(this: &Bound<'_, Self>) -> PyResult<bool> {
        let py = this.py();
        let worker = this.get();
        let mut events = worker.events.take();
        let polled = worker.consumer().poll(BATCH, &mut events);
        polled.map_err(|error| PyOSError::new_err(error.to_string()))?;
        if events.is_empty() {
            worker.events.set(events);
            return Ok(false);
        }
        for event in events.drain(..) {
            match event {
                Event::Request {
                    id,
                    request,
                    more_body,
                } => {
                    if worker.consumer().start(id) {
                        Self::begin(this, id, request, more_body)?;
                    }
                }
                Event::Body { id, data, end } => {
                    if let Some(exchange) = worker.exchange(py, id) {
                        exchange.get().push_body(py, &data, !end, data.len());
                    }
                }
                Event::Disconnected { id } => match worker.exchange(py, id) {
                    Some(exchange) => exchange.get().disconnect(py),
                    None => worker.consumer().done(id),
                },
                Event::Writable { id } => {
                    if let Some(exchange) = worker.exchange(py, id) {
                        exchange.get().writable(py);
                    }
                }
                Event::RequestAborted { id } => {
                    if let Some(exchange) = worker.exchange(py, id) {
                        exchange.get().disconnect(py);
                    }
                }
            }
        }
        worker.events.set(events);
        worker.consumer().flush(false);
        Ok(true)
    }
}

impl Worker {
    pub(crate) fn consumer(&self) -> RefMut<'_, Consumer> {
        self.consumer.borrow_mut()
    }

    /// The awaitable that is done.
    pub(crate) fn done<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.done.bind(py).clone().into_any()
    }

    /// The coroutine of a helper that waits.
    pub(crate) fn later<'py>(
        &self,
        py: Python<'py>,
        helper: &Bound<'py, PyString>,
        exchange: &Bound<'py, Exchange>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let helpers = match &*self.driver.borrow() {
            Some(driver) => driver.helpers.clone_ref(py),
            None => return Err(PyRuntimeError::new_err("the worker is not configured")),
        };
        helpers.bind(py).call_method1(helper, (exchange,))
    }

    /// The error of a `send` to a client that has gone.
    pub(crate) fn disconnected(&self, py: Python<'_>) -> PyErr {
        let driver = self.driver.borrow();
        let raised = match &*driver {
            Some(driver) => driver.disconnected.bind(py).call0(),
            None => return PyOSError::new_err("the client has disconnected"),
        };
        match raised {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    }

    /// The application is done with an exchange.
    pub(crate) fn forget(&self, py: Python<'_>, id: ExchangeId) {
        let mut exchanges = self.exchanges.borrow_mut();
        if let Some(place) = exchanges.get_mut(usize::from(id.slot))
            && place.as_ref().is_some_and(|known| known.get().id() == id)
        {
            let gone = place.take();
            drop(exchanges);
            // Dropping may run code of the application.
            drop(gone.map(|gone| gone.into_bound(py)));
        }
    }

    fn exchange<'py>(&self, py: Python<'py>, id: ExchangeId) -> Option<Bound<'py, Exchange>> {
        let exchanges = self.exchanges.borrow();
        let exchange = exchanges.get(usize::from(id.slot))?.as_ref()?;
        (exchange.get().id() == id).then(|| exchange.bind(py).clone())
    }

    /// Runs the first step of the application on a request.
    fn begin(
        this: &Bound<'_, Self>,
        id: ExchangeId,
        request: Request,
        more_body: bool,
    ) -> PyResult<()> {
        let py = this.py();
        let worker = this.get();
        let exchange = Bound::new(py, Exchange::new(this.clone().unbind(), id))?;
        let body = request.body();
        if !body.is_empty() || !more_body {
            exchange.get().push_body(py, body, more_body, 0);
        }
        let scope = match &mut *worker.scopes.borrow_mut() {
            Some(scopes) => scopes.make(py, &request)?,
            None => return Err(PyRuntimeError::new_err("the worker is not configured")),
        };
        worker.consumer().recycle(request.into_bytes());
        worker.exchanges.borrow_mut()[usize::from(id.slot)] = Some(exchange.clone().unbind());
        let driver = worker.driver.borrow();
        let Some(driver) = &*driver else {
            return Ok(());
        };
        let coroutine = driver.serve.bind(py).call1((&exchange, scope))?;
        let task = driver.start.start(py, &coroutine)?;
        if worker.exchange(py, id).is_some() {
            *exchange.get().task.borrow_mut() = Some(task);
        }
        Ok(())
    }
}

impl StartTask {
    fn start(&self, py: Python<'_>, coroutine: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match self {
            Self::Eager { task, keywords } => task
                .bind(py)
                .call((coroutine,), Some(keywords.bind(py)))
                .map(Bound::unbind),
            Self::Caught {
                task,
                keywords,
                attributes,
                catch,
            } => {
                let attributes = attributes.bind(py);
                attributes.set_item(intern!(py, "call_soon"), catch)?;
                let task = task.bind(py).call((coroutine,), Some(keywords.bind(py)));
                attributes.del_item(intern!(py, "call_soon"))?;
                let task = task?;
                let caught = catch.get().caught.borrow_mut().take();
                if let Some((step, context)) = caught {
                    match context {
                        Some(context) => {
                            context.bind(py).call_method1(intern!(py, "run"), (step,))?
                        }
                        None => step.bind(py).call0()?,
                    };
                }
                Ok(task.unbind())
            }
        }
    }
}
