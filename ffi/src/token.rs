//! Tokens: answers that come later, from any thread.

use std::ffi::{c_char, c_void};
use std::time::Duration;

use toolb_core::engine::{Response, Token, WriteError};

use crate::callback::{User, toolb_callback};
use crate::context;
use crate::exchange::toolb_response;
use crate::guard::{bytes, entry, object, place, text_bytes};
use crate::last_error::fail;
use crate::toolb_status;

/// The right and the duty to answer one request later, from any thread.
///
/// Made by toolb_response_later, for a handler that an engine runs as for one of toolb_consumer_run;
/// ended by exactly one of toolb_token_end, toolb_token_answer and
/// toolb_token_abort, which consume it: no other function may be called with it then, nor run at
/// that time. Until then each function may be called by any thread, several at a time, too. Once
/// nobody waits for the answer any more (the client has left, the time for the response is over, the
/// engine has stopped or was freed, toolb_consumer_run has returned) they all return TOOLB_GONE; the
/// token still has to be ended.
pub struct toolb_token(Token);

/// Gives the right to answer away, with the status, the fields and the body that were written so
/// far, and stores it in `out`; the handler then returns TOOLB_LATER. The caller owns the token.
/// What is written to `response` afterwards is lost. TOOLB_BAD_STATE if there has been a token for
/// this request before.
///
/// # Safety
/// `response` is what the handler was called with, during that call; `out` may be written. Each may
/// be NULL, which is answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_response_later(
    response: *mut toolb_response,
    out: *mut *mut toolb_token,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise; the pointer was made from a `Response`.
        let (response, out) = unsafe { (place(response.cast::<Response>())?, place(out)?) };
        *out = std::ptr::null_mut();
        if !response.can_answer_later() {
            let text = "there has been a token for this request, and there is one only";
            return Err(fail(toolb_status::TOOLB_BAD_STATE, text));
        }
        *out = Box::into_raw(Box::new(toolb_token(response.later())));
        Ok(())
    })
}

/// Sets the status code of the answer; 200 when not called here or in the handler. TOOLB_BAD_STATE
/// after the first toolb_token_write. Any thread.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_status(token: *mut toolb_token, status: u16) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { object(token)? }.0.status(status).map_err(refused))
}

/// Adds a field to the answer; both texts are copied. One that HTTP does not allow makes the answer
/// a 500. TOOLB_BAD_STATE after the first toolb_token_write. Any thread.
///
/// # Safety
/// `token` is a token that has not been ended; the texts are NUL-terminated. Each may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_field(
    token: *mut toolb_token,
    name: *const c_char,
    value: *const c_char,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (token, name, value) =
            unsafe { (object(token)?, text_bytes(name)?, text_bytes(value)?) };
        token.0.field(name, value).map_err(refused)
    })
}

/// Sends the head of the answer, if it has not been sent, and `len` bytes of its body; they are
/// copied. Without a Content-Length among the fields the body is sent in chunks.
///
/// Of one answer at most the option `response_window` (of a consumer's answer: 128 KiB, besides what
/// is on its way to the engine) may wait for the client to take it. What does not fit is refused as a
/// whole by TOOLB_FULL; then wait by toolb_token_wait, or be called by toolb_token_on_writable, and
/// write again. Any thread.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL; `data` points to `len` bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_write(
    token: *mut toolb_token,
    data: *const c_void,
    len: usize,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (token, data) = unsafe { (object(token)?, bytes(data, len)?) };
        token.0.write(data).map_err(refused)
    })
}

/// Completes the answer. Consumes `token`, also where it returns TOOLB_GONE. After TOOLB_OK the
/// function of toolb_token_on_cancel is not called; after TOOLB_GONE it has been called or is being
/// called now. Any thread.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_end(token: *mut toolb_token) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { take(token)? }.end().map_err(refused))
}

/// Sends `len` bytes, which are copied, as the rest of the body or all of it, and completes the
/// answer, whatever the window. Consumes `token` unless it returns TOOLB_NULL_ARGUMENT; as for
/// toolb_token_end otherwise. Any thread.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL; `data` points to `len` bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_answer(
    token: *mut toolb_token,
    data: *const c_void,
    len: usize,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise. A token is taken only once all else is in order.
        let (data, token) = unsafe { (bytes(data, len)?, take(token)?) };
        token.answer(data).map_err(refused)
    })
}

