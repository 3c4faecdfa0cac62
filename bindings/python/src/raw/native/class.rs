//! The type objects of native types, and the functions in their slots.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    marker::PhantomData,
    mem::{offset_of, size_of},
    ptr,
};

use pyo3::{
    Borrowed,
    exceptions::{PyStopIteration, PyTypeError},
    ffi,
    prelude::*,
    types::{PyString, PyTuple, PyType},
};

use super::{Args, Instance, Layout, Native, Step, Visitor};

/// Makes the type of `T`, once.
pub(crate) fn register<T: Native>(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    if let Some(class) = T::type_cell().get(py) {
        return Ok(class.bind(py).clone());
    }
    let class = make_class::<T>(py)?;
    let _ = T::type_cell().set(py, class.clone().unbind());
    Ok(class)
}

pub(super) fn class_of<T: Native>(py: Python<'_>) -> PyResult<&Py<PyType>> {
    T::type_cell()
        .get(py)
        .ok_or_else(|| PyTypeError::new_err("the type is not registered"))
}

fn make_class<T: Native>(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let none = ptr::null::<c_char>();
    // The interpreter keeps pointers into both tables for as long as the type lives: forever.
    let members = Box::leak(Box::new([
        ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset: offset_of!(Layout<T>, vectorcall) as ffi::Py_ssize_t,
            flags: ffi::Py_READONLY,
            doc: none,
        },
        ffi::PyMemberDef::default(),
    ]));
    let methods = Box::leak(Box::new([
        method(c"send", send::<T>, ffi::METH_O),
        method(c"throw", throw::<T>, ffi::METH_VARARGS),
        method(c"close", close::<T>, ffi::METH_NOARGS),
        ffi::PyMethodDef::zeroed(),
    ]));
    let mut slots = vec![
        slot(ffi::Py_tp_doc, T::DOC.as_ptr() as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
        slot(ffi::Py_tp_clear, clear::<T> as *mut c_void),
        slot(ffi::Py_tp_getattro, getattro::<T> as *mut c_void),
    ];
    let mut flags =
        ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    if T::CALLABLE {
        flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL;
        slots.extend([
            slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        ]);
    }
    if T::AWAITABLE {
        slots.extend([
            slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
            slot(ffi::Py_tp_iter, itself as *mut c_void),
            slot(ffi::Py_tp_iternext, iternext::<T> as *mut c_void),
            slot(ffi::Py_am_await, itself as *mut c_void),
            slot(ffi::Py_am_send, am_send::<T> as *mut c_void),
        ]);
    }
    slots.push(ffi::PyType_Slot::default());
    let mut spec = ffi::PyType_Spec {
        name: T::NAME.as_ptr(),
        basicsize: size_of::<Layout<T>>() as c_int,
        itemsize: 0,
        flags: flags as c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the tables end with an empty entry each, every function has the signature its slot
    // asks for, and the layout begins with an object head.
    unsafe {
        let class = ffi::PyType_FromSpec(&mut spec);
        Ok(Bound::from_owned_ptr_or_err(py, class)?.cast_into_unchecked())
    }
}

fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

fn method(name: &'static CStr, function: ffi::PyCFunction, flags: c_int) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: flags,
        ml_doc: ptr::null(),
    }
}

// SAFETY of all the slots below: the interpreter calls them attached and with live objects of the
// class they were registered for. A panic in them aborts, as `extern "C"` has it.

/// Where a callable instance points to.
///
/// # Safety
/// For the interpreter to call, as said above.
pub(super) unsafe extern "C" fn vectorcall<T: Native>(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: see above; `args` holds the positional and then the named arguments.
    unsafe {
        Python::attach_unchecked(|py| {
            let this = instance::<T>(py, callable);
            let names =
                Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>());
            let named = names.map_or(0, |names| names.len());
            let count = ffi::PyVectorcall_NARGS(nargsf) as usize + named;
            let values = if count == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(args, count)
            };
            give(py, T::call(&this, Args { py, values, named }))
        })
    }
}

unsafe extern "C" fn am_send<T: Native>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: see above; `result` is where the interpreter wants the object.
    unsafe {
        Python::attach_unchecked(|py| {
            let this = instance::<T>(py, object);
            let value = Borrowed::from_ptr(py, value);
            let (object, outcome) = match T::step(&this, &value) {
                Ok(Step::Return(object)) => (object.into_ptr(), ffi::PySendResult::PYGEN_RETURN),
                Ok(Step::Yield(object)) => (object.into_ptr(), ffi::PySendResult::PYGEN_NEXT),
                Err(error) => (give(py, Err(error)), ffi::PySendResult::PYGEN_ERROR),
            };
            *result = object;
            outcome
        })
    }
}

