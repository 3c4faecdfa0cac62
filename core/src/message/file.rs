//! RESP_FILE: a whole response whose body is a part of an open file. The descriptor comes over the
//! control socket, before the record or after it; see `Control::File`.
#![forbid(unsafe_code)]

use super::{
    DecodeError, MAX_PAYLOAD, ResponseHead, TooLong, fields::array_at,
    response::encode_response_head,
};

const OFFSET: usize = 0;
const LENGTH: usize = 8;
/// The head follows, in the form it has without a file.
const HEAD: usize = 16;

/// Appends the payload of a RESP_FILE record.
pub fn encode_file_head<'a>(
    out: &mut Vec<u8>,
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    offset: u64,
    length: u64,
) -> Result<(), TooLong> {
    let base = out.len();
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    let encoded = encode_response_head(out, status, -1, fields, &[]);
    if encoded.is_ok() && out.len() - base <= MAX_PAYLOAD {
        return Ok(());
    }
    out.truncate(base);
    Err(TooLong)
}

/// A response by file, decoded from a private copy of its record.
#[derive(Clone, Copy, Debug)]
pub struct FileHead<'a> {
    /// Where in the file the body begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
    /// Status and fields; it has no body of its own.
    pub head: ResponseHead<'a>,
}

impl<'a> FileHead<'a> {
    /// Validates the payload of a RESP_FILE record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((fixed, rest)) = bytes.split_at_checked(HEAD) else {
            return Err(DecodeError::new(
                "a response by file is shorter than its fixed part",
            ));
        };
        let offset = u64::from_le_bytes(array_at(fixed, OFFSET));
        let length = u64::from_le_bytes(array_at(fixed, LENGTH));
        if offset
            .checked_add(length)
            .is_none_or(|end| end > i64::MAX as u64)
        {
            return Err(DecodeError::new(
                "a response by file ends beyond every file",
            ));
        }
        let head = ResponseHead::decode(rest)?;
        if !head.body().is_empty() {
            return Err(DecodeError::new("a response by file has a body, too"));
        }
        Ok(Self {
            offset,
            length,
            head,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(offset: u64, length: u64) -> Vec<u8> {
        let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain")];
        let mut out = vec![7];
        encode_file_head(&mut out, 206, fields.into_iter(), offset, length).unwrap();
        out.split_off(1)
    }

    #[test]
    fn a_response_by_file_survives_the_way() {
        let bytes = sample(5, 1 << 40);
        let file = FileHead::decode(&bytes).unwrap();
        assert_eq!((file.offset, file.length), (5, 1 << 40));
        assert_eq!(file.head.status(), 206);
        assert_eq!(file.head.fields().count(), 1);
    }

    #[test]
    fn limits_and_nonsense_are_refused() {
        assert!(FileHead::decode(&sample(u64::MAX, 1)).is_err());
        assert!(FileHead::decode(&sample(1, i64::MAX as u64)).is_err());
        let bytes = sample(0, 1);
        for end in 0..bytes.len() {
            assert!(FileHead::decode(&bytes[..end]).is_err());
        }
        let value = vec![b'v'; MAX_PAYLOAD - 60];
        let fields: [(&[u8], &[u8]); 1] = [(b"a", &value)];
        let mut out = vec![1];
        let fitting = encode_response_head(&mut vec![], 200, -1, fields.into_iter(), b"");
        let refused = encode_file_head(&mut out, 200, fields.into_iter(), 0, 0);
        assert_eq!((fitting, refused, out), (Ok(()), Ok(()), sample_of(&value)));
        let value = vec![b'v'; MAX_PAYLOAD - 40];
        let fields: [(&[u8], &[u8]); 1] = [(b"a", &value)];
        let mut out = vec![1];
        let refused = encode_file_head(&mut out, 200, fields.into_iter(), 0, 0);
        assert_eq!((refused, out), (Err(TooLong), vec![1]));
    }

    fn sample_of(value: &[u8]) -> Vec<u8> {
        let mut out = vec![1];
        let fields: [(&[u8], &[u8]); 1] = [(b"a", value)];
        encode_file_head(&mut out, 200, fields.into_iter(), 0, 0).unwrap();
        out
    }

    proptest! {
        #[test]
        fn decoding_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), sane: bool) {
            if sane && bytes.len() > 40 {
                bytes[..16].fill(0);
                bytes[16..24].fill(0);
            }
            if let Ok(file) = FileHead::decode(&bytes) {
                prop_assert!(file.offset.checked_add(file.length).is_some());
            }
        }
    }
}
