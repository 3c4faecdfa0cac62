//! The loop that the calling thread is on, for functions that need one and take none.
//!
//! Around each callback stands [`enter`]; the functions that a callback may call find the loop by
//! [`with`]. Elsewhere, and on threads that are no loops, there is none. What a consumer calls while it
//! serves stands in [`serve`]: no loop, but a thread that others wait for, too.

use std::cell::Cell;
use std::ptr::null_mut;

use toolb_core::engine::Context;

use crate::toolb_status;

/// Runs `callback`, code of the application, on the loop of `context`.
#[inline]
pub(crate) fn enter<R>(context: &mut Context<'_>, callback: impl FnOnce() -> R) -> R {
    let pointer: *mut Context<'_> = context;
    CURRENT.with(|current| {
        let _outer = Restore(current, current.replace(pointer.cast()));
        callback()
    })
}

/// Runs `callback`, code of the application, on the thread of a consumer that serves.
pub(crate) fn serve<R>(callback: impl FnOnce() -> R) -> R {
    SERVES.with(|serves| {
        let _outer = Restore(serves, serves.replace(true));
        callback()
    })
}

/// Runs `callback` on a loop, or where there is none as what a consumer calls.
pub(crate) fn call<R>(context: Option<&mut Context<'_>>, callback: impl FnOnce() -> R) -> R {
    match context {
        Some(context) => enter(context, callback),
        None => serve(callback),
    }
}

/// Gives `action` the loop whose callback this thread is in.
pub(crate) fn with<R>(action: impl FnOnce(&mut Context<'_>) -> R) -> Result<R, toolb_status> {
    CURRENT.with(|current| {
        // Out of reach meanwhile, so that there is one reference to it at a time.
        let pointer = current.replace(null_mut());
        let _again = Restore(current, pointer);
        // SAFETY: `enter` made it from a reference that outlives the callback and is not used
        // during it; and it was taken out of its place, so nobody else makes a reference of it now.
        match unsafe { pointer.as_mut() } {
            Some(context) => Ok(action(context)),
            None => Err(toolb_status::TOOLB_WRONG_LOOP),
        }
    })
}

/// Whether this thread is in a callback on a loop.
pub(crate) fn is_inside() -> bool {
    CURRENT.with(|current| !current.get().is_null())
}

/// Whether this thread is in a callback of a consumer that serves.
pub(crate) fn is_serving() -> bool {
    SERVES.with(Cell::get)
}

thread_local! {
    static CURRENT: Cell<*mut Context<'static>> = const { Cell::new(null_mut()) };
    static SERVES: Cell<bool> = const { Cell::new(false) };
}

/// Puts a value back to its place, even if a panic passes.
struct Restore<'a, T: Copy>(&'a Cell<T>, T);

impl<T: Copy> Drop for Restore<'_, T> {
    fn drop(&mut self) {
        self.0.set(self.1);
    }
}
