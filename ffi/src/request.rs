//! What stands behind a `toolb_request`, wherever it came from.

use toolb_core::consumer;
use toolb_core::engine;

/// A request as C sees it. Pointers to `toolb_request` point to one of these.
pub(crate) enum AnyRequest<'a> {
    /// Lent to an inline handler for the time of a call.
    Inline(&'a engine::Request<'a>),
    /// Came over the bus; kept by its consumer until the exchange is over.
    Bus(BusRequest),
    /// None any more: its exchange is over.
    Over,
}

/// A request that came over the bus.
pub(crate) struct BusRequest {
    pub(crate) head: consumer::Request,
    /// The whole body, if it came in parts and was collected.
    pub(crate) collected: Option<Vec<u8>>,
}

impl AnyRequest<'_> {
    pub(crate) fn method(&self) -> &[u8] {
        match self {
            Self::Inline(request) => request.method(),
            Self::Bus(request) => request.head.method(),
            Self::Over => b"",
        }
    }

    pub(crate) fn path(&self) -> &[u8] {
        match self {
            Self::Inline(request) => request.path(),
            Self::Bus(request) => request.head.path(),
            Self::Over => b"",
        }
    }

    pub(crate) fn query(&self) -> &[u8] {
        match self {
            Self::Inline(request) => request.query(),
            Self::Bus(request) => request.head.query(),
            Self::Over => b"",
        }
    }

    pub(crate) fn body(&self) -> &[u8] {
        match self {
            Self::Inline(request) => request.body(),
            Self::Bus(request) => match &request.collected {
                Some(body) => body,
                None => request.head.body(),
            },
            Self::Over => b"",
        }
    }

    /// Routes, and with them parameters, are the engine's: a request over the bus has none.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        match self {
            Self::Inline(request) => request.param(name),
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
        match self {
            Self::Inline(request) => request.fields().nth(index),
            Self::Bus(request) => request.head.fields().nth(index),
            Self::Over => None,
        }
    }

    pub(crate) fn field_count(&self) -> usize {
        match self {
            Self::Inline(request) => request.fields().len(),
            Self::Bus(request) => request.head.field_count(),
            Self::Over => 0,
        }
    }

    /// The client's address and port; none for a Unix socket.
    pub(crate) fn peer(&self) -> Option<(&[u8], u16)> {
        match self {
            Self::Inline(request) => request.peer().map(|(host, port)| (host.as_bytes(), port)),
            Self::Bus(request) => request.head.peer(),
            Self::Over => None,
        }
    }
}
