//! Request heads: httparse finds the fields, the rest of this file refuses what is ambiguous.
#![forbid(unsafe_code)]

use crate::config::Limits;

use super::syntax::{decimal, is_authority, is_token, is_token_byte, list, trim};

/// A piece of the buffer that was parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of its first byte.
    pub start: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes of the span in the buffer that was parsed.
    ///
    /// # Panics
    /// If `buf` is shorter than the head that was parsed.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..][..self.len as usize]
    }

    #[inline]
    fn new(start: usize, end: usize) -> Self {
        // Heads longer than u32 are refused before any span is made.
        Self {
            start: start as u32,
            len: (end - start) as u32,
        }
    }
}

/// The versions that are spoken here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none, or Content-Length says 0.
    #[default]
    None,
    /// By Content-Length.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Why a request is refused. Always answered with `Connection: close`, because what follows on
/// the connection cannot be told apart any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The status to answer.
    pub status: u16,
    /// What was wrong, for the answer and the log.
    pub reason: &'static str,
}

impl Reject {
    #[cold]
    pub(super) fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

/// A request head. Made to be reused: [`Head::parse`] clears and refills it without allocating
/// once it has seen as many fields before. Spans index the buffer that was given to `parse`.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The method, a token in the case it was sent.
    pub method: Span,
    /// The request target as sent.
    pub target: Span,
    /// The path as sent, without query: it begins with `/`, or is `*` for `OPTIONS *`.
    pub raw_path: Span,
    /// The query without its `?`; empty if there is none.
    pub query: Span,
    /// The version of the request.
    pub version: Version,
    /// Name and value of each field, in order; values without the white space around them. If the
    /// target is absolute, the value of Host is the host in it.
    pub fields: Vec<(Span, Span)>,
    /// Host and port: from an absolute target, otherwise the value of Host. May be empty.
    pub authority: Span,
    /// How the body is delimited.
    pub framing: BodyFraming,
    /// Whether the client allows another request on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body. False without a
    /// body, where the final response is all there is to wait for.
    pub expect_continue: bool,
    /// Bytes of the head, the final line end included.
    pub len: usize,
    /// Whether `raw_path` contains a `%`.
    pub has_escape: bool,
}

impl Head {
    /// Parses the head at the beginning of `buf`.
    ///
    /// `Ok(true)`: it is complete; the body begins at [`Head::len`]. `Ok(false)`: more bytes are
    /// needed; call again with all of them, the contents of `self` mean nothing. One empty line
    /// before the request line is skipped and counted in `len`.
    pub fn parse(&mut self, buf: &[u8], limits: &Limits) -> Result<bool, Reject> {
        self.clear();
        if buf.len() > MOST_BYTES {
            return Err(head_too_long());
        }
        let start = match *buf {
            [b'\r', b'\n', ..] => 2,
            [b'\r'] => return incomplete(buf, limits),
            _ => 0,
        };
        let Some(fields_start) = self.parse_line(buf, start, limits)? else {
            return incomplete(buf, limits);
        };
        if !self.parse_fields(buf, fields_start, limits)? {
            return incomplete(buf, limits);
        }
        Ok(true)
    }

    fn clear(&mut self) {
        let fields = std::mem::take(&mut self.fields);
        *self = Self {
            fields,
            ..Self::default()
        };
        self.fields.clear();
    }

    /// Parses the request line; returns the offset of what follows it.
    fn parse_line(
        &mut self,
        buf: &[u8],
        start: usize,
        limits: &Limits,
    ) -> Result<Option<usize>, Reject> {
        // Nothing past the limit is looked at: if no line end comes before it, none is in time.
        let most = limits.request_line.saturating_add(start + 2);
        let line = &buf[..buf.len().min(most)];
        let needs_more = || match line.len() == most {
            true => Err(Reject::new(414, "the request line is too long")),
            false => Ok(None),
        };

        let mut at = start;
        loop {
            match line.get(at) {
                Some(&byte) if is_token_byte(byte) => at += 1,
                Some(b' ') if at > start => break,
                Some(_) => return Err(Reject::new(400, "the method is malformed")),
                None => return needs_more(),
            }
        }
        self.method = Span::new(start, at);

        let target_start = at + 1;
        let (mut query, mut escape) = (None, None);
        at = target_start;
        loop {
            // A loop of its own for the many bytes that mean nothing.
            let rest = line.get(at..).unwrap_or_default();
            let plain = |&byte: &u8| matches!(TARGET[byte as usize], TargetByte::Plain);
            let Some(skip) = rest.iter().position(|byte| !plain(byte)) else {
                return needs_more();
            };
            at += skip;
            match TARGET[line[at] as usize] {
                TargetByte::Question => query = query.or(Some(at)),
                TargetByte::Escape => escape = escape.or(Some(at)),
                TargetByte::Space if at > target_start => break,
                _ => return Err(Reject::new(400, "the request target is malformed")),
            }
            at += 1;
        }
        let path_end = query.unwrap_or(at);
        self.target = Span::new(target_start, at);
        self.query = Span::new((path_end + 1).min(at), at);

        let Some((version, end)) = parse_version(line, at + 1)? else {
            return needs_more();
        };
        self.version = version;

        if buf[target_start] == b'/' {
            self.raw_path = Span::new(target_start, path_end);
            self.has_escape = escape.is_some_and(|at| at < path_end);
        } else {
            self.parse_other_target(buf, path_end)?;
        }
        // The target form is judged first, so that CONNECT is told what it is told.
        if self.method.of(buf) == b"CONNECT" {
            return Err(connect());
        }
        Ok(Some(end))
    }

