//! What a handler sees: the request, and the response it writes.

use std::ffi::{c_char, c_void};

use toolb_core::engine::Response;

use crate::guard::{bytes, entry, object, place, store, text, text_bytes};
use crate::request::AnyRequest;
use crate::toolb_status;

/// Bytes of somebody else; not NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct toolb_slice {
    /// The first byte; never NULL, but not to be read if `len` is 0.
    pub data: *const c_char,
    /// How many bytes.
    pub len: usize,
}

/// A request. A handler has it for the time of its call; one that a consumer got with an event lives
/// until its exchange is over. All slices taken from it end with it.
pub struct toolb_request {
    _opaque: [u8; 0],
}

/// The response a handler writes, lent to it for the time of its call. Content-Length, Date and
/// Connection are the engine's to add.
pub struct toolb_response {
    _opaque: [u8; 0],
}

pub(crate) const EMPTY: toolb_slice = toolb_slice {
    data: c"".as_ptr(),
    len: 0,
};

pub(crate) fn slice(bytes: &[u8]) -> toolb_slice {
    toolb_slice {
        data: bytes.as_ptr().cast(),
        len: bytes.len(),
    }
}

/// Runs an accessor; NULL gives an empty slice.
///
/// # Safety
/// `request` is NULL or points to an `AnyRequest` that lives.
unsafe fn accessor(
    request: *const toolb_request,
    part: impl for<'a> FnOnce(&'a AnyRequest<'a>) -> &'a [u8],
) -> toolb_slice {
    // SAFETY: the caller's promise; the pointer was made from an `AnyRequest`.
    match unsafe { object(request.cast::<AnyRequest<'_>>()) } {
        Ok(request) => slice(part(request)),
        Err(_) => EMPTY,
    }
}

/// The method, as sent, such as "GET". Borrows from `request`.
///
/// # Safety
/// `request` is one that lives, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_method(request: *const toolb_request) -> toolb_slice {
    // SAFETY: the caller's promise.
    unsafe { accessor(request, |request| request.method()) }
}

/// The path, percent-decoded, without the query. Borrows from `request`.
///
/// # Safety
/// `request` is one that lives, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_path(request: *const toolb_request) -> toolb_slice {
    // SAFETY: the caller's promise.
    unsafe { accessor(request, |request| request.path()) }
}

/// The query, as sent, without its question mark. Borrows from `request`.
///
/// # Safety
/// `request` is one that lives, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_query(request: *const toolb_request) -> toolb_slice {
    // SAFETY: the caller's promise.
    unsafe { accessor(request, |request| request.query()) }
}

/// The whole body; of a request that a consumer got with an event, the part that came with it.
/// Borrows from `request`.
///
/// # Safety
/// `request` is one that lives, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_body(request: *const toolb_request) -> toolb_slice {
    // SAFETY: the caller's promise.
    unsafe { accessor(request, |request| request.body()) }
}

/// Stores in `out` what the route's parameter `name` stands for: for the route "/user/{id}" and
/// the path "/user/7", "id" is "7". TOOLB_NOT_FOUND if the route has no such parameter, and for
/// requests that came as events, which have no routes.
///
/// # Safety
/// `request` is one that lives; `name` is NUL-terminated; `out` may be written. Each may be NULL,
/// which is answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_param(
    request: *const toolb_request,
    name: *const c_char,
    out: *mut toolb_slice,
) -> toolb_status {
    let find = |request: &AnyRequest<'_>, name: &str| {
        let value = request.param(name);
        value.map(|value| slice(value.as_bytes()))
    };
    // SAFETY: the caller's promise.
    unsafe { look_up(request, name, out, find) }
}

/// Stores in `out` the value of the first field called `name`, in any case. TOOLB_NOT_FOUND if
/// there is none.
///
/// # Safety
/// As for toolb_request_param.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_field(
    request: *const toolb_request,
    name: *const c_char,
    out: *mut toolb_slice,
) -> toolb_status {
    let find = |request: &AnyRequest<'_>, name: &str| request.field(name).map(slice);
    // SAFETY: the caller's promise.
    unsafe { look_up(request, name, out, find) }
}

