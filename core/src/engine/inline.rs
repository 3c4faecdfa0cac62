//! Handlers that run on a loop thread.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::http::{Head, Span};
use crate::route::Params;

use super::context::Context;
use super::token::{Desk, Outbox, Token};

/// What becomes of the connection after a handler's response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The response is complete; the connection goes on as HTTP has it.
    Done,
    /// The response is complete; close the connection after it.
    Close,
    /// The response comes later, from the holder of the token that [`Response::later`] gave.
    Later,
}

/// Application code that runs inline, on whichever loop the connection belongs to.
///
/// Calls on different loops overlap. A handler must not block: every connection of its loop waits
/// while it runs.
pub trait Handler: Send + Sync {
    /// Answers one request, whose body has arrived as a whole. `context` is the loop it runs on.
    fn handle(
        &self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Step;

    /// Makes what the handler keeps on a loop, for [`Request::state`]: called once for each loop, on
    /// its thread, before its first request. It is dropped on that thread when the loop ends, after
    /// every callback.
    fn make_state(&self, context: &mut Context<'_>) -> Option<Box<dyn Any>> {
        let _ = context;
        None
    }
}

/// A function that needs nothing but the request.
impl<F: Fn(&Request<'_>, &mut Response) -> Step + Send + Sync> Handler for F {
    fn handle(&self, _: &mut Context<'_>, request: &Request<'_>, response: &mut Response) -> Step {
        self(request, response)
    }
}

/// Makes a handler of a function that needs the loop, too.
#[derive(Clone, Copy, Debug)]
pub struct WithContext<F>(pub F);

impl<F> Handler for WithContext<F>
where
    F: Fn(&mut Context<'_>, &Request<'_>, &mut Response) -> Step + Send + Sync,
{
    fn handle(
        &self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        response: &mut Response,
    ) -> Step {
        self.0(context, request, response)
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
    pub(super) state: Option<&'a dyn Any>,
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
    pub fn fields(&self) -> Fields<'a> {
        Fields {
            input: self.input,
            spans: self.head.fields.iter(),
        }
    }

    /// The whole body.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// What the handler's [`Handler::make_state`] made for this loop.
    pub fn state<T: 'static>(&self) -> Option<&'a T> {
        self.state?.downcast_ref()
    }

    /// The client's address and port; `None` on a Unix socket.
    pub fn peer(&self) -> Option<(&'a str, u16)> {
        self.peer
    }
}

/// The fields of a request, in the order they came: names and values.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    input: &'a [u8],
    spans: std::slice::Iter<'a, (Span, Span)>,
}

impl<'a> Fields<'a> {
    fn of(&self, (name, value): &(Span, Span)) -> (&'a [u8], &'a [u8]) {
        (name.of(self.input), value.of(self.input))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let spans = self.spans.next()?;
        Some(self.of(spans))
    }

    fn nth(&mut self, index: usize) -> Option<Self::Item> {
        let spans = self.spans.nth(index)?;
        Some(self.of(spans))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.spans.size_hint()
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// The response a handler writes. The engine adds framing, `Date` and `Connection`.
#[derive(Debug, Default)]
pub struct Response {
    pub(super) draft: Draft,
    /// The connection or exchange it is for.
    pub(super) key: u64,
    /// Where the holder of its token leaves word, and how much of a response may wait there.
    home: Option<Home>,
    /// Given away to the holder of a token.
    pub(super) outbox: Option<Arc<Outbox>>,
}

impl Response {
    /// Sets the status code; 200 when not called.
    pub fn status(&mut self, status: u16) {
        self.draft.status = status;
    }

    /// Adds a field. One that HTTP does not allow makes the answer a 500 in place of this one.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.draft.field(name, value);
    }

    /// Appends to the body.
    pub fn write(&mut self, bytes: &[u8]) {
        self.draft.body.extend_from_slice(bytes);
    }

    /// Gives the right to answer away, with what has been written so far: the handler then returns
    /// [`Step::Later`]. Whatever is written here afterwards is lost. Of several tokens only the
    /// first is good for anything; the others are `Gone` from the start.
    pub fn later(&mut self) -> Token {
        let draft = std::mem::take(&mut self.draft);
        let (desk, window) = match &self.home {
            Some(home) if self.outbox.is_none() => (Some(home.desk.clone()), home.window),
            _ => (None, 0),
        };
        let outbox = Arc::new(Outbox::new(self.key, window, desk, draft));
        if self.outbox.is_none() {
            self.outbox = Some(outbox.clone());
        }
        Token::new(outbox)
    }

    /// Status, fields and body as written so far, for who carries them elsewhere than to a loop's own
    /// output.
    pub fn parts(&self) -> (u16, impl Iterator<Item = (&[u8], &[u8])> + Clone, &[u8]) {
        (self.draft.status, self.draft.fields(), &self.draft.body)
    }

    /// Begins anew: a 200 without fields and body.
    #[inline]
    pub fn clear(&mut self) {
        self.draft.status = 200;
        self.draft.text.clear();
        self.draft.fields.clear();
        self.draft.body.clear();
    }

    /// Keeps no more memory than the next response is likely to want.
    #[inline]
    pub fn shrink(&mut self) {
        if self.draft.body.capacity() > MOST_KEPT {
            self.draft.body = Vec::new();
        }
    }

    /// What `later` has given a token for, for who carries the answer.
    pub fn take_outbox(&mut self) -> Option<Arc<Outbox>> {
        self.outbox.take()
    }

    /// Whether `later` would give a token that is good for something: somebody hears of what is done
    /// with it, and it is the first one.
    pub fn can_answer_later(&self) -> bool {
        self.outbox.is_none() && self.home.is_some()
    }

    /// One to be used again and again; the holders of its tokens leave word at `desk`, and may write
    /// so many bytes ahead.
    pub fn at(desk: Arc<dyn Desk>, window: usize) -> Self {
        Self {
            home: Some(Home { desk, window }),
            ..Self::default()
        }
    }

    /// For the next request, on the connection or exchange `key`.
    #[inline]
    pub fn reset(&mut self, key: u64) {
        self.key = key;
        self.clear();
    }
}

/// Where the holders of tokens leave word.
struct Home {
    desk: Arc<dyn Desk>,
    window: usize,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").finish_non_exhaustive()
    }
}

/// The memory for bodies that is kept from one response to the next.
const MOST_KEPT: usize = 64 * 1024;

/// A response as far as it has been written.
#[derive(Debug)]
pub struct Draft {
    /// The status code.
    pub status: u16,
    text: Vec<u8>,
    fields: Vec<(Span, Span)>,
    /// The body, or the part of it that is still to be sent.
    pub body: Vec<u8>,
}

impl Draft {
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        let name = self.keep(name);
        let value = self.keep(value);
        self.fields.push((name, value));
    }

    /// Names and values of its fields.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let text = &self.text;
        let fields = self.fields.iter();
        fields.map(|(name, value)| (name.of(text), value.of(text)))
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

impl Default for Draft {
    fn default() -> Self {
        Self {
            status: 200,
            text: Vec::new(),
            fields: Vec::new(),
            body: Vec::new(),
        }
    }
}