    /// A target that is not simply a path: asterisk-form, absolute-form, authority-form.
    #[cold]
    fn parse_other_target(&mut self, buf: &[u8], path_end: usize) -> Result<(), Reject> {
        let target = self.target.of(buf);
        let method = self.method.of(buf);
        if method == b"CONNECT" {
            return Err(connect());
        }
        if target == b"*" {
            if method != b"OPTIONS" {
                return Err(Reject::new(400, "the target * is for OPTIONS only"));
            }
            self.raw_path = self.target;
            return Ok(());
        }
        let scheme = ["http://", "https://"].into_iter().find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
        });
        let Some(scheme) = scheme else {
            return Err(Reject::new(400, "the request target is malformed"));
        };
        let authority_start = self.target.start as usize + scheme.len();
        let before_query = &buf[authority_start..path_end];
        let slash = before_query.iter().position(|&byte| byte == b'/');
        let authority_end = slash.map_or(path_end, |at| authority_start + at);
        self.authority = Span::new(authority_start, authority_end);
        if !is_authority(self.authority.of(buf)) {
            return Err(Reject::new(
                400,
                "the host in the request target is malformed",
            ));
        }
        self.raw_path = match slash {
            Some(_) => Span::new(authority_end, path_end),
            // The path is empty, which means "/": the last byte of the scheme is one.
            None => Span::new(authority_start - 1, authority_start),
        };
        self.has_escape = self.raw_path.of(buf).contains(&b'%');
        Ok(())
    }

    /// Parses the field lines and the empty line, and decides what they mean together.
    fn parse_fields(
        &mut self,
        buf: &[u8],
        fields_start: usize,
        limits: &Limits,
    ) -> Result<bool, Reject> {
        let mut rest = &buf[fields_start..];
        let mut cut = false;
        // A long head that arrives in small pieces is looked at many times: if its end is not
        // there yet, only the beginning is parsed, so that nonsense is still refused early.
        if rest.len() > RESCAN && !may_have_empty_line(&buf[fields_start - 1..]) {
            if count_line_feeds(rest) > limits.fields {
                return Err(too_many_fields());
            }
            rest = &rest[..RESCAN];
            cut = true;
        }

        let mut few = [httparse::EMPTY_HEADER; 24];
        let usual = few.len().min(limits.fields);
        let mut parsed = httparse::parse_headers(rest, &mut few[..usual]);
        let mut many = Vec::new();
        if parsed == Err(httparse::Error::TooManyHeaders) && limits.fields > usual {
            // A field line takes at least three bytes with its line end.
            many.resize(
                limits.fields.min(rest.len() / 3 + 1),
                httparse::EMPTY_HEADER,
            );
            parsed = httparse::parse_headers(rest, &mut many);
        }
        let (len, fields) = match parsed {
            Ok(httparse::Status::Complete((len, fields))) if !cut => (len, fields),
            Ok(_) => return Ok(false),
            Err(error) => return Err(field_error(error)),
        };
        let end = fields_start + len;
        if end > limits.head {
            return Err(head_too_long());
        }

        // httparse takes a bare LF for a line end. It allows no line folding, so each field name
        // follows a line end, and it is enough to look at the byte before that LF.
        let tail: &[u8] = if fields.is_empty() {
            b"\r\n"
        } else {
            b"\r\n\r\n"
        };
        let mut clean_lines = buf[..end].ends_with(tail);
        let base = buf.as_ptr().addr();
        let mut facts = Facts::default();
        self.fields.reserve(fields.len());
        for field in fields {
            let (name, value) = (field.name.as_bytes(), field.value);
            let name_start = name.as_ptr().addr() - base;
            let value_start = value.as_ptr().addr() - base;
            clean_lines &= buf[name_start - 2] == b'\r';
            let value_span = Span::new(value_start, value_start + value.len());
            let name_span = Span::new(name_start, name_start + name.len());
            self.fields.push((name_span, value_span));
            facts.look_at(name, value, value_span)?;
        }
        if !clean_lines {
            return Err(Reject::new(400, "a line ends without a carriage return"));
        }
        self.len = end;
        self.conclude(buf, &facts, limits)?;
        Ok(true)
    }

    fn conclude(&mut self, buf: &[u8], facts: &Facts, limits: &Limits) -> Result<(), Reject> {
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

/// Whatever the limits say: spans are 32 bits wide.
const MOST_BYTES: usize = u32::MAX as usize;

/// From this many bytes of fields on, their end is searched for before they are parsed.
const RESCAN: usize = 1024;

#[derive(Clone, Copy)]
enum TargetByte {
    Plain,
    Question,
    Escape,
    Space,
    /// Controls, and `#`: fragments are not sent.
    Bad,
}

static TARGET: [TargetByte; 256] = {
    let mut table = [TargetByte::Plain; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = TargetByte::Bad;
        byte += 1;
    }
    table[0x7f] = TargetByte::Bad;
    table[b'#' as usize] = TargetByte::Bad;
    table[b' ' as usize] = TargetByte::Space;
    table[b'?' as usize] = TargetByte::Question;
    table[b'%' as usize] = TargetByte::Escape;
    table
};

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
struct Facts {
    host: Option<Span>,
    content_length: Option<u64>,
    transfer_encoding: Codings,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    unknown_expectation: bool,
}

impl Facts {
    #[inline]
    fn look_at(&mut self, name: &[u8], value: &[u8], span: Span) -> Result<(), Reject> {
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

/// Parses the version at `at` and the line end after it; returns where the next line begins.
fn parse_version(line: &[u8], at: usize) -> Result<Option<(Version, usize)>, Reject> {
    let rest = line.get(at..).unwrap_or_default();
    if rest.starts_with(b"HTTP/1.1\r\n") {
        return Ok(Some((Version::Http11, at + 10)));
    }
    if rest.starts_with(b"HTTP/1.0\r\n") {
        return Ok(Some((Version::Http10, at + 10)));
    }
    let shape = b"HTTP/d.d\r\n";
    let fits = rest.iter().zip(shape).all(|(&byte, &wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        _ => byte == wanted,
    });
    if !fits {
        return Err(Reject::new(400, "the request line is malformed"));
    }
    if rest.len() < shape.len() {
        return Ok(None);
    }
    Err(Reject::new(
        505,
        "the versions known are HTTP/1.0 and HTTP/1.1",
    ))
}

/// Whether a head that is not complete yet may still become one.
fn incomplete(buf: &[u8], limits: &Limits) -> Result<bool, Reject> {
    if buf.len() >= limits.head {
        return Err(head_too_long());
    }
    Ok(false)
}

/// Whether a line end is directly followed by what may be another: without one, no head is
/// complete. Looks at blocks without early exit, so that it is vectorised.
fn may_have_empty_line(buf: &[u8]) -> bool {
    const BLOCK: usize = 128;
    let ends = |one: u8, two: u8| (one == b'\n') & ((two == b'\n') | (two == b'\r'));
    let mut at = 0;
    while let Some(window) = buf.get(at..=at + BLOCK) {
        let pairs = window[..BLOCK].iter().zip(&window[1..]);
        if pairs.fold(false, |found, (&one, &two)| found | ends(one, two)) {
            return true;
        }
        at += BLOCK;
    }
    buf[at..].windows(2).any(|pair| ends(pair[0], pair[1]))
}

/// Counts in bytes before it counts in words, so that it is vectorised well.
fn count_line_feeds(buf: &[u8]) -> usize {
    let in_block = |block: &[u8]| -> u8 { block.iter().map(|&byte| u8::from(byte == b'\n')).sum() };
    buf.chunks(128)
        .map(|block| usize::from(in_block(block)))
        .sum()
}

#[cold]
fn head_too_long() -> Reject {
    Reject::new(431, "the request head is too long")
}

#[cold]
fn too_many_fields() -> Reject {
    Reject::new(431, "the request has too many fields")
}

/// 501, not 405: tunnels are not implemented whatever the target, and 405 would have to name the
/// methods that the target does allow, while an authority is no resource of ours.
#[cold]
fn connect() -> Reject {
    Reject::new(501, "CONNECT is for proxies, and this is none")
}

#[cold]
fn field_error(error: httparse::Error) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => too_many_fields(),
        httparse::Error::HeaderName => Reject::new(400, "a field name is malformed"),
        httparse::Error::HeaderValue => Reject::new(400, "a field value is malformed"),
        _ => Reject::new(400, "a line end is malformed"),
    }
}

#[cfg(test)]
mod tests;
