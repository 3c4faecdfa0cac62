//! The field table that request and response heads share: `{name_off, name_len, value_off,
//! value_len}`, 16 bits each, offsets from the start of the payload.
#![forbid(unsafe_code)]

use super::{DecodeError, MAX_PAYLOAD, TooLong};

/// One entry of the table, in bytes.
pub(super) const ENTRY: usize = 8;

/// The header fields of a request or response, in order. Iterates over `(name, value)`.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    payload: &'a [u8],
    table: std::slice::ChunksExact<'a, u8>,
}

impl<'a> Fields<'a> {
    /// `table` and `payload` have been through [`check_table`].
    pub(super) fn new(payload: &'a [u8], table_at: usize, count: usize) -> Self {
        let table = &payload[table_at..table_at + count * ENTRY];
        Self {
            payload,
            table: table.chunks_exact(ENTRY),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.table.next()?;
        Some((span(self.payload, entry, 0), span(self.payload, entry, 4)))
    }

    #[inline]
    fn nth(&mut self, index: usize) -> Option<Self::Item> {
        let entry = self.table.nth(index)?;
        Some((span(self.payload, entry, 0), span(self.payload, entry, 4)))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.table.size_hint()
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// The bytes named by the span at `at` of `head`.
#[inline]
pub(super) fn span<'a>(payload: &'a [u8], head: &[u8], at: usize) -> &'a [u8] {
    let start = usize::from(u16_at(head, at));
    let len = usize::from(u16_at(head, at + 2));
    &payload[start..start + len]
}

#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Whether the span at `at` of `head` lies inside a payload of `len` bytes.
#[inline]
pub(super) fn span_fits(head: &[u8], at: usize, len: usize) -> bool {
    usize::from(u16_at(head, at)) + usize::from(u16_at(head, at + 2)) <= len
}

/// Checks the table and every span in it. All fields together are no longer than the payload: if they
/// could share bytes, a record would become hundreds of megabytes when its fields are written out.
pub(super) fn check_table(
    payload: &[u8],
    table_at: usize,
    count: usize,
) -> Result<(), DecodeError> {
    let Some(table) = payload.get(table_at..table_at + count * ENTRY) else {
        return Err(DecodeError::new(format!(
            "a table of {count} fields at {table_at} exceeds a head of {} bytes",
            payload.len()
        )));
    };
    let (mut inside, mut sum) = (true, table.len());
    for entry in table.chunks_exact(ENTRY) {
        inside &= span_fits(entry, 0, payload.len()) & span_fits(entry, 4, payload.len());
        sum += usize::from(u16_at(entry, 2)) + usize::from(u16_at(entry, 6));
    }
    if !inside {
        return Err(DecodeError::new(
            "a header field lies outside of its record",
        ));
    }
    if sum > payload.len() {
        return Err(DecodeError::new(
            "the header fields are longer than their record",
        ));
    }
    Ok(())
}

/// Appends bytes to a payload that starts at `base` and hands out spans of it. Offsets may wrap
/// while a payload grows too long; [`Encoder::finish`] refuses such a payload.
pub(super) struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    base: usize,
}

impl<'o> Encoder<'o> {
    /// Makes room for a fixed part of `fixed` bytes and a table of `count` entries.
    #[inline]
    pub(super) fn new(out: &'o mut Vec<u8>, fixed: usize, count: usize) -> Self {
        let base = out.len();
        out.resize(base + fixed + count * ENTRY, 0);
        Self { out, base }
    }

    /// Goes on with a payload that stands alone.
    #[inline]
    pub(super) fn of(out: &'o mut Vec<u8>) -> Self {
        Self { out, base: 0 }
    }

    #[inline]
    pub(super) fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        let at = self.base + at;
        self.out[at..at + N].copy_from_slice(&bytes);
    }

    /// Appends `bytes` and writes their span at `at`. Returns where they are.
    #[inline]
    pub(super) fn append(&mut self, at: usize, bytes: &[u8]) -> usize {
        let start = self.out.len() - self.base;
        self.out.extend_from_slice(bytes);
        self.put_span(at, start, bytes.len());
        start
    }

    /// Like [`Self::append`], but refers to bytes already in the payload if `bytes` is a part of
    /// `whole`, which was appended at `whole_at`: a path is usually a part of its target.
    #[inline]
    pub(super) fn append_part_of(
        &mut self,
        at: usize,
        bytes: &[u8],
        whole: &[u8],
        whole_at: usize,
    ) -> usize {
        let offset = (bytes.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        if offset <= whole.len() && bytes.len() <= whole.len() - offset {
            self.put_span(at, whole_at + offset, bytes.len());
            return whole_at + offset;
        }
        self.append(at, bytes)
    }

    /// Appends one field and its table entry at `at`.
    #[inline]
    pub(super) fn field(&mut self, at: usize, name: &[u8], value: &[u8], lower: bool) {
        let start = self.out.len();
        self.out.extend_from_slice(name);
        if lower {
            self.out[start..].make_ascii_lowercase();
        }
        self.out.extend_from_slice(value);
        let name_at = start - self.base;
        let at = self.base + at;
        let mut entry = [0; ENTRY];
        entry[0..2].copy_from_slice(&(name_at as u16).to_le_bytes());
        entry[2..4].copy_from_slice(&(name.len() as u16).to_le_bytes());
        entry[4..6].copy_from_slice(&((name_at + name.len()) as u16).to_le_bytes());
        entry[6..8].copy_from_slice(&(value.len() as u16).to_le_bytes());
        self.out[at..at + ENTRY].copy_from_slice(&entry);
    }

    /// The payload is complete. One that grew too long is taken out of the buffer again.
    #[inline]
    pub(super) fn finish(self) -> Result<(), TooLong> {
        if self.out.len() - self.base <= MAX_PAYLOAD {
            return Ok(());
        }
        self.out.truncate(self.base);
        Err(TooLong)
    }

    #[inline]
    fn put_span(&mut self, at: usize, start: usize, len: usize) {
        let mut span = [0; 4];
        span[0..2].copy_from_slice(&(start as u16).to_le_bytes());
        span[2..4].copy_from_slice(&(len as u16).to_le_bytes());
        self.put(at, span);
    }
}
