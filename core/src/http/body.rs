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
mod tests {
    use super::*;

    /// Feeds `input` in pieces; returns the body, the bytes that were not consumed and the end.
    fn read(
        framing: BodyFraming,
        limit: u64,
        input: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, usize, bool), Reject> {
        let mut reader = BodyReader::new(framing, limit);
        let (mut body, mut have, mut at) = (Vec::new(), piece.min(input.len()), 0);
        loop {
            let step = reader.next(&input[at..have])?;
            assert_eq!(step.is_end, reader.is_done());
            assert!(step.data.is_empty() || step.data.end == step.consumed);
            body.extend_from_slice(&input[at..][step.data.clone()]);
            at += step.consumed;
            if step.is_end {
                return Ok((body, input.len() - at, true));
            }
            if step.needs_more() {
                assert_eq!(
                    at, have,
                    "everything must be consumed before it asks for more"
                );
                if have == input.len() {
                    return Ok((body, 0, false));
                }
                have = (have + piece).min(input.len());
            }
        }
    }

    fn chunked(input: &str) -> Result<(Vec<u8>, usize, bool), Reject> {
        let whole = read(BodyFraming::Chunked, 1_000, input.as_bytes(), usize::MAX);
        for piece in [1, 2, 3, 7] {
            let split = read(BodyFraming::Chunked, 1_000, input.as_bytes(), piece);
            assert_eq!(split, whole, "{input:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn by_length() {
        for piece in [1, 2, 100] {
            let result = read(BodyFraming::Length(5), 0, b"hellonext", piece);
            let (body, _, done) = result.unwrap();
            assert_eq!((&body[..], done), (&b"hello"[..], true));
        }
        assert!(BodyReader::new(BodyFraming::None, 0).is_done());
        assert!(BodyReader::new(BodyFraming::Length(0), 0).is_done());
        let mut reader = BodyReader::new(BodyFraming::Length(2), 0);
        let both = BodyStep {
            data: 0..2,
            consumed: 2,
            is_end: true,
        };
        assert_eq!(reader.next(b"abc"), Ok(both));
        let end = BodyStep {
            data: 0..0,
            consumed: 0,
            is_end: true,
        };
        assert_eq!(reader.next(b"c"), Ok(end));
    }

    #[test]
    fn collected() {
        let input = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET";
        let mut reader = BodyReader::new(BodyFraming::Chunked, 0);
        let mut body = Vec::new();
        let first = reader.collect(input, 4, &mut body).unwrap();
        assert_eq!((&body[..], reader.is_done()), (&b"abcd"[..], false));
        let rest = &input[first..];
        let second = reader.collect(&rest[..3], 9, &mut body).unwrap();
        assert_eq!((second, reader.is_done()), (3, false));
        let third = reader.collect(&rest[3..], 9, &mut body).unwrap();
        assert_eq!((&body[..], reader.is_done()), (&b"abcde"[..], true));
        assert_eq!(&rest[3 + third..], b"GET");
        assert!(
            reader
                .collect(b"GET", 9, &mut body)
                .is_ok_and(|consumed| consumed == 0)
        );
        let mut reader = BodyReader::new(BodyFraming::Chunked, 0);
        assert!(reader.collect(b"1\r\nxy", 9, &mut body).is_err());
    }

    #[test]
    fn accepted_chunks() {
        for (input, body) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            (
                "3\r\nabc\r\n00A\r\n0123456789\r\n000\r\n\r\n",
                "abc0123456789",
            ),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x"),
            ("1;a\r\nx\r\n0;b=c;d=\"e \\\" f\"\r\n\r\n", "x"),
            ("1\r\n\n\r\n0\r\n\r\n", "\n"),
            ("0\r\nA: b\r\nC:\r\nContent-Length: 7\r\n\r\n", ""),
        ] {
            assert_eq!(chunked(input), Ok((body.into(), 0, true)), "{input:?}");
        }
        let whole = read(BodyFraming::Chunked, 0, b"0\r\n\r\nGET /", usize::MAX);
        assert_eq!(whole, Ok((vec![], 5, true)));
        // Complete data, but no last chunk.
        assert_eq!(chunked("5\r\nhello\r\n"), Ok((b"hello".into(), 0, false)));
    }

    #[test]
    fn refused_chunks() {
        for input in [
            "\r\n",
            ";a\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\t\r\n",
            "0x1\r\n",
            "1_0\r\n",
            "1\n",
            "1\r1",
            "1\r\r\n",
            "\n",
            "00000000000000001\r\n",
            "fffffffffffffffff\r\n",
            "1;\r\n",
            "1;=b\r\n",
            "1;a=\r\n",
            "1;a=b=c\r\n",
            "1;a\n",
            "1 ;a\r\n",
            "1; a\r\n",
            "1;a =b\r\n",
            "1;a= b\r\n",
            "1;a=\"b\r\n",
            "1;a=\"b\"c\r\n",
            "1;a b\r\n",
            "1;a\0\r\n",
            "1;a=b \r\n",
            "1;a=\"\n\"\r\n",
            "1;a=\"\\\r\n",
            "1\r\nxy\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nx0\r\n\r\n",
            "0\r\n\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA : b\r\n",
            "0\r\n: b\r\n",
            "0\r\nA: \x01\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\r\n c\r\n",
            "0\r\n\r\r",
            "0\r\nA: b\rC: d\r\n",
        ] {
            let result = chunked(input);
            assert!(
                matches!(result, Err(Reject { status: 400, .. })),
                "{input:?}: {result:?}"
            );
        }
    }

    #[test]
    fn limits() {
        let status = |input: &str| chunked(input).map_or_else(|reject| reject.status, |_| 200);
        assert_eq!(
            status(&format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000))),
            200
        );
        assert_eq!(status("3e9\r"), 413);
        assert_eq!(status(&format!("3e8\r\n{}\r\n1\r", "x".repeat(1000))), 413);
        assert_eq!(status("ffffffffffffffff\r"), 413);
        let twice = "1\r\nx\r\nffffffffffffffff\r\n";
        let unlimited = read(BodyFraming::Chunked, 0, twice.as_bytes(), usize::MAX);
        assert_eq!(unlimited.unwrap_err().status, 413);
        // 16 KiB of extensions, and one byte more for each byte of data.
        let extension = format!("1;{}\r\nx\r\n", "a".repeat(1000));
        assert_eq!(status(&extension.repeat(16)), 200);
        assert_eq!(status(&extension.repeat(17)), 413);
        let data = "x".repeat(20);
        let earned = format!("14;{}\r\n{data}\r\n", "a".repeat(19));
        let many = read(
            BodyFraming::Chunked,
            0,
            earned.repeat(2000).as_bytes(),
            1000,
        );
        assert!(many.is_ok_and(|(body, ..)| body.len() == 40_000));
        let trailer = format!("A: {}\r\n", "b".repeat(1000));
        assert_eq!(status(&format!("0\r\n{}", trailer.repeat(16))), 200);
        assert_eq!(status(&format!("0\r\n{}", trailer.repeat(17))), 431);
    }

    #[test]
    fn a_refusal_stays() {
        let mut reader = BodyReader::new(BodyFraming::Chunked, 0);
        let first = reader.next(b"zz");
        assert!(first.is_err() && !reader.is_done());
        assert_eq!(reader.next(b"0\r\n\r\n"), first);
    }
}
