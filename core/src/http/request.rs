//! Request heads (RFC 9112, 2 to 6; RFC 9110, 5 to 7).
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;

use crate::config::Limits;

/// The most fields that are ever accepted, whatever the limit says.
const MOST_FIELDS: usize = 2048;
/// Fields that fit the table on the stack; more than this many are parsed into one on the heap.
const USUAL_FIELDS: usize = 128;

/// A range of the buffer a head was parsed from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// How many bytes.
    pub len: u32,
}

impl Span {
    /// The bytes meant, `buffer` being the one that was parsed.
    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..][..self.len as usize]
    }
}

/// The versions that are served.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How the length of a request's body is told (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BodyFraming {
    /// There is no body.
    #[default]
    None,
    /// By `Content-Length`.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Why a request is refused. The connection closes after the answer, as what follows on it can no
/// longer be told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reject {
    /// The status of the answer.
    pub status: u16,
    /// What is wrong, for the client's developer.
    pub reason: &'static str,
}

/// A request's head. Kept and refilled, so that parsing allocates nothing.
#[derive(Debug, Default)]
pub struct Head {
    /// The method, as sent.
    pub method: Span,
    /// The request target, as sent.
    pub target: Span,
    /// The target's path, undecoded.
    pub raw_path: Span,
    /// The target's query, without its question mark.
    pub query: Span,
    /// The version.
    pub version: Version,
    /// Names and values in the order they came.
    pub fields: Vec<(Span, Span)>,
    /// Host and port that are meant: from the target if it names them, else from `Host`.
    pub authority: Span,
    /// How the body ends.
    pub framing: BodyFraming,
    /// Whether the client lets the connection be used again.
    pub keep_alive: bool,
    /// The client sends the body only after a `100 Continue`.
    pub expect_continue: bool,
    /// Bytes of the head, with the empty line that ends it.
    pub len: usize,
    /// Whether `raw_path` has a percent sign.
    pub has_escape: bool,
}

