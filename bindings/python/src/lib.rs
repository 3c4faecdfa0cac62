//! toolB for Python: the consumer's end of the bus as an ASGI server, and the command line.
mod awaitable;
mod exchange;
mod raw;
mod scope;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::prelude::*;
use toolb_cli::WorkerCommand;

/// The native half of the package `toolb`.
#[pymodule(gil_used = true)]
mod _toolb {
    use super::*;

    #[pymodule_export]
    use super::exchange::Exchange;
    #[pymodule_export]
    use super::worker::Worker;

    /// Runs the command line and returns its exit code.
    #[pyfunction]
    fn run_cli(py: Python<'_>, arguments: Vec<OsString>, python: PathBuf) -> i32 {
        py.detach(|| toolb_cli::main(arguments, WorkerCommand::Python(python)))
    }
}
