//! RESP_HEAD: status, header fields and the first bytes of a response's body.
#![forbid(unsafe_code)]

use super::{
    DecodeError, Fields, MAX_PAYLOAD, TooLong,
    fields::{ENTRY, Encoder, array_at, check_table, span, span_fits, u16_at},
};

const CONTENT_LENGTH: usize = 0;
const STATUS: usize = 8;
const COUNT: usize = 10;
const TABLE: usize = 12;
const BODY: usize = 16;
const FIXED: usize = 24;

/// Appends the payload of a RESP_HEAD record. `content_length` is -1 if it is not known; names
/// keep their case.
pub fn encode_response_head<'a>(
    out: &mut Vec<u8>,
    status: u16,
    content_length: i64,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    body: &[u8],
) -> Result<(), TooLong> {
    let mut head = EncodedHead::default();
    head.fill(status, fields);
    head.set_content_length(content_length);
    head.announce_body(body.len());
    if head.len() + body.len() > MAX_PAYLOAD {
        return Err(TooLong);
    }
    out.extend_from_slice(head.bytes());
    out.extend_from_slice(body);
    Ok(())
}

/// A response head as it travels, without the body. Whoever sends the same fields again need not
/// encode them again.
#[derive(Debug)]
pub struct EncodedHead {
    /// The payload of a RESP_HEAD record, up to its inline body.
    bytes: Vec<u8>,
    /// How many fields it has, and how many there is room for.
    count: usize,
    most: usize,
}

impl EncodedHead {
    /// Begins anew, with room for so many fields.
    #[inline]
    pub fn begin(&mut self, status: u16, most: usize) {
        self.bytes.clear();
        self.bytes.resize(FIXED + most * ENTRY, 0);
        (self.count, self.most) = (0, most);
        self.put(TABLE, (FIXED as u16).to_le_bytes());
        self.set_status(status);
    }

    /// Begins anew, with these fields.
    #[inline]
    pub fn fill<'a>(
        &mut self,
        status: u16,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) {
        self.begin(status, fields.clone().count());
        for (name, value) in fields {
            self.push(name, value);
        }
    }

    /// Appends a field, whose name keeps its case. False: there is no room for it.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> bool {
        if self.count == self.most {
            return false;
        }
        let at = FIXED + self.count * ENTRY;
        Encoder::of(&mut self.bytes).field(at, name, value, false);
        self.count += 1;
        self.put(COUNT, (self.count as u16).to_le_bytes());
        true
    }

    /// Changes the status.
    #[inline]
    pub fn set_status(&mut self, status: u16) {
        self.put(STATUS, status.to_le_bytes());
    }

    /// How many bytes of a record it takes. With more than 65,520 it cannot be sent.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Says how long the whole body is, -1 if it is not known.
    #[inline]
    pub(crate) fn set_content_length(&mut self, length: i64) {
        self.put(CONTENT_LENGTH, length.to_le_bytes());
    }

    /// Says that `len` bytes of body follow. Both together fit a record.
    #[inline]
    pub(crate) fn announce_body(&mut self, len: usize) {
        let at = self.bytes.len() as u16;
        self.put(BODY, at.to_le_bytes());
        self.put(BODY + 2, (len as u16).to_le_bytes());
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }
}

/// Status 200 and no fields.
impl Default for EncodedHead {
    fn default() -> Self {
        let mut head = Self {
            bytes: Vec::new(),
            count: 0,
            most: 0,
        };
        head.begin(200, 0);
        head
    }
}

/// A response head, decoded from a private copy of its record. That its status, names and values
/// are legal HTTP is for the engine to check.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    bytes: &'a [u8],
}

