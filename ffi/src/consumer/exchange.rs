//! What a program does with an exchange that its consumer holds.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::BorrowedFd;

use super::turn::Inner;
use super::{toolb_consumer, with};
use crate::guard::{bytes, entry, put_text, store, text_bytes};
use crate::last_error::fail;
use crate::toolb_status;

/// As a length of toolb_exchange_file: all that follows.
pub const TOOLB_REST: u64 = u64::MAX;

/// Sets the status code of the response; 200 when not called. One outside of 200 to 599 makes the
/// answer a 500. TOOLB_BAD_STATE after the first write.
///
/// A stream (TOOLB_EVENT_STREAM_OPEN) has neither head nor request: this function, _field, _answer and
/// _file answer TOOLB_BAD_STATE for it.
///
/// Of all functions of exchanges: `exchange` is the number that TOOLB_EVENT_REQUEST came with;
/// TOOLB_NOT_FOUND if the consumer holds no such exchange, or no longer; TOOLB_GONE if its client has
/// gone, of which TOOLB_EVENT_CANCELLED tells.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_status(
    consumer: *mut toolb_consumer,
    exchange: u64,
    status: u16,
) -> toolb_status {
    let set = |inner: &mut Inner| inner.edit_head(exchange, |head| head.set_status(status));
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, set) })
}

/// Adds a field to the response; both texts are copied, and sent in the encoding they have. One that
/// HTTP does not allow makes the answer a 500. Without a Content-Length the length is what
/// toolb_exchange_answer gives, or the response is sent in chunks. TOOLB_BAD_STATE after the first
/// write.
///
/// # Safety
/// `consumer` is a live consumer; `name` and `value` are NUL-terminated. Each may be NULL, which is
/// answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_field(
    consumer: *mut toolb_consumer,
    exchange: u64,
    name: *const c_char,
    value: *const c_char,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (name, value) = unsafe { (text_bytes(name)?, text_bytes(value)?) };
        let add = |inner: &mut Inner| inner.edit_head(exchange, |head| head.add_field(name, value));
        // SAFETY: the caller's promise.
        unsafe { with(consumer, add) }
    })
}

/// Answers at once: sends the head, `len` bytes of body and the end, and lets go of the exchange,
/// whatever is returned but TOOLB_NOT_FOUND and TOOLB_BAD_STATE (something was written before). The
/// bytes are copied; they may be the request's own. The shortest and fastest way to answer.
///
/// # Safety
/// `consumer` is a live consumer; `data` points to `len` bytes. Each may be NULL, which is answered by
/// TOOLB_NULL_ARGUMENT unless `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_answer(
    consumer: *mut toolb_consumer,
    exchange: u64,
    data: *const c_void,
    len: usize,
) -> toolb_status {
    // SAFETY: the caller's promise.
    unsafe {
        give(consumer, data, len, |inner, data| {
            inner.answer(exchange, data)
        })
    }
}

/// Answers with a part of an open file: `length` bytes from `offset` on, or TOOLB_REST for all that
/// follows. Sends the head, with that Content-Length, and the end, and lets go of the exchange if it
/// returns TOOLB_OK; else the exchange is as it was.
///
/// `fd` is borrowed for the call: close it afterwards, whatever becomes of the response. It must be a
/// regular file, open for reading (TOOLB_BAD_ARGUMENT if it is not, or shorter). The engine reads it
/// while the client takes it; should it become shorter meanwhile, the response is broken off.
/// TOOLB_BAD_STATE if something was written before.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_file(
    consumer: *mut toolb_consumer,
    exchange: u64,
    fd: c_int,
    offset: u64,
    length: u64,
) -> toolb_status {
    entry(|| {
        let length = (length != TOOLB_REST).then_some(length);
        let answer = |inner: &mut Inner| {
            if fd < 0 {
                let text = "a file descriptor is below 0: was its file opened?";
                return Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, text));
            }
            // SAFETY: not -1, and used during this call only. A number that is not open is an error of
            // the first system call.
            let file = unsafe { BorrowedFd::borrow_raw(fd) };
            inner.answer_file(exchange, file, offset, length)
        };
        // SAFETY: the caller's promise.
        unsafe { with(consumer, answer) }
    })
}

