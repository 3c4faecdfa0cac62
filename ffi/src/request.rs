//! What stands behind a `toolb_request`, wherever it came from.

use std::ffi::c_void;

use toolb_core::consumer;
use toolb_core::engine::{self, Params};

use crate::handler::CState;

/// A request as C sees it. Pointers to `toolb_request` point to one of these.
pub(crate) enum AnyRequest<'a> {
    /// Lent to an inline handler for the time of a call.
    Inline(&'a engine::Request<'a>),
    /// Came over the bus; kept by its consumer until the exchange is over.
    Bus(BusRequest),
    /// Came over the bus, and is lent to a handler for the time of a call.
    Served(ServedRequest<'a>),
    /// None any more: its exchange is over.
    Over,
}

/// A request that came over the bus.
pub(crate) struct BusRequest {
    pub(crate) head: consumer::Request,
    /// The whole body, if it came in parts and was collected.
    pub(crate) collected: Option<Vec<u8>>,
}

/// A request that came over the bus, with what the handler of its route has of it.
pub(crate) struct ServedRequest<'a> {
    pub(crate) request: &'a BusRequest,
    /// `None` if it has no route.
    pub(crate) params: Option<&'a Params<'a, 'a>>,
    pub(crate) state: Option<*mut c_void>,
}

impl BusRequest {
    fn body(&self) -> &[u8] {
        match &self.collected {
            Some(body) => body,
            None => self.head.body(),
        }
    }
}

impl AnyRequest<'_> {
    pub(crate) fn method(&self) -> &[u8] {
        match self.origin() {
            Origin::Inline(request) => request.method(),
            Origin::Bus(request) => request.head.method(),
            Origin::None => b"",
        }
    }

    pub(crate) fn path(&self) -> &[u8] {
        match self.origin() {
            Origin::Inline(request) => request.path(),
            Origin::Bus(request) => request.head.path(),
            Origin::None => b"",
        }
    }

    pub(crate) fn query(&self) -> &[u8] {
        match self.origin() {
            Origin::Inline(request) => request.query(),
            Origin::Bus(request) => request.head.query(),
            Origin::None => b"",
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        match self.origin() {
            Origin::Inline(request) => request.body(),
            Origin::Bus(request) => request.body(),
            Origin::None => b"",
        }
    }

    /// What the parameter of its route stands for; a request that comes as an event has no route.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        match self {
            Self::Inline(request) => request.param(name),
            Self::Served(served) => served.params?.get(name),
            Self::Bus(_) | Self::Over => None,
        }
    }

    /// What its route keeps on this loop, or for this consumer.
    pub(crate) fn state(&self) -> Option<*mut c_void> {
        match self {
            Self::Inline(request) => request.state::<CState>().map(|state| state.pointer),
            Self::Served(served) => served.state,
            Self::Bus(_) | Self::Over => None,
        }
    }

    /// The value of the first field of this name, in any case.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        (0..)
            .map_while(|index| self.field_at(index))
            .find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Name and value of the field number `index`, in the order they came.
    pub(crate) fn field_at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match self.origin() {
            Origin::Inline(request) => request.fields().nth(index),
            Origin::Bus(request) => request.head.fields().nth(index),
            Origin::None => None,
        }
    }

    pub(crate) fn field_count(&self) -> usize {
        match self.origin() {
            Origin::Inline(request) => request.fields().len(),
            Origin::Bus(request) => request.head.field_count(),
            Origin::None => 0,
        }
    }

    /// The client's address and port; none for a Unix socket.
    pub(crate) fn peer(&self) -> Option<(&[u8], u16)> {
        match self.origin() {
            Origin::Inline(request) => request.peer().map(|(host, port)| (host.as_bytes(), port)),
            Origin::Bus(request) => request.head.peer(),
            Origin::None => None,
        }
    }

    fn origin(&self) -> Origin<'_> {
        match self {
            Self::Inline(request) => Origin::Inline(request),
            Self::Bus(request) => Origin::Bus(request),
            Self::Served(served) => Origin::Bus(served.request),
            Self::Over => Origin::None,
        }
    }
}

/// Where a request came from.
enum Origin<'a> {
    Bus(&'a BusRequest),
    Inline(&'a engine::Request<'a>),
    None,
}