impl<'a> ResponseHead<'a> {
    /// Validates the payload of a RESP_HEAD record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let len = bytes.len();
        if len > MAX_PAYLOAD {
            return Err(DecodeError::new(format!(
                "a response head of {len} bytes exceeds {MAX_PAYLOAD}"
            )));
        }
        let Some(head) = bytes.first_chunk::<FIXED>() else {
            return Err(DecodeError::new(format!(
                "a response head of {len} bytes is shorter than its fixed part of {FIXED}"
            )));
        };
        if !span_fits(head, BODY, len) {
            return Err(DecodeError::new(
                "the body of a response head lies outside of its record",
            ));
        }
        let table_at = usize::from(u16_at(head, TABLE));
        if table_at < FIXED {
            return Err(DecodeError::new(
                "the field table of a response head overlaps its fixed part",
            ));
        }
        if i64::from_le_bytes(array_at(head, CONTENT_LENGTH)) < -1 {
            return Err(DecodeError::new("the content length is negative"));
        }
        check_table(bytes, table_at, usize::from(u16_at(head, COUNT)))?;
        Ok(Self { bytes })
    }

    /// The status code.
    #[inline]
    pub fn status(&self) -> u16 {
        u16_at(self.bytes, STATUS)
    }

    /// The length of the whole body; -1 if it is not known.
    #[inline]
    pub fn content_length(&self) -> i64 {
        i64::from_le_bytes(array_at(self.bytes, CONTENT_LENGTH))
    }

    /// The header fields in the order they were given.
    #[inline]
    pub fn fields(&self) -> Fields<'a> {
        let table_at = usize::from(u16_at(self.bytes, TABLE));
        let count = usize::from(u16_at(self.bytes, COUNT));
        Fields::new(self.bytes, table_at, count)
    }

    /// The body, or the first bytes of it.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        span(self.bytes, self.bytes, BODY)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_response_survives_the_way() {
        let fields: [(&[u8], &[u8]); 2] = [(b"Content-Type", b"text/plain"), (b"x", b"")];
        let mut out = vec![9];
        encode_response_head(&mut out, 404, -1, fields.into_iter(), b"gone").unwrap();
        let head = ResponseHead::decode(&out[1..]).unwrap();
        assert_eq!((head.status(), head.content_length()), (404, -1));
        assert_eq!(head.fields().collect::<Vec<_>>(), fields);
        assert_eq!(head.body(), b"gone");
    }

    #[test]
    fn an_encoded_head_can_be_sent_again() {
        let mut encoded = EncodedHead::default();
        encoded.begin(200, 3);
        assert!(encoded.push(b"Content-Type", b"text/plain") && encoded.push(b"x", b""));
        for (status, body) in [(200, &b"hello"[..]), (404, b"")] {
            encoded.set_status(status);
            encoded.set_content_length(7);
            encoded.announce_body(body.len());
            let bytes = [encoded.bytes(), body].concat();
            let head = ResponseHead::decode(&bytes).unwrap();
            assert_eq!((head.status(), head.content_length()), (status, 7));
            assert_eq!(head.body(), body);
            let fields: [(&[u8], &[u8]); 2] = [(b"Content-Type", b"text/plain"), (b"x", b"")];
            assert_eq!(head.fields().collect::<Vec<_>>(), fields);
        }
        assert!(encoded.push(b"y", b"") && !encoded.push(b"z", b""));
        encoded.begin(204, 0);
        assert!(!encoded.push(b"x", b""));
        encoded.announce_body(0);
        let head = ResponseHead::decode(encoded.bytes()).unwrap();
        assert_eq!((head.status(), head.fields().len()), (204, 0));
    }

    #[test]
    fn a_head_can_be_sent_before_anything_is_said_of_it() {
        let mut encoded = EncodedHead::default();
        encoded.set_content_length(0);
        encoded.announce_body(0);
        let head = ResponseHead::decode(encoded.bytes()).unwrap();
        assert_eq!((head.status(), head.fields().len()), (200, 0));
        encoded.set_status(404);
        let head = ResponseHead::decode(encoded.bytes()).unwrap();
        assert_eq!(head.status(), 404);
    }

    #[test]
    fn limits_and_nonsense_are_refused() {
        let mut out = Vec::new();
        let long = vec![0; MAX_PAYLOAD];
        let refused = encode_response_head(&mut out, 200, 0, std::iter::empty(), &long);
        assert_eq!(refused, Err(TooLong));
        assert!(out.is_empty());
        encode_response_head(&mut out, 200, -2, std::iter::empty(), b"").unwrap();
        assert!(ResponseHead::decode(&out).is_err());
        assert!(ResponseHead::decode(&out[..FIXED - 1]).is_err());
    }

    #[test]
    fn fields_are_no_longer_than_their_record() {
        let long = [b'v'; 30_000];
        let one = std::iter::once((&b"n"[..], &long[..]));
        let many = std::iter::repeat_n((&b"n"[..], &b""[..]), 3_000);
        let mut out = Vec::new();
        encode_response_head(&mut out, 200, -1, one.chain(many), b"").unwrap();
        assert!(ResponseHead::decode(&out).is_ok());
        // Now every field has the value of the first: 90 MB in a record of 64 KiB.
        for index in 1..3_001 {
            let value = FIXED + index * ENTRY + 4;
            out.copy_within(FIXED + 4..FIXED + 8, value);
        }
        assert!(ResponseHead::decode(&out).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), sane: bool) {
            if sane && bytes.len() >= FIXED {
                bytes[7] = 0;
                bytes[COUNT + 1] = 0;
                bytes[TABLE..TABLE + 2].copy_from_slice(&(FIXED as u16).to_le_bytes());
            }
            if let Ok(head) = ResponseHead::decode(&bytes) {
                let sum: usize = head.fields().map(|(n, v)| n.len() + v.len()).sum();
                prop_assert!(sum <= bytes.len() && head.body().len() <= bytes.len());
            }
        }
    }
}
