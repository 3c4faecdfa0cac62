//! Handlers that run on a loop thread.

use crate::http::{Head, Span};
use crate::route::Params;

/// What becomes of the connection after a handler's response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The response is complete; the connection goes on as HTTP has it.
    Done,
    /// The response is complete; close the connection after it.
    Close,
}

/// Application code that runs inline, on whichever loop the connection belongs to.
///
/// Calls on different loops overlap. A handler must not block: every connection of its loop waits
/// while it runs.
pub trait Handler: Send + Sync {
    /// Answers one request, whose body has arrived as a whole.
    fn handle(&self, request: &Request<'_>, response: &mut Response) -> Step;
}

impl<F: Fn(&Request<'_>, &mut Response) -> Step + Send + Sync> Handler for F {
    fn handle(&self, request: &Request<'_>, response: &mut Response) -> Step {
        self(request, response)
    }
}

/// A request, borrowed for the time of a handler's call.
#[derive(Debug)]
pub struct Request<'a> {
    pub(super) input: &'a [u8],
    pub(super) head: &'a Head,
    pub(super) path: &'a [u8],
    pub(super) params: &'a Params<'a, 'a>,
    pub(super) body: &'a [u8],
    pub(super) peer: Option<(&'a str, u16)>,
}

impl<'a> Request<'a> {
    /// The method, as sent.
    pub fn method(&self) -> &'a [u8] {
        self.head.method.of(self.input)
    }

    /// The path, percent-decoded, without the query.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// The query, as sent, without its question mark.
    pub fn query(&self) -> &'a [u8] {
        self.head.query.of(self.input)
    }

    /// What the route's parameter `name` stands for in this path.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)
    }

    /// The first field called `name`, in any case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields()
            .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// All fields in the order they came, names as sent.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let input = self.input;
        let of = move |span: &Span| span.of(input);
        self.head
            .fields
            .iter()
            .map(move |(name, value)| (of(name), of(value)))
    }

    /// The whole body.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The client's address and port; `None` on a Unix socket.
    pub fn peer(&self) -> Option<(&'a str, u16)> {
        self.peer
    }
}

/// The response a handler writes. The engine adds framing, `Date` and `Connection`.
#[derive(Debug, Default)]
pub struct Response {
    pub(super) status: u16,
    pub(super) text: Vec<u8>,
    pub(super) fields: Vec<(Span, Span)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// Sets the status code; 200 when not called.
    pub fn status(&mut self, status: u16) {
        self.status = status;
    }

    /// Adds a field. One that HTTP does not allow makes the answer a 500 in place of this one.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        let name = self.keep(name);
        let value = self.keep(value);
        self.fields.push((name, value));
    }

    /// Appends to the body.
    pub fn write(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    /// Status, fields and body as written so far, for who carries them elsewhere than to a loop's own
    /// output.
    pub fn parts(&self) -> (u16, impl Iterator<Item = (&[u8], &[u8])> + Clone, &[u8]) {
        let of = |span: &Span| span.of(&self.text);
        let fields = self.fields.iter();
        let fields = fields.map(move |(name, value)| (of(name), of(value)));
        (self.status, fields, &self.body)
    }

    /// Begins anew: a 200 without fields and body.
    pub fn reset(&mut self) {
        self.status = 200;
        self.text.clear();
        self.fields.clear();
        self.body.clear();
    }

    fn keep(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        Span {
            start,
            len: bytes.len() as u32,
        }
    }
}
