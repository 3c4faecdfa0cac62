//! Floor 2: sans-I/O HTTP/1.1. Knows no socket.
//!
//! Bytes go in and a [`Head`] and body steps come out; fields and body go in and bytes come out.
//! What two parties could read in two ways is refused, never repaired: a [`Reject`] is answered
//! with its status and `Connection: close`.
#![forbid(unsafe_code)]

mod body;
mod path;
mod request;
mod response;
mod status;
mod syntax;

pub use crate::config::Limits;
pub use body::{BodyReader, BodyStep};
pub use path::decode_path;
pub use request::{BodyFraming, Head, Reject, Span, Version};
pub use response::{
    BodyError, BodyLength, Extras, HeadError, ResponseFacts, ResponseWriter, simple_response,
};
pub use status::reason_phrase;
