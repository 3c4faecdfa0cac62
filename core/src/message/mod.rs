//! Floor 3: what travels on the bus: request and response records and the packets of the control
//! socket. Encoding appends to a buffer of the caller; decoding works on private copies only and
//! validates everything once, so that accessors are cheap and never panic.
#![forbid(unsafe_code)]

mod control;
mod fields;
mod file;
mod request;
mod response;
mod stream;

use std::{borrow::Cow, error::Error, fmt};

pub use control::{
    Control, FEATURE_FILES, FEATURE_STREAM_TIME, FEATURE_STREAMS, Hello, MAX_CONTROL_PACKET,
    MAX_CONTROL_TEXT, Welcome, choose_abi,
};
pub use fields::Fields;
pub use file::{FileHead, encode_file_head};
pub use request::{Request, RequestHeadParts, encode_request_head};
pub use response::{EncodedHead, ResponseHead, encode_response_head};
pub use stream::{TimeUp, Wait, Want};

/// The largest payload of one record: 64 KiB without the record's own header, so that every
/// offset into it fits 16 bits.
pub const MAX_PAYLOAD: usize = 65536 - 16;

/// Bytes that are not what they claim to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecodeError(Cow<'static, str>);

impl DecodeError {
    /// An error with this text.
    pub(crate) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for DecodeError {}

/// A head, its table and its inline body do not fit one record. The buffer is as it was before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the message does not fit a record of {MAX_PAYLOAD} bytes"
        )
    }
}

impl Error for TooLong {}
