//! Floor 2: sans-I/O HTTP/1.1 (RFC 9112). Bytes in, events out; knows no socket.
//!
//! What is ambiguous is refused, never repaired: a message that two servers can read in two ways is
//! how requests are smuggled past one of them.
#![forbid(unsafe_code)]

mod body;
mod path;
mod request;
mod response;

pub use crate::config::Limits;
pub use body::{BodyReader, BodyStep};
pub use path::decode_path;
pub use request::{BodyFraming, Head, Reject, Span, Version};
pub use response::{
    BodyError, BodyLength, Extras, HeadError, ResponseFacts, ResponseWriter, reason_phrase,
    simple_response,
};
