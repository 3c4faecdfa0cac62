//! toolB for Python: the worker's end of the bus as an ASGI server, and the `toolb` program.
#![deny(unsafe_code)]

mod all_tasks;
mod answer;
mod errors;
mod exchange;
mod fork;
mod head;
mod orphan;
#[allow(unsafe_code)]
mod raw;
mod scope;
mod spawn;
mod turn;
mod worker;

use std::{ffi::OsString, path::PathBuf};

use pyo3::prelude::*;
use toolb_cli::WorkerCommand;

/// The native half of `toolb`. Nothing here is for applications.
#[pymodule(gil_used = true)]
fn _toolb(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Exchange", raw::register::<exchange::Exchange>(py)?)?;
    module.add("Answer", raw::register::<answer::Answer>(py)?)?;
    raw::register::<spawn::Capture>(py)?;
    raw::register::<all_tasks::Enter>(py)?;
    raw::register::<all_tasks::Leave>(py)?;
    raw::register::<all_tasks::Complete>(py)?;
    module.add(
        "ClientDisconnected",
        py.get_type::<errors::ClientDisconnected>(),
    )?;
    module.add("AttachError", py.get_type::<errors::AttachError>())?;
    module.add("EngineAbsent", py.get_type::<errors::EngineAbsent>())?;
    module.add("BusError", py.get_type::<errors::BusError>())?;
    module.add_function(wrap_pyfunction!(run_cli, module)?)?;
    module.add_function(wrap_pyfunction!(name_aborts, module)?)?;
    module.add_class::<worker::PyWorker>()?;
    module.add_class::<worker::PyLeash>()
}

/// Has what Python's fault handler says on SIGABRT begin with a line that names this process.
#[pyfunction]
fn name_aborts() -> PyResult<()> {
    Ok(raw::name_aborts()?)
}

/// Runs the `toolb` program, whose workers are the Python `executable`, and returns its exit code.
#[pyfunction]
fn run_cli(py: Python<'_>, args: Vec<OsString>, executable: PathBuf) -> i32 {
    py.detach(|| toolb_cli::main(args, WorkerCommand::Python(executable)))
}
