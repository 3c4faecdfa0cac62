//! Functions of the application that the library keeps to call them later.

use std::ffi::c_void;

use toolb_core::engine::Context;

use crate::context;

/// A function that is kept, with its `user` pointer.
pub type toolb_callback = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// The `user` pointer of a function that is kept, and what lets go of it.
pub(crate) struct User {
    pointer: *mut c_void,
    drop: toolb_callback,
}

impl User {
    pub(crate) fn new(pointer: *mut c_void, drop: toolb_callback) -> Self {
        Self { pointer, drop }
    }

    /// Calls a function with it on the loop of `context`, if there is one, and lets go of it there:
    /// what it holds may be timers and watches.
    ///
    /// # Safety
    /// `call` is meant for this pointer.
    pub(crate) unsafe fn last_call(
        self,
        context: Option<&mut Context<'_>>,
        call: unsafe extern "C" fn(*mut c_void),
    ) {
        context::call(context, || {
            // SAFETY: the caller's promise.
            unsafe { call(self.pointer) };
            drop(self);
        });
    }

    /// A method, so that a closure that calls it holds the whole and not a copy of the pointer.
    pub(crate) fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the function is meant for this pointer, and this happens once.
            unsafe { drop(self.pointer) };
        }
    }
}

// SAFETY: the documentation of each function that keeps a callback says on which threads it is
// called and let go of, and makes the caller promise that it may be.
unsafe impl Send for User {}
