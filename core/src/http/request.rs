//! Request heads. `line` reads the first line, httparse finds the fields, and `framing` decides what
//! they mean; whatever is ambiguous is refused.
#![forbid(unsafe_code)]

mod framing;
mod line;

use crate::config::Limits;

use framing::Facts;

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

    /// The request line as sent, without its end. What was parsed has exactly one space between its
    /// words, so method, target and version are one piece.
    #[inline]
    pub fn line(&self) -> Span {
        const VERSION: usize = " HTTP/1.1".len();
        let target_end = (self.target.start + self.target.len) as usize;
        Span::new(self.method.start as usize, target_end + VERSION)
    }

    fn clear(&mut self) {
        let fields = std::mem::take(&mut self.fields);
        *self = Self {
            fields,
            ..Self::default()
        };
        self.fields.clear();
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
}

/// Whatever the limits say: spans are 32 bits wide.
const MOST_BYTES: usize = u32::MAX as usize;

/// From this many bytes of fields on, their end is searched for before they are parsed.
const RESCAN: usize = 1024;

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