impl Head {
    /// Reads a head from the start of `buf`. False: it is not there as a whole yet.
    ///
    /// One empty line before the request line is skipped (RFC 9112, 2.2).
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<bool, Reject> {
        let skipped = if buf.starts_with(b"\r\n") { 2 } else { 0 };
        let bytes = &buf[skipped..];
        // The parser would skip any number of empty lines, bare line feeds among them.
        if matches!(bytes, [b'\n', ..] | [b'\r', _, ..]) {
            return Err(bad("the request line is malformed"));
        }
        let mut usual = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; USUAL_FIELDS];
        let mut many = Vec::new();
        let most = limits.fields.min(MOST_FIELDS);
        let table = match usual.get_mut(..most) {
            Some(table) => table,
            None => {
                many.resize_with(most, MaybeUninit::uninit);
                &mut many[..]
            }
        };
        let mut request = httparse::Request::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
            &mut request,
            bytes,
            table,
        );
        let len = match parsed {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return partial(bytes, limits),
            Err(error) => return Err(refuse(error, bytes, limits)),
        };
        let head = &bytes[..len];
        if len > limits.head {
            return Err(HEAD_TOO_LARGE);
        }
        check_lines(head, limits)?;
        let span = |part: &[u8]| Span {
            start: (part.as_ptr().addr() - buf.as_ptr().addr()) as u32,
            len: part.len() as u32,
        };
        // A complete parse has all three.
        let method = request.method.unwrap_or_default();
        let target = request.path.unwrap_or_default();
        self.version = match request.version {
            Some(1) => Version::Http11,
            _ => Version::Http10,
        };
        self.method = span(method.as_bytes());
        self.target = span(target.as_bytes());
        self.len = skipped + len;
        self.fields.clear();
        let mut seen = Seen::default();
        for field in request.headers.iter() {
            let name = span(field.name.as_bytes());
            let value = span(field.value);
            self.fields.push((name, value));
            seen.take(field.name, field.value, value, self.version)?;
        }
        self.take_target(method, target, &seen, span(&target.as_bytes()[..0]))?;
        self.framing = seen.framing(self.version, limits)?;
        self.keep_alive = match self.version {
            Version::Http11 => !seen.close,
            Version::Http10 => seen.keep_alive && !seen.close,
        };
        self.expect_continue =
            seen.expects && self.version == Version::Http11 && self.framing != BodyFraming::None;
        self.has_escape = self.raw_path.of(buf).contains(&b'%');
        Ok(true)
    }

    /// Takes the target apart (RFC 9112, 3.2). `base` is its place, with no length.
    fn take_target(
        &mut self,
        method: &str,
        target: &str,
        seen: &Seen,
        base: Span,
    ) -> Result<(), Reject> {
        let bytes = target.as_bytes();
        if bytes
            .iter()
            .any(|byte| matches!(byte, b'#' | 0..=b' ' | 0x7F))
        {
            return Err(bad(
                "the request target has a character that must be encoded",
            ));
        }
        let host = match (seen.hosts, self.version) {
            (0, Version::Http11) => return Err(bad("the Host field is missing")),
            (0 | 1, _) => seen.host,
            _ => return Err(bad("there is more than one Host field")),
        };
        if method == "CONNECT" {
            return Err(Reject {
                status: 501,
                reason: "CONNECT is for proxies, and this is none",
            });
        }
        let mut path_at = 0;
        self.authority = host;
        if bytes == b"*" {
            if method != "OPTIONS" {
                return Err(bad("the target * is for OPTIONS only"));
            }
        } else if !bytes.starts_with(b"/") {
            let scheme = ["http://", "https://"].into_iter().find(|scheme| {
                bytes.len() > scheme.len()
                    && bytes[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
            });
            let Some(scheme) = scheme else {
                return Err(bad("the request target is neither a path nor a URL"));
            };
            let rest = &bytes[scheme.len()..];
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            let end = end.unwrap_or(rest.len());
            if !is_host(&rest[..end]) {
                return Err(bad("the host in the request target is malformed"));
            }
            self.authority = Span {
                start: base.start + scheme.len() as u32,
                len: end as u32,
            };
            path_at = scheme.len() + end;
        }
        let mark = bytes[path_at..].iter().position(|byte| *byte == b'?');
        let path_end = mark.map_or(bytes.len(), |mark| path_at + mark);
        self.raw_path = Span {
            start: base.start + path_at as u32,
            len: (path_end - path_at) as u32,
        };
        if path_end == path_at {
            // A URL without a path means the root: the slash behind its scheme says so as well.
            self.raw_path = Span {
                start: base.start + "http:/".len() as u32 - u32::from(bytes[4] == b':'),
                len: 1,
            };
        }
        let query_at = (path_end + 1).min(bytes.len());
        self.query = Span {
            start: base.start + query_at as u32,
            len: (bytes.len() - query_at) as u32,
        };
        Ok(())
    }
}

const HEAD_TOO_LARGE: Reject = Reject {
    status: 431,
    reason: "the request head is too large",
};
const LINE_TOO_LONG: Reject = Reject {
    status: 414,
    reason: "the request line is too long",
};

const fn bad(reason: &'static str) -> Reject {
    Reject {
        status: 400,
        reason,
    }
}

/// What the fields say about the message itself.
#[derive(Default)]
struct Seen {
    host: Span,
    hosts: u32,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
}

