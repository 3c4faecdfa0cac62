//! Calls into the interpreter.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use pyo3::{ffi, prelude::*};

use super::Step;

/// Sends `value` into a coroutine or iterator, as `await` does.
pub(crate) fn send_into<'py>(
    target: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Step<'py>> {
    let py = target.py();
    let mut result = ptr::null_mut();
    // SAFETY: both objects are alive and this thread is attached; a result is a new reference
    // unless the outcome is an error, which is then set.
    unsafe {
        match ffi::PyIter_Send(target.as_ptr(), value.as_ptr(), &mut result) {
            ffi::PySendResult::PYGEN_RETURN => {
                Ok(Step::Return(Bound::from_owned_ptr_or_err(py, result)?))
            }
            ffi::PySendResult::PYGEN_NEXT => {
                Ok(Step::Yield(Bound::from_owned_ptr_or_err(py, result)?))
            }
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

/// Calls `step` without arguments inside `context`, as the loop does with a handle.
pub(crate) fn run_in_context(context: &Bound<'_, PyAny>, step: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = context.py();
    // SAFETY: both objects are alive and this thread is attached. The context is left again
    // whatever the call did; an error it set is taken out before that.
    unsafe {
        if ffi::PyContext_Enter(context.as_ptr()) != 0 {
            return Err(PyErr::fetch(py));
        }
        let result = Bound::from_owned_ptr_or_err(py, ffi::PyObject_CallNoArgs(step.as_ptr()));
        if ffi::PyContext_Exit(context.as_ptr()) != 0 {
            return Err(PyErr::fetch(py));
        }
        result.map(drop)
    }
}

/// Has the main thread run `task` once it is between two instructions of Python. False: it has too
/// much of that kind to do already, and the task is dropped.
pub(crate) fn run_in_main_thread(task: fn(Python<'_>)) -> bool {
    extern "C" fn run(task: *mut c_void) -> c_int {
        // SAFETY: the argument is the function given below, and the interpreter calls attached.
        unsafe {
            let task = std::mem::transmute::<*mut c_void, fn(Python<'_>)>(task);
            Python::attach_unchecked(task);
        }
        0
    }
    // SAFETY: the interpreter hands the argument on as it is.
    unsafe { ffi::Py_AddPendingCall(Some(run), task as *mut c_void) == 0 }
}
