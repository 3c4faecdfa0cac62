//! asyncio's set of all tasks, before Python 3.12. It is a `WeakSet`, which is written in Python: to
//! enter a task there and to take it out again costs as much as the rest of a task. The set gets
//! methods of its own that do the same natively, on the same data: whoever looks at it
//! (`asyncio.all_tasks`) sees no difference. From 3.12 on asyncio has a cheaper way itself.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyDict, PyList, PySet, PyWeakrefReference},
};

use crate::raw::{Args, Instance, Native, Visitor, type_cell};

/// Makes tasks cheaper to enter, where asyncio is as it is known to be; else everything stays.
pub(crate) fn quicken(py: Python<'_>) -> PyResult<()> {
    if py.version_info() >= (3, 12) {
        return Ok(());
    }
    let tasks = py.import("asyncio.tasks")?.getattr("_all_tasks")?;
    let weak_set = py.import("weakref")?.getattr("WeakSet")?;
    if !tasks.get_type().is(&weak_set) {
        return Ok(());
    }
    let own = tasks.getattr("__dict__")?.cast_into::<PyDict>()?;
    if own.contains("add")? {
        return Ok(());
    }
    let (Ok(Some(data)), Ok(Some(pending)), Ok(Some(iterating))) = (
        own.get_item("data"),
        own.get_item("_pending_removals"),
        own.get_item("_iterating"),
    ) else {
        return Ok(());
    };
    let (Ok(data), Ok(pending), Ok(iterating)) = (
        data.cast_into::<PySet>(),
        pending.cast_into::<PyList>(),
        iterating.cast_into::<PySet>(),
    ) else {
        return Ok(());
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
    };
    own.set_item("add", Instance::new(py, enter)?.into_object())
}

/// `add(task)`.
pub(crate) struct Enter {
    /// The set's own method.
    slow: Py<PyAny>,
    data: Py<PySet>,
    pending: Py<PyList>,
    leave: Py<PyAny>,
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
        if !this.pending.bind(py).is_empty() {
            return this.slow.bind(py).call1((task,));
        }
        let entry = PyWeakrefReference::new_with(&task, this.leave.bind(py))?;
        this.data.bind(py).add(entry)?;
        Ok(py.None().into_bound(py))
    }

    fn traverse(&self, visit: &mut Visitor<'_>) {
        visit.see(Some(&self.slow));
        visit.see(Some(&self.leave));
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
