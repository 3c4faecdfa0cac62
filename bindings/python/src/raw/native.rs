//! Python types whose instances are called by vectorcall and stepped by `am_send`: PyO3 offers
//! neither slot, and between them they are most of what a request costs.

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
    sync::PyOnceLock,
    types::{PyString, PyTuple, PyType},
};

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
    const CALLABLE: bool;
    /// Instances can be awaited, and are coroutines.
    const AWAITABLE: bool;

    /// Where the type object of `Self` is kept.
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

    /// Drops what is held.
    fn clear(&self);
}

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

/// Makes the type of `T`, once.
pub(crate) fn register<T: Native>(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    if let Some(class) = T::type_cell().get(py) {
        return Ok(class.bind(py).clone());
    }
    let class = make_class::<T>(py)?;
    let _ = T::type_cell().set(py, class.clone().unbind());
    Ok(class)
}

/// The object in memory. The value is optional only for the moment between allocation, which
/// zeroes, and `Instance::new`'s write; the collector may look at it in between.
#[repr(C)]
struct Layout<T> {
    head: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    value: Option<T>,
}

fn class_of<T: Native>(py: Python<'_>) -> PyResult<&Py<PyType>> {
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

// SAFETY of all the slots below: the interpreter calls them attached and with live objects of the
// class they were registered for. A panic in them aborts, as `extern "C"` has it.

unsafe extern "C" fn vectorcall<T: Native>(
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
