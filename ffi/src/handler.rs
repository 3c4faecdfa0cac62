//! Handlers: what C code the engine calls, and how.

use std::any::Any;
use std::ffi::{c_int, c_void};

use toolb_core::engine::{Context, Handler, Request, Response, Step};

use crate::context;
use crate::exchange::{toolb_request, toolb_response};
use crate::guard::ends_whole;
use crate::request::AnyRequest;

/// The response is complete; the connection goes on as HTTP has it.
pub const TOOLB_DONE: c_int = 0;
/// The response is complete; the connection closes after it.
pub const TOOLB_CLOSE: c_int = 1;
/// The response comes later, from the holder of the token that toolb_response_later gave.
pub const TOOLB_LATER: c_int = 2;

/// A handler: answers `request` through `response` and returns TOOLB_DONE or TOOLB_CLOSE, or takes a
/// token by toolb_response_later and returns TOOLB_LATER. Any other number closes the connection,
/// too; a token and another number than TOOLB_LATER, or the other way round, is answered by a 500.
///
/// It is called on the loop thread of the request's connection: calls on different loops overlap,
/// and as long as it runs every other connection of its loop waits. It must not throw or longjmp.
pub type toolb_handler = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        request: *const toolb_request,
        response: *mut toolb_response,
    ) -> c_int,
>;

/// A route with all it can have. Set `struct_size` first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct toolb_route {
    /// `sizeof(toolb_route)`.
    pub struct_size: usize,
    /// Answers the requests.
    pub handler: toolb_handler,
    /// For the functions of this route. Borrowed until the engine is freed and used from all loop
    /// threads at once.
    pub user_data: *mut c_void,
    /// Makes what this route keeps on the loop number `loop_index`, for toolb_request_state. Called once
    /// on each loop's thread before its first request; it may start timers and watch descriptors.
    /// NULL: it keeps nothing.
    pub make_state:
        Option<unsafe extern "C" fn(user_data: *mut c_void, loop_index: u32) -> *mut c_void>,
    /// Ends what `make_state` made, unless that was NULL: called once on the same thread when the
    /// loop ends, after every callback. NULL: nothing is to be ended.
    pub drop_state: Option<unsafe extern "C" fn(state: *mut c_void)>,
}

ends_whole!(toolb_route, drop_state: *const ());

/// A handler with its data, as the engine calls it.
pub(crate) struct CHandler {
    pub(crate) call:
        unsafe extern "C" fn(*mut c_void, *const toolb_request, *mut toolb_response) -> c_int,
    pub(crate) route: toolb_route,
}

// SAFETY: the documentation of `toolb_route` makes the data's owner promise that it may be used from
// all loop threads.
unsafe impl Send for CHandler {}
// SAFETY: as above.
unsafe impl Sync for CHandler {}

impl Handler for CHandler {
    fn handle(
        &self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Step {
        let request = AnyRequest::Inline(request);
        let request: *const AnyRequest<'_> = &request;
        let response: *mut Response = response;
        // SAFETY: both objects outlive the call, and C gets no other way to them than the functions
        // of this crate, which cast the pointers back.
        let step = context::enter(context, || unsafe {
            (self.call)(self.route.user_data, request.cast(), response.cast())
        });
        match step {
            TOOLB_DONE => Step::Done,
            TOOLB_LATER => Step::Later,
            _ => Step::Close,
        }
    }

    fn make_state(&self, context: &mut Context<'_>) -> Option<Box<dyn Any>> {
        let make = self.route.make_state?;
        let index = u32::from(context.loop_index());
        // SAFETY: the function of the route, with its own data.
        let pointer = context::enter(context, || unsafe { make(self.route.user_data, index) });
        (!pointer.is_null()).then(|| {
            Box::new(CState {
                pointer,
                drop: self.route.drop_state,
            }) as Box<dyn Any>
        })
    }
}

/// What a route of C keeps on a loop.
pub(crate) struct CState {
    pub(crate) pointer: *mut c_void,
    drop: Option<unsafe extern "C" fn(*mut c_void)>,
}

impl Drop for CState {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the function is meant for this pointer, and this happens once.
            unsafe { drop(self.pointer) };
        }
    }
}
