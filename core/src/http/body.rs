//! Request bodies (RFC 9112, 6 and 7).
#![forbid(unsafe_code)]

use super::request::{BodyFraming, Reject};

pub(super) const TOO_LARGE: Reject = Reject {
    status: 413,
    reason: "the request body is too large",
};
const BAD_SIZE: Reject = bad("a chunk size is malformed");
const BAD_EXTENSION: Reject = bad("a chunk extension is malformed");
const BAD_END: Reject = bad("a chunk does not end where its size says");
const BAD_TRAILER: Reject = bad("a trailer field is malformed");
/// The longest line of a chunk's size and extensions, and the most bytes of trailers.
const LONGEST_LINE: usize = 4096;
const MOST_TRAILERS: usize = 8192;
/// A rest of at most this many bytes is read to keep the connection.
const SMALL_REST: u64 = 256 * 1024;

const fn bad(reason: &'static str) -> Reject {
    Reject {
        status: 400,
        reason,
    }
}

/// Takes a request's body out of what frames it.
#[derive(Debug, Default)]
pub struct BodyReader {
    state: State,
    /// Bytes that may still come; `u64::MAX` for any number.
    allowed: u64,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Done,
    /// So many bytes of a body of known length.
    Length(u64),
    /// At the line that tells a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// At the line end behind a chunk.
    ChunkEnd,
    Trailers,
}

/// What a look at the input brought. `consumed` bytes of it are done with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyStep {
    /// More input is needed.
    NeedMore {
        /// Bytes to drop.
        consumed: usize,
    },
    /// `len` bytes of the body stand at `start` of the input.
    Data {
        /// Where they begin.
        start: usize,
        /// How many they are.
        len: usize,
        /// Bytes to drop, up to the end of the data.
        consumed: usize,
    },
    /// The body is complete.
    End {
        /// Bytes to drop.
        consumed: usize,
    },
}

impl BodyReader {
    /// A reader for a body framed so, of at most `limit` bytes (0: any number).
    pub fn new(framing: BodyFraming, limit: u64) -> Self {
        Self {
            state: match framing {
                BodyFraming::None | BodyFraming::Length(0) => State::Done,
                BodyFraming::Length(length) => State::Length(length),
                BodyFraming::Chunked => State::Size,
            },
            allowed: if limit == 0 { u64::MAX } else { limit },
            trailers: 0,
        }
    }

    /// Whether the body is complete.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether little enough is missing that reading it is cheaper than a new connection.
    pub fn rest_is_small(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Length(rest) => rest <= SMALL_REST,
            _ => false,
        }
    }

    /// Looks at the input for the next part of the body.
    #[inline]
    pub fn next(&mut self, input: &[u8]) -> Result<BodyStep, Reject> {
        self.next_up_to(input, usize::MAX)
    }

    /// The same, for a part of at most `most` (and at least one) bytes.
    pub fn next_up_to(&mut self, input: &[u8], most: usize) -> Result<BodyStep, Reject> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Done => return Ok(BodyStep::End { consumed: at }),
                State::Length(left) | State::Chunk(left) => {
                    let len = rest
                        .len()
                        .min(most)
                        .min(left.try_into().unwrap_or(usize::MAX));
                    if len == 0 {
                        return Ok(BodyStep::NeedMore { consumed: at });
                    }
                    let left = left - len as u64;
                    self.state = match (self.state, left) {
                        (State::Length(_), 0) => State::Done,
                        (State::Length(_), left) => State::Length(left),
                        (_, 0) => State::ChunkEnd,
                        (_, left) => State::Chunk(left),
                    };
                    return Ok(BodyStep::Data {
                        start: at,
                        len,
                        consumed: at + len,
                    });
                }
                State::Size => {
                    let Some(line) = line(rest, LONGEST_LINE, BAD_SIZE)? else {
                        check_size_so_far(rest)?;
                        return Ok(BodyStep::NeedMore { consumed: at });
                    };
                    let size = chunk_size(line)?;
                    at += line.len() + 2;
                    self.allowed = self.allowed.checked_sub(size).ok_or(TOO_LARGE)?;
                    self.state = match size {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    };
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(BodyStep::NeedMore { consumed: at }),
                    _ => return Err(BAD_END),
                },
                State::Trailers => {
                    let Some(line) = line(rest, MOST_TRAILERS, BAD_TRAILER)? else {
                        return Ok(BodyStep::NeedMore { consumed: at });
                    };
                    at += line.len() + 2;
                    self.trailers += line.len() + 2;
                    if self.trailers > MOST_TRAILERS {
                        return Err(Reject {
                            status: 431,
                            reason: "the trailer is too large",
                        });
                    }
                    match line.is_empty() {
                        true => self.state = State::Done,
                        false => check_trailer(line)?,
                    }
                }
            }
        }
    }
}

