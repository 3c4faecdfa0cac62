//! toolB for Python: the worker's end of the bus as an ASGI server, and the `toolb` program.
#![deny(unsafe_code)]

mod answer;
mod exchange;
mod head;
#[allow(unsafe_code)]
mod raw;
mod scope;
mod spawn;
mod turn;
mod worker;

use pyo3::prelude::*;

/// The native half of `toolb`. Nothing here is for applications.
#[pymodule(gil_used = true)]
fn _toolb(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Exchange", raw::register::<exchange::Exchange>(py)?)?;
    module.add("Answer", raw::register::<answer::Answer>(py)?)?;
    raw::register::<spawn::Capture>(py)?;
    module.add("ClientDisconnected", py.get_type::<worker::ClientDisconnected>())?;
    module.add("AttachError", py.get_type::<worker::AttachError>())?;
    module.add("BusError", py.get_type::<worker::BusError>())?;
    module.add_class::<worker::PyWorker>()
}
