//! Processes that the application forks from a worker. The memory of the bus is not in them, and its
//! other end has nothing to do with them: one that comes back from the application ends there.
#![forbid(unsafe_code)]

use std::{
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use pyo3::{
    exceptions::PySystemExit,
    intern,
    prelude::*,
    types::{PyCFunction, PyDict},
};

/// From now on it is known of a process that it was forked from this one.
pub(crate) fn watch(py: Python<'_>) -> PyResult<()> {
    let hooks = PyDict::new(py);
    let after = PyCFunction::new_closure(py, None, None, |_, _| {
        FORKED.store(true, Ordering::Relaxed);
    })?;
    hooks.set_item(intern!(py, "after_in_child"), after)?;
    py.import("os")?
        .call_method("register_at_fork", (), Some(&hooks))
        .map(drop)
}

/// Whether this process was forked from a worker.
#[inline]
pub(crate) fn is_fork() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Ends a forked process that was about to do what only its worker can.
#[cold]
pub(crate) fn end(py: Python<'_>) -> ! {
    let line = format!(
        "toolb.worker: process {}, forked by the application, came back to its worker's work and is \
         ended: let it end by os._exit()",
        process::id()
    );
    leave(py, &line, 1)
}

/// Ends a forked process that goes on running its worker's loop, at the second call: a loop of libuv
/// that was stopped ends its turn first.
#[cold]
pub(crate) fn end_loop(py: Python<'_>) {
    if TURNED.swap(true, Ordering::Relaxed) {
        end(py);
    }
}

/// Ends a forked process whose application has raised what `sys.exit()` raises.
#[cold]
pub(crate) fn exit(py: Python<'_>, error: &PyErr) -> ! {
    let code = error.value(py).getattr(intern!(py, "code")).ok();
    match code.filter(|code| !code.is_none()) {
        None => leave(py, "", 0),
        Some(code) => match code.extract() {
            Ok(code) => leave(py, "", code),
            Err(_) => leave(py, &code.to_string(), 1),
        },
    }
}

/// Whether `error` is what `sys.exit()` raises.
pub(crate) fn is_exit(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py)
}

/// Without destructors and exit handlers, which are the worker's.
fn leave(py: Python<'_>, line: &str, code: i32) -> ! {
    let _ = flush(py, line);
    let _ = py
        .import("os")
        .and_then(|os| os.call_method1("_exit", (code,)));
    // Not reached, as `os._exit` does not return.
    process::abort()
}

fn flush(py: Python<'_>, line: &str) -> PyResult<()> {
    let sys = py.import("sys")?;
    let errors = sys.getattr("stderr")?;
    if !line.is_empty() {
        errors.call_method1("write", (format!("{line}\n"),))?;
    }
    errors.call_method0("flush")?;
    sys.getattr("stdout")?.call_method0("flush").map(drop)
}

static FORKED: AtomicBool = AtomicBool::new(false);
/// A forked process was seen to run the loop.
static TURNED: AtomicBool = AtomicBool::new(false);