/// Sends `len` bytes of the response's body, and before the first of them its head; 0 bytes send the
/// head alone. On a stream it sends the bytes as they are. All bytes are taken and copied, or none:
/// TOOLB_FULL if what was written before has used the window up; then TOOLB_EVENT_WRITABLE tells when
/// to try again.
///
/// # Safety
/// As for toolb_exchange_answer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_write(
    consumer: *mut toolb_consumer,
    exchange: u64,
    data: *const c_void,
    len: usize,
) -> toolb_status {
    // SAFETY: the caller's promise.
    unsafe {
        give(consumer, data, len, |inner, data| {
            inner.write(exchange, data)
        })
    }
}

/// Ends the response; one of which nothing was written has an empty body. Of a stream, what was written
/// goes out, and then the connection ends. The exchange goes on, for work after the response, until
/// toolb_exchange_done. TOOLB_BAD_STATE if it was ended before.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_end(
    consumer: *mut toolb_consumer,
    exchange: u64,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.end(exchange)) })
}

/// Lets go of an exchange whose response was ended or whose client has gone: the request and its
/// slices end here. A response that was not ended is aborted.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_done(
    consumer: *mut toolb_consumer,
    exchange: u64,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.done(exchange)) })
}

/// Gives an exchange up and lets go of it: the engine answers 500, or breaks the response off if its
/// head was sent. A stream is reset. One that was ended stays so.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_abort(
    consumer: *mut toolb_consumer,
    exchange: u64,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.abort(exchange)) })
}

/// Asks for no more of the request's body, or of a stream, until toolb_exchange_resume; at most a
/// window of it (64 KiB by default) is on its way and still comes. Called right after
/// TOOLB_EVENT_REQUEST it also keeps a client that waits for "100 Continue" from sending its body.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_pause(
    consumer: *mut toolb_consumer,
    exchange: u64,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.pause(exchange)) })
}

/// Goes on with a request's body after toolb_exchange_pause. TOOLB_OK if it was not paused.
///
/// # Safety
/// `consumer` is a live consumer or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_resume(
    consumer: *mut toolb_consumer,
    exchange: u64,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.resume(exchange)) })
}

/// Copies the address of the exchange's client, such as "127.0.0.1", to `buffer` and its port to
/// `port`, which may be NULL; an empty text and 0 for clients of a Unix socket. `needed`, if not NULL,
/// gets the size that the text takes.
///
/// # Safety
/// `consumer` is a live consumer or NULL; `buffer` has room for `capacity` bytes; `port` and `needed`
/// may be written or are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_peer(
    consumer: *mut toolb_consumer,
    exchange: u64,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    port: *mut u16,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (host, number) = unsafe { with(consumer, |inner| inner.peer(exchange))? };
        // SAFETY: the caller's promise.
        unsafe { store(port, number) };
        // SAFETY: the caller's promise.
        unsafe { put_text(&host, buffer, capacity, needed) }
    })
}

/// Keeps a pointer with the exchange; every further event of it carries it.
///
/// # Safety
/// `consumer` is a live consumer or NULL. The pointer is not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_exchange_set_user_data(
    consumer: *mut toolb_consumer,
    exchange: u64,
    user_data: *mut c_void,
) -> toolb_status {
    // SAFETY: the caller's promise.
    entry(|| unsafe { with(consumer, |inner| inner.set_user_data(exchange, user_data)) })
}

/// Gives a consumer bytes of the caller.
///
/// # Safety
/// `consumer` is a live consumer; `data` points to `len` bytes. Each may be NULL.
unsafe fn give(
    consumer: *mut toolb_consumer,
    data: *const c_void,
    len: usize,
    take: impl FnOnce(&mut Inner, &[u8]) -> Result<(), toolb_status>,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let data = unsafe { bytes(data, len)? };
        // SAFETY: the caller's promise.
        unsafe { with(consumer, |inner| take(inner, data)) }
    })
}
