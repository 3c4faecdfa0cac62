//! asyncio's set of all tasks, before Python 3.12. It is a `WeakSet`, which is written in Python: to
//! enter a task there and to take it out again costs as much as the rest of a task. The set gets
//! methods of its own that do the same natively, on the same data, and a task that ends in its first
//! step is entered only if somebody looks for it before. Whoever looks at the set
//! (`asyncio.all_tasks`) sees no difference. From 3.12 on asyncio has a cheaper way itself.
#![forbid(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    ffi::CStr,
};

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyDict, PyList, PySet, PyWeakrefReference},
};

use crate::raw::{Args, Instance, Kept, Native, Visitor, type_cell};

/// Makes tasks cheaper to enter, where asyncio is as it is known to be; else everything stays.
pub(crate) fn quicken(py: Python<'_>) -> PyResult<Option<Kept<Enter>>> {
    if py.version_info() >= (3, 12) {
        return Ok(None);
    }
    let tasks = py.import("asyncio.tasks")?.getattr("_all_tasks")?;
    let weak_set = py.import("weakref")?.getattr("WeakSet")?;
    if !tasks.get_type().is(&weak_set) {
        return Ok(None);
    }
    let own = tasks.getattr("__dict__")?.cast_into::<PyDict>()?;
    let (Ok(Some(data)), Ok(Some(pending)), Ok(Some(iterating))) = (
        own.get_item("data"),
        own.get_item("_pending_removals"),
        own.get_item("_iterating"),
    ) else {
        return Ok(None);
    };
    let (Ok(data), Ok(pending), Ok(iterating)) = (
        data.cast_into::<PySet>(),
        pending.cast_into::<PyList>(),
        iterating.cast_into::<PySet>(),
    ) else {
        return Ok(None);
    };
    let leave = Leave {
        data: data.clone().unbind(),
        pending: pending.clone().unbind(),
        iterating: iterating.unbind(),
    };
    let enter = Enter {
        slow: tasks.getattr("add")?.unbind(),
        data: data.unbind(),
        pending: pending.unbind(),
        leave: Instance::new(py, leave)?.into_object().unbind(),
        awaited: Cell::new(false),
        newborn: RefCell::new(None),
    };
    let enter = Instance::new(py, enter)?;
    let complete = Complete {
        enter: enter.clone().unbind(),
    };
    own.set_item("add", enter.object())?;
    own.set_item("complete", Instance::new(py, complete)?.into_object())?;
    let class = py.import("toolb._tasks")?.getattr("AllTasks")?;
    tasks.setattr("__class__", class)?;
    Ok(Some(enter.unbind()))
}

/// `add(task)`.
pub(crate) struct Enter {
    /// The set's own method.
    slow: Py<PyAny>,
    data: Py<PySet>,
    pending: Py<PyList>,
    leave: Py<PyAny>,
    /// The next task that comes is one whose first step is run at once.
    awaited: Cell<bool>,
    /// That task, which is not in the set.
    newborn: RefCell<Option<Py<PyAny>>>,
}

impl Enter {
    /// A task is about to be made whose first step is run at once.
    pub(crate) fn await_birth(&self) {
        self.awaited.set(true);
    }

    /// That step is over. `ended`: the task that was run, if it is over, too.
    pub(crate) fn end_birth(
        &self,
        py: Python<'_>,
        ended: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.awaited.set(false);
        match self.newborn.take() {
            // The garbage collector may have made another task meanwhile.
            Some(task) if !ended.is_some_and(|ended| ended.is(&task)) => self.enter(task.bind(py)),
            _ => Ok(()),
        }
    }

    fn enter(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        if !self.pending.bind(py).is_empty() {
            self.slow.bind(py).call1((task,))?;
            return Ok(());
        }
        let entry = PyWeakrefReference::new_with(task, self.leave.bind(py))?;
        self.data.bind(py).add(entry)
    }
}

impl Native for Enter {
    const NAME: &'static CStr = c"toolb._toolb.Enter";
    const DOC: &'static CStr = c"Enters a task in the set of all tasks.";
    const CALLABLE: bool = true;

    type_cell!();

    #[inline]
    fn call<'py>(this: &Instance<'py, Self>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let Some(task) = args.at(0).filter(|_| args.len() == 1 && args.named() == 0) else {
            return Err(PyTypeError::new_err("add() takes a task"));
        };
        if this.awaited.take() {
            // Another one is here if its first step has the loop turn.
            if let Some(former) = this.newborn.replace(Some(task.to_owned().unbind())) {
                this.enter(former.bind(py))?;
            }
        } else {
            this.enter(&task)?;
        }
        Ok(py.None().into_bound(py))
    }

    fn traverse(&self, visit: &mut Visitor<'_>) {
        visit.see(Some(&self.slow));
        visit.see(Some(&self.leave));
        if let Ok(newborn) = self.newborn.try_borrow() {
            visit.see(newborn.as_ref());
        }
    }

    fn clear(&self) {
        drop(self.newborn.take());
    }
}

/// `complete()`: somebody looks at the set.
pub(crate) struct Complete {
    enter: Kept<Enter>,
}

impl Native for Complete {
    const NAME: &'static CStr = c"toolb._toolb.Complete";
    const DOC: &'static CStr = c"Enters the task whose first step is being run.";
    const CALLABLE: bool = true;

    type_cell!();

    fn call<'py>(this: &Instance<'py, Self>, _: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let enter = this.enter.bind(py);
        if let Some(task) = enter.newborn.take() {
            enter.enter(task.bind(py))?;
        }
        Ok(py.None().into_bound(py))
    }

    fn traverse(&self, visit: &mut Visitor<'_>) {
        visit.see(Some(self.enter.object()));
    }
}

/// Called with the reference to a task that is gone.
pub(crate) struct Leave {
    data: Py<PySet>,
    pending: Py<PyList>,
    iterating: Py<PySet>,
}

impl Native for Leave {
    const NAME: &'static CStr = c"toolb._toolb.Leave";
    const DOC: &'static CStr = c"Takes a task that is gone out of the set of all tasks.";
    const CALLABLE: bool = true;

    type_cell!();

    #[inline]
    fn call<'py>(this: &Instance<'py, Self>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let Some(entry) = args.at(0) else {
            return Err(PyTypeError::new_err("it takes a weak reference"));
        };
        if this.iterating.bind(py).is_empty() {
            this.data.bind(py).discard(entry)?;
        } else {
            // Whoever iterates takes it out at the end.
            this.pending.bind(py).append(entry)?;
        }
        Ok(py.None().into_bound(py))
    }

    fn traverse(&self, _: &mut Visitor<'_>) {}
}
