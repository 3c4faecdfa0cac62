//! Responses: validation, framing and encoding.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;

use super::request::Version;
use super::status::reason_phrase;
use super::syntax::{decimal, is_token, is_value, list, trim};

/// What a response must know of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseFacts {
    /// The version of the request.
    pub version: Version,
    /// Whether the method was HEAD.
    pub head_request: bool,
    /// Whether both the client and the server allow another request on this connection.
    pub keep_alive: bool,
}

/// What is known of the length of a body before the head is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// The whole body is this long. Counts when the application gave no Content-Length.
    Known(u64),
    /// The body is still being made.
    Unknown,
}

/// Fields that the server adds when the application did not send them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The Date, as [`http_date`](crate::time::http_date) makes it; `None` to send none.
    pub date: Option<&'a [u8; 29]>,
    /// The Server; `None` to send none. The caller has checked that it is a valid field value.
    pub server: Option<&'a str>,
}

/// Why a response head was refused. Nothing has been written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The status is not in 200..=599.
    Status(u16),
    /// A field name is not a token.
    Name,
    /// A field value holds a control character, such as a line end.
    Value,
    /// Content-Length is not a plain number or was given twice.
    ContentLength,
    /// There was a head before.
    Repeated,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the status {status} is not in 200 to 599"),
            Self::Name => f.write_str("a field name has a character that is not allowed"),
            Self::Value => f.write_str("a field value has a control character"),
            Self::ContentLength => f.write_str("Content-Length is malformed or repeated"),
            Self::Repeated => f.write_str("there was a response head before"),
        }
    }
}

impl Error for HeadError {}

/// Why response body bytes were refused. The connection must be closed; see
/// [`ResponseWriter::will_close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// More bytes than Content-Length said; the excess was not written.
    TooLong,
    /// Fewer bytes than Content-Length said.
    TooShort,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the body is longer than its Content-Length",
            Self::TooShort => "the body is shorter than its Content-Length",
        })
    }
}

impl Error for BodyError {}

/// Writes one response on one connection.
#[derive(Debug)]
pub struct ResponseWriter {
    facts: ResponseFacts,
    close: bool,
    state: State,
    /// Bytes of body that were written.
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Start,
    /// So many bytes are to come.
    Length(u64),
    Chunked,
    /// Until the connection closes.
    Close,
    /// Whatever body is given stays here: HEAD, 204, 205, 304.
    Suppressed,
    Ended,
}

impl ResponseWriter {
    /// A writer for the response to the request of these facts.
    pub fn new(facts: ResponseFacts) -> Self {
        Self {
            facts,
            close: !facts.keep_alive,
            state: State::Start,
            bytes: 0,
        }
    }

