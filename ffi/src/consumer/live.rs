//! What is kept of an exchange for as long as the program holds it.

use std::ffi::c_void;
use std::ops::Deref;
use std::ptr;

use toolb_core::consumer::ExchangeId;

use super::later::GivenAway;
use crate::exchange::toolb_request;
use crate::request::{AnyRequest, BusRequest};

/// An exchange, by slot. Free if its generation is 0.
pub(super) struct Live {
    pub(super) generation: u32,
    pub(super) request: Lent,
    pub(super) head: Head,
    /// It is a raw connection.
    pub(super) is_stream: bool,
    /// The head of the response has been handed over.
    pub(super) head_sent: bool,
    /// The program has ended the response.
    pub(super) ended: bool,
    /// The client has gone.
    pub(super) gone: bool,
    /// The window is used up: no more is taken until there is room.
    pub(super) full: bool,
    /// The program was told so, and is to be told when it is over.
    pub(super) told_full: bool,
    /// More of the request's body is to come.
    pub(super) more_body: bool,
    /// No more of the body is to be asked for.
    pub(super) paused: bool,
    /// Body bytes that are used up and of which the engine was not told while paused.
    pub(super) unacknowledged: usize,
    pub(super) user_data: *mut c_void,
    /// The holder of a token answers.
    pub(super) given_away: Option<GivenAway>,
}

impl Live {
    pub(super) fn free() -> Self {
        Self {
            generation: 0,
            request: Lent::default(),
            head: Head::default(),
            is_stream: false,
            head_sent: false,
            ended: false,
            gone: false,
            full: false,
            told_full: false,
            more_body: false,
            paused: false,
            unacknowledged: 0,
            user_data: ptr::null_mut(),
            given_away: None,
        }
    }

    /// A new exchange takes the slot.
    pub(super) fn begin(&mut self, generation: u32, request: BusRequest, more_body: bool) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let is_stream = request.head.is_stream();
        *self = Self {
            generation,
            is_stream,
            // A stream has none.
            head_sent: is_stream,
            request: std::mem::take(&mut self.request).of(AnyRequest::Bus(request)),
            head,
            more_body,
            ..Self::free()
        };
    }

    /// The exchange is over. Gives its request back.
    pub(super) fn end(&mut self) -> Option<BusRequest> {
        self.generation = 0;
        self.given_away = None;
        self.end_request()
    }

    /// The request is over, and the exchange goes on. Gives the request back.
    pub(super) fn end_request(&mut self) -> Option<BusRequest> {
        match self.request.take_back() {
            AnyRequest::Bus(request) => Some(request),
            _ => None,
        }
    }

    /// The request as C names it. It stays where it is for as long as the consumer lives.
    pub(super) fn request(&self) -> *const toolb_request {
        self.request.0.cast_const().cast()
    }
}

/// A request in a place of its own, to which C has a pointer: that is the one which all references
/// are made from, so that none of them makes it invalid. NULL until there was a request.
pub(super) struct Lent(*mut AnyRequest<'static>);

impl Lent {
    /// The same place with a request.
    fn of(mut self, request: AnyRequest<'static>) -> Self {
        match self.get_mut() {
            Some(place) => *place = request,
            None => self.0 = Box::into_raw(Box::new(request)),
        }
        self
    }

    fn take_back(&mut self) -> AnyRequest<'static> {
        match self.get_mut() {
            Some(place) => std::mem::replace(place, AnyRequest::Over),
            None => AnyRequest::Over,
        }
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut AnyRequest<'static>> {
        // SAFETY: it came from `Box::into_raw`. C reads it only in calls of its own, and this is one.
        unsafe { self.0.as_mut() }
    }
}

impl Default for Lent {
    fn default() -> Self {
        Self(ptr::null_mut())
    }
}

impl Deref for Lent {
    type Target = AnyRequest<'static>;

    fn deref(&self) -> &Self::Target {
        const OVER: &AnyRequest<'static> = &AnyRequest::Over;
        // SAFETY: it came from `Box::into_raw`; it is changed by `&mut self` only.
        unsafe { self.0.as_ref() }.unwrap_or(OVER)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it came from `Box::into_raw` and is freed once.
            drop(unsafe { Box::from_raw(self.0) });
        }
    }
}

/// Status and fields of a response, until they are sent.
#[derive(Default)]
pub(super) struct Head {
    status: Option<u16>,
    text: Vec<u8>,
    /// Where in `text` each name begins, each value begins, and each value ends.
    fields: Vec<[usize; 3]>,
}

impl Head {
    pub(super) fn set_status(&mut self, status: u16) {
        self.status = Some(status);
    }

    pub(super) fn add_field(&mut self, name: &[u8], value: &[u8]) {
        let name_at = self.text.len();
        self.text.extend_from_slice(name);
        let value_at = self.text.len();
        self.text.extend_from_slice(value);
        self.fields.push([name_at, value_at, self.text.len()]);
    }

    pub(super) fn status(&self) -> u16 {
        self.status.unwrap_or(200)
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let text = &self.text;
        let field = move |&[name, value, end]: &[usize; 3]| (&text[name..value], &text[value..end]);
        self.fields.iter().map(field)
    }

    fn clear(&mut self) {
        self.status = None;
        self.fields.clear();
        self.text.clear();
        // A head of unusual size need not be kept for ever.
        self.text.shrink_to(4096);
    }
}

/// The number by which C knows an exchange; never 0, as generations are not.
pub(super) fn number(id: ExchangeId) -> u64 {
    u64::from(id.generation) << 16 | u64::from(id.slot)
}

/// The exchange with that number, if there can be one.
pub(super) fn id_of(number: u64) -> Option<ExchangeId> {
    let generation = u32::try_from(number >> 16).ok().filter(|it| *it != 0)?;
    let slot = (number & 0xFFFF) as u16;
    Some(ExchangeId { slot, generation })
}
