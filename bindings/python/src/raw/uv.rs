//! Hooks in the libuv loop that runs uvloop. Its extension exports the functions of the libuv it was
//! built with, and a pointer to its loop: that is all it takes to look at the bus before the loop
//! blocks, without a callback of Python.
//!
//! libuv polls level-triggered only, and a doorbell that is never read would stay readable. So it is
//! put into libuv's epoll set edge-triggered, behind its back, under the number of a descriptor that
//! libuv does watch and that is never readable itself.

use std::{
    ffi::{CStr, CString, c_int, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use pyo3::{exceptions::PyRuntimeError, ffi, prelude::*, types::PyCapsule};

/// What is called from within the loop.
pub(crate) trait UvHooks {
    /// The loop is about to poll. False: it must not block. `has_work` tells whether it has, or may
    /// have, something to do itself.
    fn before_poll(&'static self, py: Python<'_>, has_work: &dyn Fn() -> bool) -> bool;
}

/// Hooks that are in a loop. They stay there until [`detach`](Self::detach).
pub(crate) struct UvAttachment {
    prepare: *mut Handle,
    idle: *mut Handle,
    poll: *mut Handle,
    functions: Functions,
    epoll: BorrowedFd<'static>,
    bell: RawFd,
    /// What libuv watches in place of the bell.
    stand_in: OwnedFd,
}

impl UvAttachment {
    /// Puts `hooks` into `event_loop`, a `uvloop.Loop`. The eventfd `bell` wakes the loop each time
    /// it is written, and need not be read.
    pub(crate) fn attach(
        event_loop: &Bound<'_, PyAny>,
        bell: RawFd,
        hooks: &'static dyn UvHooks,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let module = py.import("uvloop.loop")?;
        let functions = Functions::load(&module.getattr("__file__")?.extract::<CString>()?)?;
        let capsule = module
            .getattr("libuv_get_loop_t_ptr")?
            .call1((event_loop,))?
            .cast_into::<PyCapsule>()?;
        let loop_ = capsule.pointer_checked(None)?.as_ptr();
        // SAFETY: the pointer is that of a loop which is alive and, as we hold the GIL, not running
        // elsewhere. Each handle has the size libuv wants for its kind and lives until libuv has
        // closed it; its data is written before it is started.
        unsafe {
            let shared = Box::into_raw(Box::new(Shared {
                hooks,
                functions,
                loop_,
                idle: ptr::null_mut(),
            }));
            let prepare = functions.new_handle(kind::PREPARE, shared);
            let idle = functions.new_handle(kind::IDLE, shared);
            let poll = functions.new_handle(kind::POLL, shared);
            (*shared).idle = idle;
            let stand_in = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if stand_in < 0 {
                return Err(io::Error::last_os_error().into());
            }
            let stand_in = OwnedFd::from_raw_fd(stand_in);
            let outcomes = [
                (functions.prepare_init)(loop_, prepare),
                (functions.idle_init)(loop_, idle),
                (functions.poll_init)(loop_, poll, stand_in.as_raw_fd()),
                (functions.prepare_start)(prepare, on_prepare),
                (functions.poll_start)(poll, READABLE, on_poll),
            ];
            let attachment = Self {
                prepare,
                idle,
                poll,
                functions,
                epoll: BorrowedFd::borrow_raw((functions.backend_fd)(loop_)),
                bell,
                stand_in,
            };
            let refused = outcomes.iter().any(|&outcome| outcome != 0);
            if refused || attachment.control(libc::EPOLL_CTL_ADD).is_err() {
                // Whatever was not initialised cannot be closed either: all of it is left behind.
                std::mem::forget(attachment);
                return Err(PyRuntimeError::new_err("libuv refused the hooks"));
            }
            for handle in [prepare, idle, poll] {
                (functions.unref)(handle);
            }
            Ok(attachment)
        }
    }

    /// Puts the bell into libuv's epoll set, or takes it out.
    fn control(&self, operation: c_int) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET) as u32,
            u64: self.stand_in.as_raw_fd() as u64,
        };
        // SAFETY: a system call on descriptors, with an event that lives as long as it takes.
        let outcome =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, self.bell, &mut event) };
        if outcome < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Takes the hooks out. They are gone after the loop's next turn.
    pub(crate) fn detach(self, _: Python<'_>) {
        // The worst that can come of an error is a wake-up for nothing.
        let _ = self.control(libc::EPOLL_CTL_DEL);
        // SAFETY: the handles were initialised in `attach` and are closed once, here, by the thread
        // that runs the loop.
        unsafe {
            (self.functions.close)(self.prepare, Some(free));
            (self.functions.close)(self.idle, Some(free));
            (self.functions.close)(self.poll, Some(free));
        }
    }
}

/// A `uv_handle_t`: its first field, in all versions, is ours.
#[repr(C)]
struct Handle {
    data: *mut Shared,
}

/// What the handles of one attachment share. It outlives them: nobody knows which is freed last.
struct Shared {
    hooks: &'static dyn UvHooks,
    functions: Functions,
    loop_: *mut c_void,
    idle: *mut Handle,
}

/// Of `uv_handle_type`.
mod kind {
    pub(super) const IDLE: i32 = 6;
    pub(super) const POLL: i32 = 8;
    pub(super) const PREPARE: i32 = 9;
}

/// `UV_READABLE`.
const READABLE: c_int = 1;