/// Gives up: the client gets a 500, or a reset connection if the head has been sent. Consumes
/// `token`; as for toolb_token_end otherwise. Any thread.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_abort(token: *mut toolb_token) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { take(token)? }.abort().map_err(refused))
}

/// Has `call` called once, on the loop of the request or by the toolb_consumer_run that it came to, when
/// nobody waits for the answer any more. It replaces one that was set before. TOOLB_GONE, without a
/// call, if that is so already. Any thread; set in the handler nothing can be missed.
///
/// `user` is given away: `drop`, if not NULL, is called for it exactly once, on whichever thread,
/// when `call` will not be called any more: it has been, it was replaced, the token was ended, or
/// this function did not return TOOLB_OK.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL; `call` and `drop` are functions of that type
/// or NULL, and `user` may be used on that thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_on_cancel(
    token: *mut toolb_token,
    call: toolb_callback,
    user: *mut c_void,
    drop: toolb_callback,
) -> toolb_status {
    let keep = |token: &Token, call: Callback, user: User| {
        token.on_cancel(move |context| {
            // SAFETY: the caller's promise.
            unsafe { user.last_call(context, call) };
        })
    };
    // SAFETY: the caller's promise.
    unsafe { keep_callback(token, call, user, drop, keep) }
}

/// Has `call` called on the same thread when there is room again, once after each write that was
/// answered by TOOLB_FULL. It replaces one that was set before. It may still be running when
/// another thread ends the token. `user` and `drop` as for toolb_token_on_cancel. Any thread.
///
/// # Safety
/// As for toolb_token_on_cancel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_on_writable(
    token: *mut toolb_token,
    call: toolb_callback,
    user: *mut c_void,
    drop: toolb_callback,
) -> toolb_status {
    let keep = |token: &Token, call: Callback, user: User| {
        token.on_writable(move |context| {
            // SAFETY: the caller's promise.
            context::call(context, || unsafe { call(user.pointer()) });
        })
    };
    // SAFETY: the caller's promise.
    unsafe { keep_callback(token, call, user, drop, keep) }
}

/// Waits until what was refused by TOOLB_FULL would be taken; at most `timeout_ms` milliseconds, -1
/// for as long as it takes. TOOLB_TIMEOUT if the time is over. TOOLB_BAD_STATE in a callback on a
/// loop and in what toolb_consumer_run calls, which would wait for themselves. Any other thread.
///
/// # Safety
/// `token` is a token that nobody ends meanwhile, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_token_wait(
    token: *mut toolb_token,
    timeout_ms: i32,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let token = unsafe { object(token)? };
        if context::is_inside() || context::is_serving() {
            let text = "a callback cannot wait for room, which its own thread makes: use \
                        toolb_token_on_writable";
            return Err(fail(toolb_status::TOOLB_BAD_STATE, text));
        }
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        match token.0.wait_writable(timeout).map_err(refused)? {
            true => Ok(()),
            false => Err(toolb_status::TOOLB_TIMEOUT),
        }
    })
}

/// A function that a token keeps.
type Callback = unsafe extern "C" fn(*mut c_void);

/// Has a token keep a function of the caller; one that is not kept is let go of.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL.
unsafe fn keep_callback(
    token: *mut toolb_token,
    call: toolb_callback,
    user: *mut c_void,
    drop: toolb_callback,
    keep: impl FnOnce(&Token, Callback, User) -> Result<(), WriteError>,
) -> toolb_status {
    let user = User::new(user, drop);
    entry(|| {
        // SAFETY: the caller's promise.
        let token = unsafe { object(token)? };
        let call = call.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        keep(&token.0, call, user).map_err(refused)
    })
}

/// Takes a token out of the caller's hands.
///
/// # Safety
/// `token` is a token that has not been ended, or NULL.
unsafe fn take(token: *mut toolb_token) -> Result<Token, toolb_status> {
    if token.is_null() {
        return Err(toolb_status::TOOLB_NULL_ARGUMENT);
    }
    // SAFETY: the caller's promise: it came from `Box::into_raw` and is taken once.
    Ok(unsafe { Box::from_raw(token) }.0)
}

fn refused(error: WriteError) -> toolb_status {
    match error {
        WriteError::Begun => {
            let text = "the answer has begun: status and fields come before the first \
                        toolb_token_write";
            fail(toolb_status::TOOLB_BAD_STATE, text)
        }
        WriteError::Full => toolb_status::TOOLB_FULL,
        WriteError::Gone => toolb_status::TOOLB_GONE,
    }
}
