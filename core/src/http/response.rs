//! Responses: heads, framing, and the engine's own answers (RFC 9110, 6 to 8; RFC 9112, 6 and 9).
#![forbid(unsafe_code)]

use std::fmt;

use super::body::is_token;
use super::request::Version;

/// What of a request matters for its response.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ResponseFacts {
    /// The client's version.
    pub version: Version,
    /// Whether the request was a HEAD, whose response has no body.
    pub head_request: bool,
    /// Whether the client and the server both allow the connection to be used again.
    pub keep_alive: bool,
}

/// What is known of a body's length when the head is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyLength {
    /// The whole body is at hand and this long.
    Known(u64),
    /// More may come.
    Unknown,
}

/// Fields that the server adds unless the application has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The `Date`, if one is to be sent.
    pub date: Option<&'a [u8; 29]>,
    /// The `Server`, if one is to be sent.
    pub server: Option<&'a str>,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeadError {
    /// The status is not in 200 to 599.
    Status(u16),
    /// A field name is not a token.
    Name,
    /// A field value has a control character.
    Value,
    /// `Content-Length` is malformed or repeated.
    ContentLength,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the status {status} is not in 200 to 599"),
            Self::Name => f.write_str("a field name has a character that is not allowed"),
            Self::Value => f.write_str("a field value has a control character"),
            Self::ContentLength => f.write_str("Content-Length is malformed or repeated"),
        }
    }
}

impl std::error::Error for HeadError {}

/// Why a body was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyError {
    /// More bytes than `Content-Length` says. What fits has been written.
    TooLong,
    /// Fewer bytes than `Content-Length` says.
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

impl std::error::Error for BodyError {}

/// Writes one response.
#[derive(Debug)]
pub struct ResponseWriter {
    facts: ResponseFacts,
    framing: Framing,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    /// No body is sent, whatever the application writes.
    None,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// The body ends where the connection does.
    Close,
}

impl ResponseWriter {
    /// A writer for the response to a request with these facts.
    pub fn new(facts: ResponseFacts) -> Self {
        Self {
            facts,
            framing: Framing::None,
        }
    }

    /// Appends the head to `out`, or nothing if it is refused.
    ///
    /// How the body is framed is decided here: the application's `Transfer-Encoding` and
    /// `Connection` are not sent on; `Connection: close` from it is obeyed.
    pub fn head<'a>(
        &mut self,
        out: &mut Vec<u8>,
        status: u16,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: BodyLength,
        extras: &Extras<'_>,
    ) -> Result<(), HeadError> {
        let start = out.len();
        let written = self.try_head(out, status, fields, body, extras);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// Appends a part of the body.
    pub fn body(&mut self, out: &mut Vec<u8>, data: &[u8]) -> Result<(), BodyError> {
        match &mut self.framing {
            Framing::None => {}
            _ if data.is_empty() => {}
            Framing::Length(left) => {
                let len = data.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&data[..len]);
                *left -= len as u64;
                if len < data.len() {
                    return Err(BodyError::TooLong);
                }
            }
            Framing::Chunked => {
                put_hex(out, data.len());
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Framing::Close => out.extend_from_slice(data),
        }
        Ok(())
    }

    /// Ends the body.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        match self.framing {
            Framing::Length(1..) => return Err(BodyError::TooShort),
            Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            _ => {}
        }
        Ok(())
    }

    /// Whether the connection ends after this response.
    pub fn will_close(&self) -> bool {
        !self.facts.keep_alive
    }

    fn try_head<'a>(
        &mut self,
        out: &mut Vec<u8>,
        status: u16,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        body: BodyLength,
        extras: &Extras<'_>,
    ) -> Result<(), HeadError> {
        if !(200..600).contains(&status) {
            return Err(HeadError::Status(status));
        }
        put_status(out, status);
        let mut own = Own::default();
        for (name, value) in fields {
            if !own.take(name, value)? {
                continue;
            }
            // A 204 has no body and so no length (RFC 9110, 8.6).
            if own.is_length(name) && status == 204 {
                continue;
            }
            put_field(out, name, value);
        }
        self.facts.keep_alive &= !own.close;
        self.frame(out, status, own.length, body);
        if let Some(server) = extras.server.filter(|_| !own.server) {
            put_field(out, b"server", server.as_bytes());
        }
        if let Some(date) = extras.date.filter(|_| !own.date) {
            put_field(out, b"date", date);
        }
        match (self.facts.version, self.facts.keep_alive) {
            (_, false) => out.extend_from_slice(b"connection: close\r\n"),
            (Version::Http10, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (Version::Http11, true) => {}
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Decides how the body is framed and says so in the head.
    fn frame(&mut self, out: &mut Vec<u8>, status: u16, length: Option<u64>, body: BodyLength) {
        let bodiless = matches!(status, 204 | 304);
        if bodiless || self.facts.head_request {
            // What a GET would bring is told if it is known (RFC 9110, 9.3.2); an empty body of a
            // HEAD response does not tell it.
            if let (None, BodyLength::Known(known @ 1..)) = (length, body)
                && !bodiless
            {
                put_length(out, known);
            }
            self.framing = Framing::None;
            return;
        }
        self.framing = match (length, body, self.facts.version) {
            (Some(length), ..) => Framing::Length(length),
            (None, BodyLength::Known(known), _) => {
                put_length(out, known);
                Framing::Length(known)
            }
            (None, BodyLength::Unknown, Version::Http11) => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Framing::Chunked
            }
            (None, BodyLength::Unknown, Version::Http10) => {
                self.facts.keep_alive = false;
                Framing::Close
            }
        };
    }
}

/// What the application's fields say about the message itself.
#[derive(Default)]
struct Own {
    length: Option<u64>,
    date: bool,
    server: bool,
    close: bool,
}

impl Own {
    /// Looks at a field. False: it is not sent on.
    #[inline]
    fn take(&mut self, name: &[u8], value: &[u8]) -> Result<bool, HeadError> {
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(HeadError::Name);
        }
        if value
            .iter()
            .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7F)
        {
            return Err(HeadError::Value);
        }
        match name.len() {
            4 => self.date |= name.eq_ignore_ascii_case(b"date"),
            6 => self.server |= name.eq_ignore_ascii_case(b"server"),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                let mut tokens = value.split(|byte| *byte == b',');
                self.close |= tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
                return Ok(false);
            }
            10 if name.eq_ignore_ascii_case(b"keep-alive") => return Ok(false),
            14 if self.is_length(name) => {
                let length = std::str::from_utf8(value).ok().filter(|text| {
                    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
                });
                let length = length.and_then(|text| text.parse().ok());
                if self.length.is_some() || length.is_none() {
                    return Err(HeadError::ContentLength);
                }
                self.length = length;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    fn is_length(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(b"content-length")
    }
}

/// Appends an answer of the engine itself: one line of text.
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

/// The usual phrase for a status; empty for one that has none.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

fn put_status(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    put_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    put_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

fn put_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

fn put_hex(out: &mut Vec<u8>, number: usize) {
    let nibbles = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..nibbles).rev() {
        out.push(b"0123456789abcdef"[number >> (4 * nibble) & 15]);
    }
}