/// The line at the start of `input` without its CRLF, `None` if it is not whole yet.
fn line(input: &[u8], longest: usize, reject: Reject) -> Result<Option<&[u8]>, Reject> {
    let within = &input[..input.len().min(longest + 2)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return match within.len() > longest + 1 {
            true => Err(reject),
            false => Ok(None),
        };
    };
    match input[..end].strip_suffix(b"\r") {
        Some(line) if !line.contains(&b'\r') => Ok(Some(line)),
        _ => Err(reject),
    }
}

/// `1*HEXDIG [ chunk-ext ]` (RFC 9112, 7.1).
fn chunk_size(line: &[u8]) -> Result<u64, Reject> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if digits == 0 || digits > 16 {
        return Err(BAD_SIZE);
    }
    check_extensions(&line[digits..])?;
    let hex =
        |size: u64, digit: &u8| size << 4 | u64::from((*digit as char).to_digit(16).unwrap_or(0));
    Ok(line[..digits].iter().fold(0, hex))
}

/// A size that can never become one need not be waited for.
fn check_size_so_far(bytes: &[u8]) -> Result<(), Reject> {
    match bytes.first() {
        Some(byte) if !byte.is_ascii_hexdigit() => Err(BAD_SIZE),
        _ => Ok(()),
    }
}

/// `*( ";" chunk-ext-name [ "=" chunk-ext-val ] )`, where the value is a token or a quoted string.
/// The white space that RFC 9112, 7.1.1 calls bad is refused.
fn check_extensions(mut rest: &[u8]) -> Result<(), Reject> {
    while let Some((first, after)) = rest.split_first() {
        if *first != b';' {
            return Err(if rest.len() == after.len() + 1 && is_space(*first) {
                BAD_SIZE
            } else {
                BAD_EXTENSION
            });
        }
        let name = after.iter().take_while(|byte| is_token(**byte)).count();
        if name == 0 {
            return Err(BAD_EXTENSION);
        }
        rest = &after[name..];
        let [b'=', value @ ..] = rest else {
            continue;
        };
        rest = match value {
            [b'"', quoted @ ..] => skip_quoted(quoted)?,
            _ => {
                let len = value.iter().take_while(|byte| is_token(**byte)).count();
                if len == 0 {
                    return Err(BAD_EXTENSION);
                }
                &value[len..]
            }
        };
    }
    Ok(())
}

/// What follows the quoted string whose inside `bytes` begins with.
fn skip_quoted(bytes: &[u8]) -> Result<&[u8], Reject> {
    let mut rest = bytes;
    loop {
        match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', escaped, after @ ..] if is_text(*escaped) => rest = after,
            [byte, after @ ..] if *byte != b'\\' && is_text(*byte) => rest = after,
            _ => return Err(BAD_EXTENSION),
        }
    }
}

fn check_trailer(line: &[u8]) -> Result<(), Reject> {
    let name = line.iter().take_while(|byte| is_token(**byte)).count();
    match &line[name..] {
        [b':', value @ ..] if name > 0 && value.iter().all(|byte| is_text(*byte)) => Ok(()),
        _ => Err(BAD_TRAILER),
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

/// A character of a token (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
