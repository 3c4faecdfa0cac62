//! What the fields say together of the host, the body and the connection. Here requests are refused
//! that two parties could take for different ones.
#![forbid(unsafe_code)]

use crate::config::Limits;

use super::super::syntax::{decimal, is_authority, is_token, list, trim};
use super::{BodyFraming, Head, Reject, Span, Version};

impl Head {
    /// Decides what the fields mean together, and refuses those that contradict each other.
    pub(super) fn conclude(
        &mut self,
        buf: &[u8],
        facts: &Facts,
        limits: &Limits,
    ) -> Result<(), Reject> {
        match facts.host {
            Some(host) => {
                let value = host.of(buf);
                if !value.is_empty() && !is_authority(value) {
                    return Err(Reject::new(400, "the Host field is malformed"));
                }
                match self.authority.len {
                    0 => self.authority = host,
                    _ => self.replace_host(buf),
                }
            }
            None if self.version == Version::Http11 => {
                return Err(Reject::new(400, "the Host field is missing"));
            }
            None => {}
        }

        self.framing = match (facts.transfer_encoding, facts.content_length) {
            (Codings::Absent, None | Some(0)) => BodyFraming::None,
            (Codings::Absent, Some(length)) => {
                if limits.body != 0 && length > limits.body {
                    return Err(Reject::new(413, "the request body is too long"));
                }
                BodyFraming::Length(length)
            }
            (_, Some(_)) => {
                return Err(Reject::new(
                    400,
                    "Content-Length and Transfer-Encoding exclude each other",
                ));
            }
            _ if self.version == Version::Http10 => {
                return Err(Reject::new(400, "HTTP/1.0 has no Transfer-Encoding"));
            }
            (Codings::Chunked, None) => BodyFraming::Chunked,
            (Codings::UnknownThenChunked, None) => {
                return Err(Reject::new(
                    501,
                    "the only transfer coding known is chunked",
                ));
            }
            (Codings::Unknown, None) => {
                return Err(Reject::new(400, "the last transfer coding is not chunked"));
            }
        };

        self.keep_alive = match self.version {
            Version::Http11 => !facts.close,
            Version::Http10 => facts.keep_alive && !facts.close,
        };
        if self.version == Version::Http11 {
            if facts.unknown_expectation {
                return Err(Reject::new(
                    417,
                    "the only expectation known is 100-continue",
                ));
            }
            self.expect_continue = facts.expect_continue && self.framing != BodyFraming::None;
        }
        Ok(())
    }

    /// An absolute target decides; what Host says then is ignored (RFC 9112, 3.2.2). Whoever looks
    /// at the fields only is not to see another host.
    #[cold]
    fn replace_host(&mut self, buf: &[u8]) {
        for (name, value) in &mut self.fields {
            if name.of(buf).eq_ignore_ascii_case(b"host") {
                *value = self.authority;
            }
        }
    }
}

/// What the transfer codings of a request amount to, over all its field lines.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Codings {
    #[default]
    Absent,
    Chunked,
    UnknownThenChunked,
    /// The last coding is not chunked: an error unless another line follows.
    Unknown,
}

/// What the fields said that matters to framing.
#[derive(Default)]
pub(super) struct Facts {
    host: Option<Span>,
    content_length: Option<u64>,
    transfer_encoding: Codings,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    unknown_expectation: bool,
}

impl Facts {
    /// Takes note of one field.
    #[inline]
    pub(super) fn look_at(&mut self, name: &[u8], value: &[u8], span: Span) -> Result<(), Reject> {
        match (name.len(), name[0] | 0x20) {
            (4, b'h') if name.eq_ignore_ascii_case(b"host") => {
                let earlier = self.host.replace(span);
                if earlier.is_some() {
                    return Err(Reject::new(400, "there is more than one Host field"));
                }
            }
            (6, b'e') if name.eq_ignore_ascii_case(b"expect") => {
                match value.eq_ignore_ascii_case(b"100-continue") {
                    true => self.expect_continue = true,
                    false => self.unknown_expectation = true,
                }
            }
            (10, b'c') if name.eq_ignore_ascii_case(b"connection") => {
                // By far the most frequent value.
                if value == b"keep-alive" {
                    self.keep_alive = true;
                    return Ok(());
                }
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            (14, b'c') if name.eq_ignore_ascii_case(b"content-length") => {
                // Lists of equal values, which RFC 9110 lets one merge, are refused too.
                let Some(length) = decimal(value) else {
                    return Err(Reject::new(400, "the Content-Length is malformed"));
                };
                if self.content_length.replace(length).is_some() {
                    return Err(Reject::new(400, "there is more than one Content-Length"));
                }
            }
            (17, b't') if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding = self.transfer_encoding.and(value)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Codings {
    /// Adds the codings of one more field line.
    fn and(mut self, value: &[u8]) -> Result<Self, Reject> {
        if self == Self::Absent && value.eq_ignore_ascii_case(b"chunked") {
            return Ok(Self::Chunked);
        }
        for coding in list(value) {
            let name = coding.split(|&byte| byte == b';').next().unwrap_or(coding);
            if !is_token(trim(name)) {
                return Err(Reject::new(400, "the Transfer-Encoding is malformed"));
            }
            let chunked = trim(name).eq_ignore_ascii_case(b"chunked");
            if chunked && coding.len() != name.len() {
                return Err(Reject::new(400, "chunked takes no parameters"));
            }
            self = match (self, chunked) {
                (Self::Chunked | Self::UnknownThenChunked, _) => {
                    return Err(Reject::new(400, "chunked is not the last transfer coding"));
                }
                (Self::Absent, true) => Self::Chunked,
                (Self::Unknown, true) => Self::UnknownThenChunked,
                (_, false) => Self::Unknown,
            };
        }
        Ok(self)
    }
}
