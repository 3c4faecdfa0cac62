//! Tasks whose first step is run at once. Frameworks need a real `asyncio.Task`, but most requests
//! are answered in the first step, and a turn of the loop costs more than that.
#![forbid(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    ffi::CStr,
};

use pyo3::{
    exceptions::{PyAttributeError, PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
    types::{PyDict, PyTuple, PyType},
};

use crate::{
    all_tasks::{self, Enter},
    raw::{Args, Instance, Kept, Native, Visitor, run_in_context, type_cell},
};

/// Makes tasks.
pub(crate) struct Spawner {
    task_class: Py<PyAny>,
    task_options: Py<PyDict>,
    how: How,
    coroutine_type: Py<PyType>,
    get_iterator: Py<PyAny>,
}

enum How {
    /// Python 3.12 and later: the task runs its first step by itself.
    Eager,
    /// Before: the task schedules its first step with `loop.call_soon`, of which the loop is given
    /// one of its own for the moment.
    Captured {
        attributes: Py<PyDict>,
        capture: Kept<Capture>,
        tasks: Option<Kept<Enter>>,
    },
    /// The application has set a task factory: tasks are its business.
    Factory { create_task: Py<PyAny> },
}

impl Spawner {
    pub(crate) fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let asyncio = py.import("asyncio")?;
        let task_options = PyDict::new(py);
        task_options.set_item("loop", event_loop)?;
        // One for all: to number them costs more than to make them.
        task_options.set_item("name", "toolb-request")?;
        let factory = event_loop.call_method0("get_task_factory")?;
        let how = if !factory.is_none() {
            How::Factory {
                create_task: event_loop.getattr("create_task")?.unbind(),
            }
        } else if py.version_info() >= (3, 12) {
            task_options.set_item("eager_start", true)?;
            How::Eager
        } else {
            let tasks = all_tasks::quicken(py)?;
            let capture = Capture {
                call_soon: event_loop.getattr("call_soon")?.unbind(),
                step: RefCell::new(None),
                disturbed: Cell::new(false),
            };
            How::Captured {
                attributes: event_loop
                    .getattr("__dict__")?
                    .cast_into::<PyDict>()?
                    .unbind(),
                capture: Instance::new(py, capture)?.unbind(),
                tasks,
            }
        };
        Ok(Self {
            task_class: asyncio.getattr("Task")?.unbind(),
            task_options: task_options.unbind(),
            how,
            coroutine_type: py
                .import("types")?
                .getattr("CoroutineType")?
                .cast_into::<PyType>()?
                .unbind(),
            get_iterator: py
                .import("operator")?
                .getattr("methodcaller")?
                .call1(("__await__",))?
                .unbind(),
        })
    }

    /// Makes a task that runs `coroutine`, and runs it up to where it first waits. `is_over` tells
    /// whether that was its end.
    #[inline]
    pub(crate) fn spawn<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        is_over: impl Fn() -> bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        match &self.how {
            How::Eager => self.make(coroutine),
            How::Captured {
                attributes,
                capture,
                tasks,
            } => {
                let tasks = tasks.as_ref().map(|tasks| tasks.bind(py));
                if let Some(tasks) = &tasks {
                    tasks.await_birth();
                }
                let outcome = self.capture(coroutine, attributes.bind(py), &capture.bind(py));
                if let Some(tasks) = &tasks {
                    let task = outcome.as_ref().ok();
                    tasks.end_birth(py, task.filter(|_| is_over()))?;
                }
                outcome
            }
            How::Factory { create_task } => create_task.bind(py).call1((coroutine,)),
        }
    }

    /// The same by means of `call_soon`, which stands among the loop's `attributes` meanwhile.
    #[inline]
    fn capture<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        attributes: &Bound<'py, PyDict>,
        capture: &Instance<'py, Capture>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        attributes.set_item(intern!(py, "call_soon"), capture.object())?;
        let task = self.make(coroutine);
        attributes.del_item(intern!(py, "call_soon"))?;
        let task = task?;
        capture.run(py, &task)?;
        Ok(task)
    }

    /// What `await` steps when it is given `awaitable`.
    #[inline]
    pub(crate) fn steppable<'py>(
        &self,
        awaitable: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = awaitable.py();
        if awaitable.get_type().is(&self.coroutine_type) {
            return Ok(awaitable);
        }
        self.get_iterator
            .bind(py)
            .call1((&awaitable,))
            .map_err(|error| {
                if !error.is_instance_of::<PyAttributeError>(py) {
                    return error;
                }
                PyTypeError::new_err(format!(
                    "the ASGI application returned {awaitable}, which cannot be awaited: an \
                     application is an async callable (scope, receive, send)"
                ))
            })
    }

    #[inline]
    fn make<'py>(&self, coroutine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        self.task_class
            .bind(py)
            .call((coroutine,), Some(self.task_options.bind(py)))
    }
}

/// Stands in for `loop.call_soon` while a task is made.
pub(crate) struct Capture {
    call_soon: Py<PyAny>,
    /// The first callback given, with its context.
    step: RefCell<Option<Caught>>,
    /// Somebody else called too: the garbage collector may run anything at any time.
    disturbed: Cell<bool>,
}

struct Caught {
    callback: Py<PyAny>,
    context: Option<Py<PyAny>>,
}

impl Capture {
    /// Runs the step of `task` that was caught.
    #[inline]
    fn run(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(Caught { callback, context }) = self.step.take() else {
            return Err(PyRuntimeError::new_err(
                "asyncio did not schedule a new task",
            ));
        };
        let step = callback.into_bound(py);
        let is_other = || !step.getattr("__self__").is_ok_and(|owner| owner.is(task));
        if self.disturbed.replace(false) && is_other() {
            // The task's own is in the loop's queue; this one goes there too.
            let options = PyDict::new(py);
            options.set_item("context", context)?;
            self.call_soon.bind(py).call((step,), Some(&options))?;
            return Ok(());
        }
        match context {
            Some(context) => run_in_context(context.bind(py), &step),
            None => step.call0().map(drop),
        }
    }
}

impl Native for Capture {
    const NAME: &'static CStr = c"toolb._toolb.Capture";
    const DOC: &'static CStr = c"Catches the first step of a task.";
    const CALLABLE: bool = true;

    type_cell!();

    /// `call_soon(callback, *args, context=None)`.
    #[inline]
    fn call<'py>(this: &Instance<'py, Self>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let context = (args.named() == 1).then(|| args.at(args.len())).flatten();
        let is_step = args.len() == 1 && args.named() <= 1;
        if is_step
            && this.step.borrow().is_none()
            && let Some(step) = args.at(0)
        {
            this.step.replace(Some(Caught {
                callback: step.to_owned().unbind(),
                context: context.map(|context| context.to_owned().unbind()),
            }));
            return Ok(py.None().into_bound(py));
        }
        this.disturbed.set(true);
        let positional: Vec<_> = (0..args.len()).filter_map(|at| args.at(at)).collect();
        let options = PyDict::new(py);
        if let Some(context) = context {
            options.set_item(intern!(py, "context"), context)?;
        }
        this.call_soon
            .bind(py)
            .call(PyTuple::new(py, positional)?, Some(&options))
    }

    fn traverse(&self, visit: &mut Visitor<'_>) {
        visit.see(Some(&self.call_soon));
        if let Ok(step) = self.step.try_borrow()
            && let Some(caught) = &*step
        {
            visit.see(Some(&caught.callback));
            visit.see(caught.context.as_ref());
        }
    }

    fn clear(&self) {
        drop(self.step.take());
    }
}
