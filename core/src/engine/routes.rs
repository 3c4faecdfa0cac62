//! Which requests the engine answers and how.

use std::any::Any;
use std::sync::Arc;

use crate::route::{Match, Params, RouteError, Router};

use super::inline::Handler;

/// Which requests the engine answers and how.
#[derive(Default)]
pub struct Routes {
    /// Inline handlers by method and path pattern.
    pub inline: InlineRoutes,
    /// Whether what no inline handler matches goes to the pool; a 404 otherwise.
    pub pool: bool,
}

/// Inline handlers by method and path pattern.
#[derive(Default)]
pub struct InlineRoutes {
    router: Router<Route>,
    /// Each handler once, however many routes it has.
    handlers: Vec<Arc<dyn Handler>>,
}

impl InlineRoutes {
    /// Adds a route; see [`Router::insert`] for methods and patterns. One handler may have several
    /// routes, which then share its state.
    pub fn insert(
        &mut self,
        method: &str,
        pattern: &str,
        handler: Arc<dyn Handler>,
    ) -> Result<(), RouteError> {
        let same =
            |known: &Arc<dyn Handler>| std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(&handler));
        let known = self.handlers.iter().position(same);
        let state = known.unwrap_or(self.handlers.len());
        let route = Route {
            handler: handler.clone(),
            state,
        };
        self.router.insert(method, pattern, route)?;
        if known.is_none() {
            self.handlers.push(handler);
        }
        Ok(())
    }

    /// Whether there are no routes.
    pub fn is_empty(&self) -> bool {
        self.router.is_empty()
    }

    /// The state of each handler for one loop. To be called on its thread.
    pub(super) fn make_states(&self, loop_index: u16) -> Vec<Option<Box<dyn Any>>> {
        let handlers = self.handlers.iter();
        handlers
            .map(|handler| handler.make_state(loop_index))
            .collect()
    }
}

/// An inline handler, and the place of its state.
pub(super) struct Route {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) state: usize,
}

/// Who answers a request.
pub(super) enum Target<'r, 'p> {
    Handler(&'r Route, Params<'r, 'p>),
    Pool,
    Refusal(Refusal),
}

/// What a request gets that nobody is there for.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) text: &'static str,
    pub(super) allow: Option<String>,
}

impl Routes {
    /// Who answers a request with this method and decoded path.
    #[inline]
    pub(super) fn target<'r, 'p>(&'r self, method: &[u8], path: &'p [u8]) -> Target<'r, 'p> {
        let refusal = |status, text, allow| match self.pool {
            true => Target::Pool,
            false => Target::Refusal(Refusal {
                status,
                text,
                allow,
            }),
        };
        let Ok(path) = std::str::from_utf8(path) else {
            return refusal(400, "the path is not UTF-8\n", None);
        };
        match self.inline.router.find(method, path) {
            Match::Found(route, params) => Target::Handler(route, params),
            Match::MethodNotAllowed { allow } => refusal(405, "Method Not Allowed\n", Some(allow)),
            Match::NotFound => refusal(404, "Not Found\n", None),
        }
    }
}
