//! Awaitables that have their result already.
#![forbid(unsafe_code)]

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;

/// Awaiting it gives None at once. One object serves all.
#[pyclass(frozen, module = "toolb._toolb")]
pub(crate) struct Done;

#[pymethods]
impl Done {
    fn __await__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }
}

/// Awaiting it gives its value at once.
#[pyclass(frozen, module = "toolb._toolb")]
pub(crate) struct Value(pub(crate) Py<PyAny>);

#[pymethods]
impl Value {
    fn __await__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Err(PyStopIteration::new_err((self.0.clone_ref(py),)))
    }
}
