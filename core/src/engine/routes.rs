//! Which requests the engine answers and how.

use std::any::Any;
use std::sync::Arc;

use crate::route::{Match, RouteError, Router};

use super::context::Context;
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
    pub(super) fn make_states(&self, context: &mut Context<'_>) -> Vec<Option<Box<dyn Any>>> {
        let handlers = self.handlers.iter();
        handlers
            .map(|handler| handler.make_state(context))
            .collect()
    }
}

/// An inline handler, and the place of its state.
pub(super) struct Route {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) state: usize,
}

/// What a request gets that nobody is there for.
#[derive(Debug)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// The body, which is plain text.
    pub text: &'static str,
    /// The Allow field.
    pub allow: Option<String>,
}

impl Refusal {
    /// For a request with this decoded path, of which a router has found nothing.
    #[cold]
    pub fn of<T>(found: Match<'_, '_, T>, path: &[u8]) -> Self {
        let (status, text, allow) = match found {
            Match::MethodNotAllowed { allow } => (405, "Method Not Allowed\n", Some(allow)),
            _ if std::str::from_utf8(path).is_err() => (400, "the path is not UTF-8\n", None),
            _ => (404, "Not Found\n", None),
        };
        Self {
            status,
            text,
            allow,
        }
    }
}

impl Routes {
    /// The inline handler for a request with this method and decoded path.
    #[inline]
    pub(super) fn find<'r, 'p>(&'r self, method: &[u8], path: &'p [u8]) -> Match<'r, 'p, Route> {
        self.inline.router.find_bytes(method, path)
    }

    /// What becomes of a request that `find` found no handler for; `None`: it is for the pool.
    #[cold]
    pub(super) fn refusal(&self, found: Match<'_, '_, Route>, path: &[u8]) -> Option<Refusal> {
        (!self.pool).then(|| Refusal::of(found, path))
    }
}