impl Seen {
    #[inline]
    fn take(
        &mut self,
        name: &str,
        value: &[u8],
        span: Span,
        version: Version,
    ) -> Result<(), Reject> {
        // httparse lets through what RFC 9110, 5.5 does not.
        if value
            .iter()
            .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7F)
        {
            return Err(bad("a field value has a control character"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                if !is_host(value) {
                    return Err(bad("the Host field is malformed"));
                }
                self.host = span;
                self.hosts += 1;
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject {
                        status: 417,
                        reason: "the only expectation known is 100-continue",
                    });
                }
                self.expects = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for token in value.split(|byte| *byte == b',') {
                    let token = token.trim_ascii();
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                if self.length.is_some() {
                    return Err(bad("there is more than one Content-Length"));
                }
                self.length = Some(decimal(value).ok_or(bad("the Content-Length is malformed"))?);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                if version == Version::Http10 {
                    return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
                }
                if self.chunked {
                    return Err(bad("there is more than one Transfer-Encoding"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(match ends_chunked(value) {
                        true => Reject {
                            status: 501,
                            reason: "the only transfer coding known is chunked",
                        },
                        false => bad("the Transfer-Encoding is malformed"),
                    });
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, version: Version, limits: &Limits) -> Result<BodyFraming, Reject> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(bad(
                "Content-Length and Transfer-Encoding exclude each other",
            )),
            (None, true) if version == Version::Http11 => Ok(BodyFraming::Chunked),
            (Some(length), _) if limits.body != 0 && length > limits.body => {
                Err(super::body::TOO_LARGE)
            }
            (Some(0) | None, _) => Ok(BodyFraming::None),
            (Some(length), _) => Ok(BodyFraming::Length(length)),
        }
    }
}

/// The head is not whole; it may be too large already, or beyond repair.
fn partial(bytes: &[u8], limits: &Limits) -> Result<bool, Reject> {
    let line = bytes.iter().position(|byte| *byte == b'\n');
    if line.unwrap_or(bytes.len()) > limits.request_line + 1 {
        return Err(LINE_TOO_LONG);
    }
    if bytes.len() > limits.head {
        return Err(HEAD_TOO_LARGE);
    }
    bare_line_feed(bytes)?;
    Ok(false)
}

/// Every line ends with CRLF and none is a continuation of the one before.
fn check_lines(head: &[u8], limits: &Limits) -> Result<(), Reject> {
    let first = head.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    // Without its CRLF.
    if first.saturating_sub(1) > limits.request_line {
        return Err(LINE_TOO_LONG);
    }
    bare_line_feed(head)
}

fn bare_line_feed(bytes: &[u8]) -> Result<(), Reject> {
    let mut rest = bytes;
    let mut before = b'\n';
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        let previous = if at == 0 { before } else { rest[at - 1] };
        if previous != b'\r' {
            return Err(bad("a line ends without a carriage return"));
        }
        if matches!(rest.get(at + 1), Some(b' ' | b'\t')) {
            return Err(bad("a field is folded over two lines"));
        }
        before = b'\n';
        rest = &rest[at + 1..];
    }
    Ok(())
}

/// Says what httparse did not accept.
fn refuse(error: httparse::Error, bytes: &[u8], limits: &Limits) -> Reject {
    let line = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    if line > limits.request_line + 1 {
        return LINE_TOO_LONG;
    }
    match error {
        httparse::Error::TooManyHeaders => Reject {
            status: 431,
            reason: "the request has too many fields",
        },
        httparse::Error::Version if is_other_version(&bytes[..line]) => Reject {
            status: 505,
            reason: "the versions known are HTTP/1.0 and HTTP/1.1",
        },
        httparse::Error::HeaderName => bad("a field name is malformed"),
        httparse::Error::HeaderValue => bad("a field value is malformed"),
        httparse::Error::NewLine => bad("a line end is malformed"),
        _ => bad("the request line is malformed"),
    }
}

fn is_other_version(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    matches!(
        line,
        [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit()
    )
}

/// `host[:port]` as RFC 9110, 7.2 has it, loosely: no character that could end the field or begin
/// another part of a URL.
fn is_host(value: &[u8]) -> bool {
    let bytes = |host: &[u8]| {
        host.iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(byte))
    };
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let literal = &rest[..end];
            if literal.is_empty()
                || !literal
                    .iter()
                    .all(|b| b.is_ascii_hexdigit() || b":.v".contains(b))
            {
                return false;
            }
            (&b"v6"[..], &rest[end + 1..])
        }
        _ => match value.iter().position(|byte| *byte == b':') {
            Some(at) => value.split_at(at),
            None => (value, &b""[..]),
        },
    };
    let port_is_sound = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    // An empty Host is allowed when the target has no authority; nobody's application is meant.
    bytes(host) && port_is_sound && (!host.is_empty() || port.is_empty())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// A list of codings whose last, and only its last, is `chunked`.
fn ends_chunked(value: &[u8]) -> bool {
    let mut codings = value
        .split(|byte| *byte == b',')
        .map(|coding| coding.trim_ascii());
    let last = codings.next_back().unwrap_or_default();
    last.eq_ignore_ascii_case(b"chunked")
        && codings.all(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked"))
}
