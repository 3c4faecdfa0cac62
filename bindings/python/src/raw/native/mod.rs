//! Python types whose instances are called by vectorcall and stepped by `am_send`: PyO3 offers
//! neither slot, and between them they are most of what a request costs.

mod class;

use std::{
    ffi::{CStr, c_int, c_void},
    marker::PhantomData,
    ptr,
};

use pyo3::{
    Borrowed,
    exceptions::PyTypeError,
    ffi,
    prelude::*,
    sync::PyOnceLock,
    types::{PyTuple, PyType},
};

pub(crate) use self::class::register;
use self::class::{class_of, vectorcall};

/// What one step of a coroutine came to.
pub(crate) enum Step<'py> {
    /// It ended with this value.
    Return(Bound<'py, PyAny>),
    /// It waits for this future.
    Yield(Bound<'py, PyAny>),
}

/// The behaviour of a native type. Every method gets `this` under the GIL and may be entered
/// again from within itself, so state lives in cells and no borrow may span a call into Python.
pub(crate) trait Native: Sized + 'static {
    /// The type's qualified name.
    const NAME: &'static CStr;
    /// What `help()` says.
    const DOC: &'static CStr;
    /// Instances can be called.
    const CALLABLE: bool = false;
    /// Instances can be awaited, and are coroutines.
    const AWAITABLE: bool = false;

    /// Where the type object of `Self` is kept: `type_cell!()` writes it.
    fn type_cell() -> &'static PyOnceLock<Py<PyType>>;

    /// `instance(...)`.
    fn call<'py>(_: &Instance<'py, Self>, _: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        Err(PyTypeError::new_err("it cannot be called"))
    }

    /// `instance.send(value)`.
    fn step<'py>(_: &Instance<'py, Self>, _: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        Err(PyTypeError::new_err("it cannot be awaited"))
    }

    /// `instance.throw(...)`.
    fn throw<'py>(_: &Instance<'py, Self>, _: &Bound<'py, PyTuple>) -> PyResult<Step<'py>> {
        Err(PyTypeError::new_err("it cannot be awaited"))
    }

    /// `instance.close()`.
    fn close(_: &Instance<'_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// An attribute the type does not have; None if this instance has not, either.
    fn attribute<'py>(_: &Instance<'py, Self>, _: &str) -> Option<PyResult<Bound<'py, PyAny>>> {
        None
    }

    /// Shows the garbage collector what is held.
    fn traverse(&self, visit: &mut Visitor<'_>);

    /// Drops what is held; what is never replaced may stay.
    fn clear(&self) {}
}

/// The `type_cell` of a [`Native`] type, whose static belongs to that type alone.
macro_rules! type_cell {
    () => {
        fn type_cell() -> &'static ::pyo3::sync::PyOnceLock<::pyo3::Py<::pyo3::types::PyType>> {
            static CELL: ::pyo3::sync::PyOnceLock<::pyo3::Py<::pyo3::types::PyType>> =
                ::pyo3::sync::PyOnceLock::new();
            &CELL
        }
    };
}
pub(crate) use type_cell;

/// An instance of `T`, alive and seen under the GIL.
pub(crate) struct Instance<'py, T> {
    object: Bound<'py, PyAny>,
    of: PhantomData<T>,
}

impl<'py, T: Native> Instance<'py, T> {
    /// A new instance.
    pub(crate) fn new(py: Python<'py>, value: T) -> PyResult<Self> {
        let class = class_of::<T>(py)?;
        // SAFETY: the class was made by `register` with the layout of `Layout<T>`; generic
        // allocation returns zeroed memory of that size with its head filled in, or null with an
        // error set. The value is written before anybody else can see the object.
        unsafe {
            let object = ffi::PyType_GenericAlloc(class.as_ptr().cast::<ffi::PyTypeObject>(), 0);
            let object = Bound::from_owned_ptr_or_err(py, object)?;
            let layout = object.as_ptr().cast::<Layout<T>>();
            ptr::write(&raw mut (*layout).vectorcall, Some(vectorcall::<T>));
            ptr::write(&raw mut (*layout).value, Some(value));
            Ok(Self {
                object,
                of: PhantomData,
            })
        }
    }

    /// The interpreter.
    pub(crate) fn py(&self) -> Python<'py> {
        self.object.py()
    }

    /// The Python object.
    pub(crate) fn object(&self) -> &Bound<'py, PyAny> {
        &self.object
    }

    /// The Python object.
    pub(crate) fn into_object(self) -> Bound<'py, PyAny> {
        self.object
    }

    /// Keeps the instance alive without the GIL.
    pub(crate) fn unbind(self) -> Kept<T> {
        Kept {
            object: self.object.unbind(),
            of: PhantomData,
        }
    }
}

impl<T: Native> std::ops::Deref for Instance<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: an Instance is made for objects of T's class only, whose value was written in
        // `new` and is dropped by `dealloc`, which no reference survives. The value is only ever
        // seen shared; its cells are guarded by the GIL, which `'py` shows to be held.
        unsafe {
            (*self.object.as_ptr().cast::<Layout<T>>())
                .value
                .as_ref()
                .unwrap_unchecked()
        }
    }
}

impl<T> Clone for Instance<'_, T> {
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            of: PhantomData,
        }
    }
}

/// A reference to an instance of `T` that does not need the GIL to exist.
pub(crate) struct Kept<T> {
    object: Py<PyAny>,
    of: PhantomData<fn() -> T>,
}

impl<T: Native> Kept<T> {
    /// The instance.
    pub(crate) fn bind<'py>(&self, py: Python<'py>) -> Instance<'py, T> {
        Instance {
            object: self.object.bind(py).clone(),
            of: PhantomData,
        }
    }

    /// The Python object.
    pub(crate) fn object(&self) -> &Py<PyAny> {
        &self.object
    }
}

/// The arguments of a call.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a, 'py> {
    py: Python<'py>,
    values: &'a [*mut ffi::PyObject],
    named: usize,
}

impl<'a, 'py> Args<'a, 'py> {
    /// How many have no name.
    pub(crate) fn len(&self) -> usize {
        self.values.len() - self.named
    }

    /// How many have a name.
    pub(crate) fn named(&self) -> usize {
        self.named
    }

    /// The argument at `index`, those with a name after those without.
    pub(crate) fn at(&self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        let value = *self.values.get(index)?;
        // SAFETY: the caller keeps its arguments alive for the call, and none is null.
        Some(unsafe { Borrowed::from_ptr(self.py, value) })
    }
}

/// Shows references to the garbage collector.
pub(crate) struct Visitor<'a> {
    visit: ffi::visitproc,
    arg: *mut c_void,
    outcome: c_int,
    of: PhantomData<&'a ()>,
}

impl Visitor<'_> {
    /// One reference.
    pub(crate) fn see(&mut self, object: Option<&Py<PyAny>>) {
        let Some(object) = object else { return };
        if self.outcome != 0 {
            return;
        }
        // SAFETY: the collector's own function on an object that is alive.
        self.outcome = unsafe { (self.visit)(object.as_ptr(), self.arg) };
    }
}

/// The object in memory. The value is optional only for the moment between allocation, which
/// zeroes, and `Instance::new`'s write; the collector may look at it in between.
#[repr(C)]
struct Layout<T> {
    head: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    value: Option<T>,
}
