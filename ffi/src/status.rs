//! What functions return.

use std::ffi::{CStr, c_char};

/// What a function returns. Numbers are never reused; a program must expect ones it does not know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum toolb_status {
    /// It worked.
    TOOLB_OK = 0,
    /// An argument that must not be NULL is NULL.
    TOOLB_NULL_ARGUMENT = 100,
    /// A text argument is not UTF-8.
    TOOLB_NOT_UTF8 = 101,
    /// `struct_size` is smaller than the first version of the struct.
    TOOLB_BAD_STRUCT_SIZE = 102,
    /// An option, address or route that cannot be meant; toolb_engine_error says why, or where there is
    /// no engine, toolb_last_error.
    TOOLB_BAD_ARGUMENT = 103,
    /// The buffer is too small; the size needed was stored.
    TOOLB_BUFFER_TOO_SMALL = 104,
    /// There is nothing by that name or index.
    TOOLB_NOT_FOUND = 105,
    /// Too early, too late or not from here: configuring an engine that runs, the status of an answer
    /// that has begun, a second use at the same time. toolb_last_error says which.
    TOOLB_BAD_STATE = 200,
    /// The engine could not start; its error text says why and what to do.
    TOOLB_CANNOT_START = 201,
    /// Outside of a callback on the loop that owns the object.
    TOOLB_WRONG_LOOP = 202,
    /// The client has left, the object was closed, or the engine has stopped: what was said is lost.
    TOOLB_GONE = 300,
    /// The window is used up; nothing was taken. Try again when told that there is room.
    TOOLB_FULL = 301,
    /// The time is over.
    TOOLB_TIMEOUT = 302,
    /// The process has no descriptor or no memory left for it.
    TOOLB_NO_DESCRIPTOR = 303,
    /// A consumer could not attach to its engine; toolb_last_error says why and what to do.
    TOOLB_CANNOT_ATTACH = 400,
    /// The engine has gone, or drains and all is done: the consumer has nothing left to do.
    TOOLB_HANG_UP = 401,
    /// The engine broke the rules of the bus; toolb_last_error says which. Free the consumer.
    TOOLB_BUS_VIOLATION = 402,
    /// A defect of the library; toolb_last_error describes it.
    TOOLB_PANIC = 900,
}

/// A line of text for a status; never NULL, never freed. Any thread, any time.
#[unsafe(no_mangle)]
pub extern "C" fn toolb_status_text(status: u32) -> *const c_char {
    line(status).as_ptr()
}

impl toolb_status {
    /// A line of text for it.
    pub(crate) fn text(self) -> &'static str {
        // All of them are ASCII.
        line(self as u32).to_str().unwrap_or_default()
    }
}

fn line(status: u32) -> &'static CStr {
    match status {
        0 => c"ok",
        100 => c"an argument that must not be NULL is NULL",
        101 => c"a text argument is not UTF-8",
        102 => c"struct_size is too small: set it to sizeof the struct",
        103 => c"an argument cannot be meant: see toolb_engine_error or toolb_last_error",
        104 => c"the buffer is too small: see the size that was stored",
        105 => c"there is nothing by that name or index",
        200 => c"too early, too late or not from here: see toolb_last_error",
        201 => c"the engine could not start: see its error text",
        202 => c"outside of a callback on the loop that owns the object",
        300 => c"the client has left, the object was closed, or the engine has stopped",
        301 => c"the window is used up and nothing was taken: wait until there is room",
        302 => c"the time is over",
        303 => c"the process is out of open files: raise the limit (ulimit -n)",
        400 => c"the consumer could not attach to its engine: see toolb_last_error",
        401 => c"the engine has gone, or drains and all is done",
        402 => c"the engine broke the rules of the bus: see toolb_last_error",
        900 => c"a defect of the library: see toolb_last_error",
        _ => c"a status this version does not know",
    }
}
