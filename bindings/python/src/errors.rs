//! The exceptions of the native half.
#![forbid(unsafe_code)]

use pyo3::{
    create_exception,
    exceptions::{PyConnectionError, PyOSError, PyTypeError},
    prelude::*,
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

/// A TypeError about `what` in a message, which is not what was `wanted`, and how to mend it.
#[cold]
pub(crate) fn wrong_type(what: &str, wanted: &str, value: &Bound<'_, PyAny>, mend: &str) -> PyErr {
    match value.get_type().name() {
        Ok(found) => PyTypeError::new_err(format!("{what} must be {wanted}, not {found}: {mend}")),
        Err(error) => error,
    }
}