    /// Appends the head to `out`; on an error `out` is as it was and another head may be tried.
    ///
    /// The framing is decided here: the application's Transfer-Encoding is ignored, of its
    /// Connection the options `close` (which is obeyed) and `upgrade` count.
    pub fn head<'a>(
        &mut self,
        out: &mut Vec<u8>,
        status: u16,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: BodyLength,
        extras: &Extras<'_>,
    ) -> Result<(), HeadError> {
        if self.state != State::Start {
            return Err(HeadError::Repeated);
        }
        let start = out.len();
        let result = self.write_head(out, status, fields, body, extras);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Appends body bytes to `out`, framed. Without a head before them, and after the end, none.
    pub fn body(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Result<(), BodyError> {
        match &mut self.state {
            _ if data.is_empty() => {}
            State::Start | State::Suppressed | State::Ended => {}
            State::Length(left) => {
                let len = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&data[..len]);
                *left -= len as u64;
                self.bytes += len as u64;
                if len < data.len() {
                    self.close = true;
                    return Err(BodyError::TooLong);
                }
            }
            State::Chunked => {
                out.reserve(data.len() + 20);
                push_hex(out, data.len() as u64);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
                self.bytes += data.len() as u64;
            }
            State::Close => {
                out.extend_from_slice(data);
                self.bytes += data.len() as u64;
            }
        }
        Ok(())
    }

    /// Ends the response. Ending it again does nothing.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        match self.state {
            State::Start => return Ok(()),
            State::Length(1..) => {
                self.close = true;
                self.state = State::Ended;
                return Err(BodyError::TooShort);
            }
            State::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            State::Length(0) | State::Close | State::Suppressed | State::Ended => {}
        }
        self.state = State::Ended;
        Ok(())
    }

    /// How many bytes of body are still to come under a Content-Length; 0 without one, and where no
    /// body is sent.
    pub fn left(&self) -> u64 {
        match self.state {
            State::Length(left) => left,
            _ => 0,
        }
    }

    /// Whether the client has been given all that belongs to the response, even if that is not known
    /// to be its end.
    pub fn has_all(&self) -> bool {
        match self.state {
            State::Length(left) => left == 0,
            State::Suppressed | State::Ended => true,
            State::Start | State::Chunked | State::Close => false,
        }
    }

    /// So many bytes of body, no more than are [`left`](Self::left), were appended to the output by
    /// somebody else.
    pub fn appended(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Bytes of body written so far, without their framing.
    pub fn body_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the connection must be closed after this response. Settled once the head is
    /// written, unless the body then disagrees with its Content-Length.
    #[inline]
    pub fn will_close(&self) -> bool {
        self.close
    }

    fn write_head<'a>(
        &mut self,
        out: &mut Vec<u8>,
        status: u16,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: BodyLength,
        extras: &Extras<'_>,
    ) -> Result<(), HeadError> {
        if !(200..=599).contains(&status) {
            return Err(HeadError::Status(status));
        }
        out.reserve(256);
        push_status_line(out, status);

        let mut close = self.close;
        let mut upgrade = false;
        let mut length = None;
        let (mut date, mut server) = (extras.date, extras.server);
        for (name, value) in fields {
            if !is_token(name) {
                return Err(HeadError::Name);
            }
            if !is_value(value) {
                return Err(HeadError::Value);
            }
            match (name.len(), name[0] | 0x20) {
                (14, b'c') if name.eq_ignore_ascii_case(b"content-length") => {
                    let value = decimal(trim(value)).ok_or(HeadError::ContentLength)?;
                    if length.replace(value).is_some() {
                        return Err(HeadError::ContentLength);
                    }
                    // Written below, once and in one form.
                    continue;
                }
                (17, b't') if name.eq_ignore_ascii_case(b"transfer-encoding") => continue,
                (10, b'c') if name.eq_ignore_ascii_case(b"connection") => {
                    for option in list(value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    }
                    continue;
                }
                (10, b'k') if name.eq_ignore_ascii_case(b"keep-alive") => continue,
                (4, b'd') if name.eq_ignore_ascii_case(b"date") => date = None,
                (6, b's') if name.eq_ignore_ascii_case(b"server") => server = None,
                _ => {}
            }
            push_field(out, name, value);
        }

        let state = match status {
            204 => {
                length = None;
                State::Suppressed
            }
            // Nothing, and that much is said (RFC 9110, section 15.3.6).
            205 => {
                length = Some(0);
                State::Suppressed
            }
            // The length of the body that a 200 would have: only the application knows it.
            304 => State::Suppressed,
            _ if self.facts.head_request => {
                // An empty body given to HEAD says nothing about the length that GET has.
                if let (None, BodyLength::Known(known @ 1..)) = (length, body) {
                    length = Some(known);
                }
                State::Suppressed
            }
            _ => {
                if let (None, BodyLength::Known(known)) = (length, body) {
                    length = Some(known);
                }
                match (length, self.facts.version) {
                    (Some(length), _) => State::Length(length),
                    (None, Version::Http11) => State::Chunked,
                    (None, Version::Http10) => {
                        close = true;
                        State::Close
                    }
                }
            }
        };
        if let Some(length) = length {
            out.extend_from_slice(b"content-length: ");
            push_decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        if state == State::Chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if let Some(date) = date {
            push_field(out, b"date", date);
        }
        if let Some(server) = server {
            push_field(out, b"server", server.as_bytes());
        }
        out.extend_from_slice(match (close, upgrade, self.facts.version) {
            (true, false, _) => b"connection: close\r\n\r\n",
            (true, true, _) => b"connection: close, upgrade\r\n\r\n",
            (false, false, Version::Http10) => b"connection: keep-alive\r\n\r\n",
            (false, true, Version::Http10) => b"connection: keep-alive, upgrade\r\n\r\n",
            (false, true, Version::Http11) => b"connection: upgrade\r\n\r\n",
            (false, false, Version::Http11) => b"\r\n",
        });
        self.close = close;
        self.state = state;
        Ok(())
    }
}

/// Appends a whole response with a short text, from the engine itself. It announces that the
/// connection closes if `facts.keep_alive` is false.
pub fn simple_response(
    out: &mut Vec<u8>,
    facts: &ResponseFacts,
    status: u16,
    text: &str,
    fields: &[(&str, &str)],
    extras: &Extras<'_>,
) {
    let mut writer = ResponseWriter::new(*facts);
    let own = [("content-type", "text/plain; charset=utf-8")];
    let fields = own.iter().chain(fields);
    let fields = fields.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let length = BodyLength::Known(text.len() as u64);
    let written = writer
        .head(out, status, fields, length, extras)
        .is_ok_and(|()| writer.body(out, text.as_bytes()).is_ok());
    debug_assert!(written, "the engine's own answers are valid");
}

/// "HTTP/1.1" whatever the request said: a server announces what it speaks (RFC 9110, 6.2).
fn push_status_line(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_hex(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests;
