//! The classes that `toolb.worker` drives: its end of the bus and its leash.
#![forbid(unsafe_code)]

use std::{cell::RefCell, os::fd::AsRawFd, time::Duration};

use pyo3::{
    exceptions::PyRuntimeError,
    intern,
    prelude::*,
    types::{PyDict, PyTuple},
};
use toolb_core::consumer::{ConsumerOptions, ControlEvent, Leash};

use super::{App, Worker};
use crate::{
    errors::{AttachError, BusError},
    fork, orphan,
    raw::UvAttachment,
    scope::Scopes,
    spawn::Spawner,
};

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
        fork::watch(py)?;
        // Who came by a path stays when the engine goes, and has a supervisor elsewhere or none.
        if bus.starts_with("fd:") {
            let hang_up = worker.consumer().hang_up();
            orphan::watch(py, hang_up)?;
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

    /// The next word of the engine: (kind, text, seconds), None if there is none.
    fn control(&self) -> PyResult<Option<Word>> {
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

    /// From now on who does not answer is not at fault: his request is cut off.
    fn give_up(&self) {
        self.worker.giving_up.set(true);
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

    /// It ends, though it was not asked to from there.
    fn leave(&self) {
        self.0.leave();
    }

    /// It is with an engine, or not, and why.
    #[pyo3(signature = (attached, why = ""))]
    fn attached(&self, attached: bool, why: &str) {
        self.0.attached(attached, why);
    }

    /// The next word of the supervisor, as `Worker.control` has it.
    fn word(&self) -> Option<Word> {
        word(self.0.word())
    }
}

/// A kind, what a person reads, and how many seconds are left, if that is known.
type Word = (&'static str, String, Option<f64>);

fn word(event: ControlEvent) -> Option<Word> {
    match event {
        ControlEvent::None => None,
        ControlEvent::Drain { left } => {
            let left = left.map(|left| left.as_secs_f64());
            Some(("drain", String::new(), left))
        }
        ControlEvent::Error(text) => Some(("error", text, None)),
        ControlEvent::HangUp => Some(("hang-up", String::new(), None)),
    }
}