type Callback = unsafe extern "C" fn(*mut Handle);
type PollCallback = unsafe extern "C" fn(*mut Handle, c_int, c_int);
type SizeOf = unsafe extern "C" fn(c_int) -> usize;
type Init = unsafe extern "C" fn(*mut c_void, *mut Handle) -> c_int;
type Start = unsafe extern "C" fn(*mut Handle, Callback) -> c_int;
type Stop = unsafe extern "C" fn(*mut Handle) -> c_int;
type PollInit = unsafe extern "C" fn(*mut c_void, *mut Handle, c_int) -> c_int;
type PollStart = unsafe extern "C" fn(*mut Handle, c_int, PollCallback) -> c_int;
type BackendFd = unsafe extern "C" fn(*mut c_void) -> c_int;
type Timeout = unsafe extern "C" fn(*mut c_void) -> c_int;
type Close = unsafe extern "C" fn(*mut Handle, Option<Callback>);

/// The functions of uvloop's libuv.
#[derive(Clone, Copy)]
struct Functions {
    handle_size: SizeOf,
    prepare_init: Init,
    prepare_start: Start,
    idle_init: Init,
    idle_start: Start,
    idle_stop: Stop,
    poll_init: PollInit,
    poll_start: PollStart,
    backend_fd: BackendFd,
    backend_timeout: Timeout,
    unref: Callback,
    close: Close,
}

impl Functions {
    /// Looks them up in the extension at `path`, which is loaded already.
    fn load(path: &CStr) -> PyResult<Self> {
        // SAFETY: RTLD_NOLOAD runs no code; the library stays for as long as the process, as all
        // extension modules do.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if library.is_null() {
            return Err(PyRuntimeError::new_err("uvloop's extension is not loaded"));
        }
        macro_rules! symbol {
            ($name:literal, $kind:ty) => {{
                let name: &CStr = $name;
                // SAFETY: a look-up by name in a library that is loaded.
                let address = unsafe { libc::dlsym(library, name.as_ptr()) };
                if address.is_null() {
                    let name = name.to_string_lossy();
                    return Err(PyRuntimeError::new_err(format!(
                        "uvloop's extension does not export {name}"
                    )));
                }
                // SAFETY: libuv's functions have had these signatures since version 1.0.
                unsafe { std::mem::transmute::<*mut c_void, $kind>(address) }
            }};
        }
        Ok(Self {
            handle_size: symbol!(c"uv_handle_size", SizeOf),
            prepare_init: symbol!(c"uv_prepare_init", Init),
            prepare_start: symbol!(c"uv_prepare_start", Start),
            idle_init: symbol!(c"uv_idle_init", Init),
            idle_start: symbol!(c"uv_idle_start", Start),
            idle_stop: symbol!(c"uv_idle_stop", Stop),
            poll_init: symbol!(c"uv_poll_init", PollInit),
            poll_start: symbol!(c"uv_poll_start", PollStart),
            backend_fd: symbol!(c"uv_backend_fd", BackendFd),
            backend_timeout: symbol!(c"uv_backend_timeout", Timeout),
            unref: symbol!(c"uv_unref", Callback),
            close: symbol!(c"uv_close", Close),
        })
    }

    /// Memory for a handle.
    ///
    /// # Safety
    /// `shared` is valid for as long as the handle.
    unsafe fn new_handle(&self, kind: c_int, shared: *mut Shared) -> *mut Handle {
        // SAFETY: handle sizes are small and not 0; `calloc` aligns for anything.
        unsafe {
            let handle = libc::calloc(1, (self.handle_size)(kind)).cast::<Handle>();
            assert!(!handle.is_null(), "out of memory");
            (*handle).data = shared;
            handle
        }
    }
}

// SAFETY of the callbacks: libuv calls them with a handle of `attach`, in the thread that runs the
// loop and while it does, so the interpreter is there to be attached to.

unsafe extern "C" fn on_prepare(handle: *mut Handle) {
    // SAFETY: see above; `shared` was never freed.
    unsafe {
        let shared = &*(*handle).data;
        (shared.functions.idle_stop)(shared.idle);
        let has_work = || (shared.functions.backend_timeout)(shared.loop_) == 0;
        let may_block = attached(|py| shared.hooks.before_poll(py, &has_work));
        if !may_block {
            // A loop with an idle handle polls without blocking.
            (shared.functions.idle_start)(shared.idle, on_idle);
        }
    }
}

unsafe extern "C" fn on_idle(_: *mut Handle) {}

/// The bell rang. That ended the wait, which is all it is for: the next turn begins with a look at
/// the bus.
unsafe extern "C" fn on_poll(_: *mut Handle, _: c_int, _: c_int) {}

/// Calls `f` attached. uvloop detaches while its loop runs, behind PyO3's back: what PyO3 thinks of
/// this thread says nothing here.
unsafe fn attached<R>(f: impl FnOnce(Python<'_>) -> R) -> R {
    // SAFETY: the interpreter runs, as the loop does. Ensure and Release nest.
    unsafe {
        let state = ffi::PyGILState_Ensure();
        let result = Python::attach_unchecked(f);
        ffi::PyGILState_Release(state);
        result
    }
}

unsafe extern "C" fn free(handle: *mut Handle) {
    // SAFETY: `new_handle` allocated it and libuv has done with it.
    unsafe { libc::free(handle.cast()) }
}
