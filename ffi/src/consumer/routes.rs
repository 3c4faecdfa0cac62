//! Routes of a consumer: which of its handlers answers what.

use std::ffi::{c_char, c_void};

use toolb_core::engine::{Match, Router};

use super::{toolb_consumer, with};
use crate::guard::{entry, text};
use crate::handler::{CHandler, CState, toolb_handler, toolb_route};
use crate::last_error::fail;
use crate::{context, toolb_status};

/// Adds a route to a consumer, for toolb_consumer_run: methods, patterns, parameters and what is
/// answered where none matches are as for toolb_engine_route, so that a handler serves behind the bus
/// as it does in the engine. The texts are copied; `user_data` is borrowed until the consumer is freed.
/// TOOLB_BAD_ARGUMENT for a method or pattern that cannot be meant: toolb_last_error says why.
///
/// # Safety
/// `consumer` is a live consumer; the texts are NUL-terminated; `handler` is a function of that type.
/// Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_route(
    consumer: *mut toolb_consumer,
    method: *const c_char,
    pattern: *const c_char,
    handler: toolb_handler,
    user_data: *mut c_void,
) -> toolb_status {
    let route = toolb_route::plain(handler, user_data);
    // SAFETY: the caller's promise; the route is whole.
    unsafe { toolb_consumer_add_route(consumer, method, pattern, &route) }
}

/// Adds a route as toolb_consumer_route does, with all that a route can have. Its `make_state` is
/// called with 0 when toolb_consumer_run begins, and its `drop_state` before that returns, on the same
/// thread; there is no loop, and so there are no timers and watches. The struct is copied.
///
/// # Safety
/// `consumer` is a live consumer; the texts are NUL-terminated; `route` points to a toolb_route of the
/// size it says. Each may be NULL, which is answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_consumer_add_route(
    consumer: *mut toolb_consumer,
    method: *const c_char,
    pattern: *const c_char,
    route: *const toolb_route,
) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let (method, pattern, handler) =
            unsafe { (text(method)?, text(pattern)?, CHandler::read(route)?) };
        // SAFETY: the caller's promise.
        unsafe { with(consumer, |inner| inner.routes.add(method, pattern, handler)) }
    })
}

/// The handlers of a consumer by method and path pattern.
#[derive(Default)]
pub(super) struct Routes {
    /// Numbers of handlers.
    router: Router<usize>,
    handlers: Vec<CHandler>,
}

impl Routes {
    fn add(&mut self, method: &str, pattern: &str, handler: CHandler) -> Result<(), toolb_status> {
        let number = self.handlers.len();
        match self.router.insert(method, pattern, number) {
            Ok(()) => {
                self.handlers.push(handler);
                Ok(())
            }
            Err(error) => Err(fail(toolb_status::TOOLB_BAD_ARGUMENT, error)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.router.is_empty()
    }

    /// The number of the handler for a request with this method and decoded path.
    pub(super) fn find<'r, 'p>(&'r self, method: &[u8], path: &'p [u8]) -> Match<'r, 'p, usize> {
        match self.is_empty() {
            true => Match::NotFound,
            false => self.router.find_bytes(method, path),
        }
    }

    pub(super) fn handler(&self, number: usize) -> Option<&CHandler> {
        self.handlers.get(number)
    }

    /// What each handler keeps while the consumer serves.
    pub(super) fn make_states(&self) -> Vec<Option<CState>> {
        let handlers = self.handlers.iter();
        handlers
            .map(|handler| context::serve(|| handler.make(0)))
            .collect()
    }
}