/// How many fields the request has.
///
/// # Safety
/// `request` is one that lives, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_field_count(request: *const toolb_request) -> usize {
    // SAFETY: the caller's promise; the pointer was made from an `AnyRequest`.
    let request = unsafe { object(request.cast::<AnyRequest<'_>>()) };
    request.map_or(0, AnyRequest::field_count)
}

/// Stores in `name` and `value`, each of which may be NULL, the field number `index`, counted from 0 in
/// the order they came; one that was sent several times is there as often. Names are as sent, over the
/// bus in lower case. TOOLB_NOT_FOUND if there are not so many. Both borrow from `request`.
///
/// # Safety
/// `request` is one that lives, or NULL, which is answered by TOOLB_NULL_ARGUMENT; `name` and `value`
/// may be written or are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_field_at(
    request: *const toolb_request,
    index: usize,
    name: *mut toolb_slice,
    value: *mut toolb_slice,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise; the pointer was made from an `AnyRequest`.
        let request = unsafe { object(request.cast::<AnyRequest<'_>>())? };
        let field = request.field_at(index);
        let (its_name, its_value) = field.ok_or(toolb_status::TOOLB_NOT_FOUND)?;
        // SAFETY: the caller's promise.
        unsafe {
            store(name, slice(its_name));
            store(value, slice(its_value));
        }
        Ok(())
    })
}

/// The address of the client, such as "127.0.0.1" or "::1", and in `port`, if not NULL, its port. Empty
/// and 0 for clients of a Unix socket. Borrows from `request`.
///
/// # Safety
/// `request` is one that lives, or NULL; `port` may be written or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_peer(
    request: *const toolb_request,
    port: *mut u16,
) -> toolb_slice {
    // SAFETY: the caller's promise; the pointer was made from an `AnyRequest`.
    let request = unsafe { object(request.cast::<AnyRequest<'_>>()) };
    let peer = request.ok().and_then(AnyRequest::peer);
    // SAFETY: the caller's promise.
    unsafe { store(port, peer.map_or(0, |(_, port)| port)) };
    peer.map_or(EMPTY, |(host, _)| slice(host))
}

/// Stores what `find` finds by name.
///
/// # Safety
/// As for toolb_request_param.
unsafe fn look_up(
    request: *const toolb_request,
    name: *const c_char,
    out: *mut toolb_slice,
    find: impl FnOnce(&AnyRequest<'_>, &str) -> Option<toolb_slice>,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise; the pointer was made from an `AnyRequest`.
        let (request, name, out) = unsafe {
            (
                object(request.cast::<AnyRequest<'_>>())?,
                text(name)?,
                place(out)?,
            )
        };
        *out = find(request, name).ok_or(toolb_status::TOOLB_NOT_FOUND)?;
        Ok(())
    })
}

/// What the `make_state` of the request's route made for this loop, or for this consumer; NULL if there
/// is none, and for requests that came as events.
///
/// # Safety
/// `request` is one that lives, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_request_state(request: *const toolb_request) -> *mut c_void {
    // SAFETY: the caller's promise; the pointer was made from an `AnyRequest`.
    let request = unsafe { object(request.cast::<AnyRequest<'_>>()) };
    let state = request.ok().and_then(AnyRequest::state);
    state.unwrap_or(std::ptr::null_mut())
}

/// Sets the status code of the response; 200 when not called. One outside of 200 to 599 makes the
/// answer a 500.
///
/// # Safety
/// `response` is what the handler was called with, during that call, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_response_status(
    response: *mut toolb_response,
    status: u16,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise; the pointer was made from a `Response`.
        unsafe { place(response.cast::<Response>())? }.status(status);
        Ok(())
    })
}

/// Adds a field to the response; both texts are copied, and sent in the encoding they have. One that
/// HTTP does not allow makes the answer a 500.
///
/// # Safety
/// `response` is what the handler was called with, during that call; `name` and `value` are
/// NUL-terminated. Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_response_field(
    response: *mut toolb_response,
    name: *const c_char,
    value: *const c_char,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise; the pointer was made from a `Response`.
        let (response, name, value) = unsafe {
            (
                place(response.cast::<Response>())?,
                text_bytes(name)?,
                text_bytes(value)?,
            )
        };
        response.field(name, value);
        Ok(())
    })
}

/// Appends `len` bytes to the body of the response; they are copied.
///
/// # Safety
/// `response` is what the handler was called with, during that call; `data` points to `len` bytes.
/// Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT unless `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_response_write(
    response: *mut toolb_response,
    data: *const c_void,
    len: usize,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise; the pointer was made from a `Response`.
        let (response, data) = unsafe { (place(response.cast::<Response>())?, bytes(data, len)?) };
        response.write(data);
        Ok(())
    })
}

/// Takes back all that was set and written: a 200 without fields and body, to begin anew.
///
/// # Safety
/// `response` is what the handler was called with, during that call, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_response_clear(response: *mut toolb_response) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise; the pointer was made from a `Response`.
        unsafe { place(response.cast::<Response>())? }.clear();
        Ok(())
    })
}
