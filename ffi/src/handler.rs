//! Handlers: what C code the engine calls, and how.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use toolb_core::engine::{Context, Handler, Request, Response, Step};

use crate::context;
use crate::exchange::{toolb_request, toolb_response};
use crate::guard::{ends_whole, sized};
use crate::request::AnyRequest;
use crate::toolb_status;

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
/// An engine calls it on the loop thread of the request's connection: calls on different loops overlap,
/// and as long as it runs every other connection of its loop waits. A consumer calls it on the thread
/// of toolb_consumer_run. It must not throw or longjmp.
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
    /// For the functions of this route. Borrowed until the engine or consumer is freed; an engine uses
    /// it from all loop threads at once.
    pub user_data: *mut c_void,
    /// Makes what this route keeps on the loop number `loop_index`, for toolb_request_state. Called once
    /// on each loop's thread before its first request; it may start timers and watch descriptors.
    /// NULL: it keeps nothing. For consumers see toolb_consumer_add_route.
    pub make_state:
        Option<unsafe extern "C" fn(user_data: *mut c_void, loop_index: u32) -> *mut c_void>,
    /// Ends what `make_state` made, unless that was NULL: called once on the same thread when the
    /// loop ends, after every callback. NULL: nothing is to be ended.
    pub drop_state: Option<unsafe extern "C" fn(state: *mut c_void)>,
}

ends_whole!(toolb_route, drop_state: *const ());

impl toolb_route {
    /// One without a state.
    pub(crate) fn plain(handler: toolb_handler, user_data: *mut c_void) -> Self {
        Self {
            struct_size: size_of::<Self>(),
            handler,
            user_data,
            make_state: None,
            drop_state: None,
        }
    }
}

/// A handler with its data, as the engine and consumers call it.
pub(crate) struct CHandler {
    call: unsafe extern "C" fn(*mut c_void, *const toolb_request, *mut toolb_response) -> c_int,
    route: toolb_route,
}

// SAFETY: the documentation of `toolb_route` makes the data's owner promise that it may be used from
// all loop threads.
unsafe impl Send for CHandler {}
// SAFETY: as above.
unsafe impl Sync for CHandler {}

impl CHandler {
    /// The handler of a route of C.
    ///
    /// # Safety
    /// `route` is NULL or points to a toolb_route of the size it says.
    pub(crate) unsafe fn read(route: *const toolb_route) -> Result<Self, toolb_status> {
        let first_version = offset_of!(toolb_route, drop_state) + size_of::<*const ()>();
        // SAFETY: the caller's promise.
        let route = unsafe { sized(route, first_version)? };
        let route = route.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        let call = route.handler.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)?;
        Ok(Self { call, route })
    }

    /// Calls it: what it returned. To be done where C may be called.
    pub(crate) fn call(&self, request: &AnyRequest<'_>, response: &mut Response) -> c_int {
        let request: *const AnyRequest<'_> = request;
        let response: *mut Response = response;
        // SAFETY: both objects outlive the call, and C gets no other way to them than the functions
        // of this crate, which cast the pointers back.
        unsafe { (self.call)(self.route.user_data, request.cast(), response.cast()) }
    }

    /// Makes what the route keeps on a loop, or for a consumer. To be done where C may be called.
    pub(crate) fn make(&self, index: u32) -> Option<CState> {
        let make = self.route.make_state?;
        // SAFETY: the function of the route, with its own data.
        let pointer = unsafe { make(self.route.user_data, index) };
        (!pointer.is_null()).then(|| CState {
            pointer,
            drop: self.route.drop_state,
        })
    }
}

impl Handler for CHandler {
    fn handle(
        &self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Step {
        let request = AnyRequest::Inline(request);
        match context::enter(context, || self.call(&request, response)) {
            TOOLB_DONE => Step::Done,
            TOOLB_LATER => Step::Later,
            _ => Step::Close,
        }
    }

    fn make_state(&self, context: &mut Context<'_>) -> Option<Box<dyn Any>> {
        let index = u32::from(context.loop_index());
        let state = context::enter(context, || self.make(index))?;
        Some(Box::new(state))
    }
}

/// What a route of C keeps on a loop, or for a consumer.
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
