//! Request bodies: by length or in chunks.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::request::{BodyFraming, Reject};
use super::syntax::{hex_digit, is_token_byte, is_value_byte};

/// What [`BodyReader::next`] found at the beginning of the input: data, the end, or both. If neither,
/// more input is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyStep {
    /// Where in the input a part of the body is; empty if there is none.
    pub data: Range<usize>,
    /// Bytes to drop from the input: the data and the framing before it.
    pub consumed: usize,
    /// The body is complete; what follows belongs to the next request.
    pub is_end: bool,
}

impl BodyStep {
    /// Whether there was neither data nor the end in the input, all of which is consumed.
    #[inline]
    pub fn needs_more(&self) -> bool {
        self.data.is_empty() && !self.is_end
    }
}

/// Takes the framing off a request body.
///
/// Each byte of framing is looked at once, wherever the input is split. Trailers are validated,
/// then dropped; so are chunk extensions. After a [`Reject`] it keeps returning that.
#[derive(Debug, Default)]
pub struct BodyReader {
    state: State,
    /// Body bytes that are still allowed; `u64::MAX` is no limit in practice.
    allowed: u64,
    /// Bytes of chunk extensions and trailers that are still allowed.
    spare: u32,
}

impl BodyReader {
    /// A reader for a body with this framing. More than `limit` bytes in chunks are refused with
    /// 413; 0 is no limit. A declared length was checked with the head.
    pub fn new(framing: BodyFraming, limit: u64) -> Self {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Size { digits: 0, size: 0 },
        };
        let allowed = match limit {
            0 => u64::MAX,
            limit => limit,
        };
        Self {
            state,
            allowed,
            spare: MOST_EXTRA,
        }
    }

    /// Reads on. The caller drops `consumed` bytes from the input before the next call.
    #[inline]
    pub fn next(&mut self, input: &[u8]) -> Result<BodyStep, Reject> {
        self.next_up_to(input, usize::MAX)
    }

    /// The same, for at most `most` bytes of data at a time.
    pub fn next_up_to(&mut self, input: &[u8], most: usize) -> Result<BodyStep, Reject> {
        match self.advance(input, most) {
            Err(reject) => {
                self.state = State::Failed(reject);
                Err(reject)
            }
            step => step,
        }
    }

    /// Appends the data in the input to `body`, at most `most` bytes of it. Returns how many bytes of
    /// the input to drop.
    pub fn collect(
        &mut self,
        input: &[u8],
        most: usize,
        body: &mut Vec<u8>,
    ) -> Result<usize, Reject> {
        let (mut at, mut room) = (0, most);
        loop {
            let step = self.next_up_to(&input[at..], room)?;
            room -= step.data.len();
            let is_last = step.needs_more() || step.is_end || room == 0;
            body.extend_from_slice(&input[at..][step.data]);
            at += step.consumed;
            if is_last {
                return Ok(at);
            }
        }
    }

    /// Whether the whole body, its framing included, has been read.
    #[inline]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether little enough is missing that reading it is cheaper than a new connection.
    pub fn rest_is_small(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Length(left) => left <= SMALL_REST,
            _ => false,
        }
    }

    fn advance(&mut self, input: &[u8], most: usize) -> Result<BodyStep, Reject> {
        let mut at = 0;
        loop {
            if let State::Length(left) | State::Data(left) = &mut self.state {
                let len = ((input.len() - at).min(most) as u64).min(*left);
                *left -= len;
                if *left == 0 {
                    self.state = match self.state {
                        State::Data(_) => State::DataCr,
                        _ => State::Done,
                    };
                }
                let end = at + len as usize;
                return Ok(self.step(at..end, end));
            }
            if let State::Failed(reject) = self.state {
                return Err(reject);
            }
            match input.get(at) {
                Some(&byte) if !self.is_done() => self.frame(byte)?,
                _ => return Ok(self.step(at..at, at)),
            }
            at += 1;
        }
    }

    fn step(&self, data: Range<usize>, consumed: usize) -> BodyStep {
        BodyStep {
            data,
            consumed,
            is_end: self.is_done(),
        }
    }

    /// Moves on by one byte of chunk framing.
    fn frame(&mut self, byte: u8) -> Result<(), Reject> {
        self.state = match (self.state, byte) {
            (State::Size { digits, size }, _) if hex_digit(byte).is_some() => {
                // Leading zeros count: sixteen digits are all a size can need.
                if digits == 16 {
                    return Err(Reject::new(400, "a chunk size is malformed"));
                }
                let digit = hex_digit(byte).unwrap_or_default();
                State::Size {
                    digits: digits + 1,
                    size: size << 4 | u64::from(digit),
                }
            }
            (State::Size { digits: 0, .. }, _) => {
                return Err(Reject::new(400, "a chunk size is malformed"));
            }
            (State::Size { size, .. }, b'\r' | b';') => {
                // Refused as soon as it is declared, before any of it is read.
                let Some(allowed) = self.allowed.checked_sub(size) else {
                    return Err(Reject::new(413, "the request body is too long"));
                };
                self.allowed = allowed;
                // Data earns its framing: chunks may all be extended, but not tiny ones for ever.
                let earned = u64::from(self.spare).saturating_add(size);
                self.spare = earned.min(u64::from(MOST_EXTRA)) as u32;
                match byte {
                    b'\r' => State::SizeLf { size },
                    _ => State::Extension {
                        size,
                        at: Extension::BeforeName,
                    },
                }
            }
            (State::Size { .. }, _) => return Err(Reject::new(400, "a chunk size is malformed")),

            (State::Extension { size, at }, _) => {
                self.spend("the chunk extensions are too long", 413)?;
                match at.after(byte) {
                    Some(Extension::End) => State::SizeLf { size },
                    Some(at) => State::Extension { size, at },
                    None => return Err(Reject::new(400, "a chunk extension is malformed")),
                }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::LineStart,
            (State::SizeLf { size }, b'\n') => State::Data(size),
            (State::SizeLf { .. }, _) => return Err(Reject::new(400, "a chunk size is malformed")),

            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            (State::DataCr | State::DataLf, _) => {
                return Err(Reject::new(400, "a chunk does not end where its size says"));
            }

            (State::LineStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::LineStart | State::TrailerName, _) if is_token_byte(byte) => {
                self.spend("the trailer is too long", 431)?;
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_value_byte(byte) => {
                self.spend("the trailer is too long", 431)?;
                State::TrailerValue
            }
            (State::TrailerLf, b'\n') => State::LineStart,
            _ => return Err(Reject::new(400, "a trailer field is malformed")),
        };
        Ok(())
    }

    /// Counts one byte that takes work but carries nothing.
    fn spend(&mut self, reason: &'static str, status: u16) -> Result<(), Reject> {
        let Some(spare) = self.spare.checked_sub(1) else {
            return Err(Reject::new(status, reason));
        };
        self.spare = spare;
        Ok(())
    }
}

/// Bytes of chunk extensions and trailers that a body may carry beyond as many as it has data.
const MOST_EXTRA: u32 = 16 * 1024;

/// A rest of at most this many bytes is read to keep the connection.
const SMALL_REST: u64 = 256 * 1024;

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// So many bytes of a body with a length are to come.
    Length(u64),
    /// In the size of a chunk.
    Size {
        digits: u8,
        size: u64,
    },
    /// In the extensions of a chunk.
    Extension {
        size: u64,
        at: Extension,
    },
    /// Before the LF after the size.
    SizeLf {
        size: u64,
    },
    /// So many bytes of a chunk are to come.
    Data(u64),
    /// Before the CR after the data.
    DataCr,
    /// Before the LF after the data.
    DataLf,
    /// After the last chunk, at the beginning of a line.
    LineStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// Before the very last LF.
    EndLf,
    #[default]
    Done,
    Failed(Reject),
}

/// Where in `;name=value` the reader is. The white space that RFC 9112, 7.1.1 calls bad is refused.
#[derive(Clone, Copy, Debug)]
enum Extension {
    BeforeName,
    Name,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    AfterQuoted,
    End,
}

impl Extension {
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::BeforeName | Self::Name, _) if is_token_byte(byte) => Self::Name,
            (Self::Name, b'=') => Self::BeforeValue,
            (Self::BeforeValue, b'"') => Self::Quoted,
            (Self::BeforeValue | Self::Value, _) if is_token_byte(byte) => Self::Value,
            (Self::Quoted, b'"') => Self::AfterQuoted,
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted | Self::Escaped, _) if is_value_byte(byte) => Self::Quoted,
            (Self::Name | Self::Value | Self::AfterQuoted, b';') => Self::BeforeName,
            (Self::Name | Self::Value | Self::AfterQuoted, b'\r') => Self::End,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
