//! From a parsed head to the record a consumer gets.

use crate::config::EngineConfig;
use crate::http::{Head, Version, decode_path};
use crate::message::{MAX_PAYLOAD, RequestHeadParts, TooLong, encode_request_head};

/// What a request's record says besides the request.
pub(super) struct Surroundings<'a> {
    pub(super) peer: Option<(&'a str, u16)>,
    pub(super) server: &'a (String, u16),
    pub(super) deadline: u64,
    pub(super) wants_continue: bool,
    pub(super) body: &'a [u8],
    pub(super) config: &'a EngineConfig,
}

/// How much of a body fits the record of `head`, at most `most`.
pub(super) fn body_room(head: &Head, most: usize) -> usize {
    // The decoded path travels beside the head; the rest is the fixed part and the addresses.
    let fixed = 2 * head.len + 16 * head.fields.len() + 1024;
    MAX_PAYLOAD.saturating_sub(fixed).min(most)
}

/// Appends the payload of a REQ_HEAD record for `head`, whose spans index `input`, to `record`.
pub(super) fn request(
    record: &mut Vec<u8>,
    head: &Head,
    input: &[u8],
    around: &Surroundings<'_>,
    path: &mut Vec<u8>,
) -> Result<(), TooLong> {
    let decoded = decoded_path(head, input, path);
    let (peer, peer_port) = around.peer.unwrap_or(("", 0));
    let parts = RequestHeadParts {
        deadline: around.deadline,
        request_window: around.config.request_window,
        response_window: around.config.response_window,
        version: match head.version {
            Version::Http10 => 10,
            Version::Http11 => 11,
        },
        scheme: 0,
        expect_continue: around.wants_continue,
        method: head.method.of(input),
        target: head.target.of(input),
        raw_path: head.raw_path.of(input),
        path: decoded,
        query: head.query.of(input),
        authority: head.authority.of(input),
        root_path: b"",
        peer: peer.as_bytes(),
        peer_port,
        server: around.server.0.as_bytes(),
        server_port: around.server.1,
        body: around.body,
    };
    let fields = head.fields.iter();
    let fields = fields.map(|(name, value)| (name.of(input), value.of(input)));
    encode_request_head(record, &parts, fields)
}

/// The path of `head` with its escapes decoded, by means of `buffer` if there are any.
#[inline]
pub(super) fn decoded_path<'a>(head: &Head, input: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    let raw = head.raw_path.of(input);
    if !head.has_escape {
        return raw;
    }
    buffer.clear();
    decode_path(raw, buffer);
    buffer
}