unsafe extern "C" fn iternext<T: Native>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: see above.
    unsafe {
        Python::attach_unchecked(|py| {
            let this = instance::<T>(py, object);
            match T::step(&this, &py.None().into_bound(py)) {
                // Null without an error set ends the iteration with None.
                Ok(Step::Return(value)) if value.is_none() => ptr::null_mut(),
                Ok(Step::Return(value)) => give(py, Err(stop(&value))),
                Ok(Step::Yield(value)) => value.into_ptr(),
                Err(error) => give(py, Err(error)),
            }
        })
    }
}

unsafe extern "C" fn send<T: Native>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: see above.
    unsafe {
        Python::attach_unchecked(|py| {
            let this = instance::<T>(py, object);
            outcome(py, T::step(&this, &Borrowed::from_ptr(py, value)))
        })
    }
}

unsafe extern "C" fn throw<T: Native>(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: see above; METH_VARARGS passes a tuple.
    unsafe {
        Python::attach_unchecked(|py| {
            let this = instance::<T>(py, object);
            let args = Borrowed::from_ptr(py, args).cast_unchecked::<PyTuple>();
            outcome(py, T::throw(&this, &args))
        })
    }
}

unsafe extern "C" fn close<T: Native>(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: see above.
    unsafe {
        Python::attach_unchecked(|py| {
            let this = instance::<T>(py, object);
            give(py, T::close(&this).map(|()| py.None().into_bound(py)))
        })
    }
}

fn outcome(py: Python<'_>, step: PyResult<Step<'_>>) -> *mut ffi::PyObject {
    let result = match step {
        Ok(Step::Return(value)) => Err(stop(&value)),
        Ok(Step::Yield(value)) => Ok(value),
        Err(error) => Err(error),
    };
    give(py, result)
}

unsafe extern "C" fn getattro<T: Native>(
    object: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: see above.
    unsafe {
        let found = ffi::PyObject_GenericGetAttr(object, name);
        if !found.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return found;
        }
        Python::attach_unchecked(|py| {
            let missing = PyErr::fetch(py);
            let this = instance::<T>(py, object);
            let name = Borrowed::from_ptr(py, name).cast_unchecked::<PyString>();
            let found = name
                .to_str()
                .ok()
                .and_then(|name| T::attribute(&this, name));
            give(py, found.unwrap_or(Err(missing)))
        })
    }
}

unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: see above.
    unsafe {
        ffi::Py_INCREF(object);
        object
    }
}

unsafe extern "C" fn traverse<T: Native>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: see above; the value is read where it lies, without touching reference counts.
    unsafe {
        let mut visitor = Visitor {
            visit,
            arg,
            outcome: visit(ffi::Py_TYPE(object).cast(), arg),
            of: PhantomData,
        };
        if let Some(value) = &(*object.cast::<Layout<T>>()).value {
            value.traverse(&mut visitor);
        }
        visitor.outcome
    }
}

unsafe extern "C" fn clear<T: Native>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: see above.
    unsafe {
        if let Some(value) = &(*object.cast::<Layout<T>>()).value {
            value.clear();
        }
    }
    0
}

unsafe extern "C" fn dealloc<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: the last reference is gone. The collector must not see the object any more before
    // its parts are dropped; instances of heap types hold a reference to their type.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        Python::attach_unchecked(|_| drop((*object.cast::<Layout<T>>()).value.take()));
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

/// Borrows the arguments of a slot.
///
/// # Safety
/// `object` is an instance of `T`'s class and this thread is attached.
#[inline]
unsafe fn instance<'py, T>(py: Python<'py>, object: *mut ffi::PyObject) -> Instance<'py, T> {
    Instance {
        // SAFETY: promised by the caller.
        object: unsafe { Bound::from_borrowed_ptr(py, object) },
        of: PhantomData,
    }
}

/// Hands a result to the interpreter.
#[inline]
fn give(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> *mut ffi::PyObject {
    match result {
        Ok(object) => object.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

/// Turns the end of a coroutine into StopIteration, the form it has outside `am_send`.
fn stop(value: &Bound<'_, PyAny>) -> PyErr {
    // As a single argument whatever it is: a tuple would be taken for several.
    PyStopIteration::new_err((value.clone().unbind(),))
}
