//! Records: what stands in a ring. A 16-byte header, then the payload; the next record begins at
//! the next multiple of 16.
#![forbid(unsafe_code)]

/// Bytes of a record's header; records begin at multiples of it.
pub const HEADER: usize = 16;

/// The most bytes a record takes in a ring, header and padding included.
pub const MAX_RECORD: usize = 65536;

/// What a record is. Other values may come from a newer peer; see [`flags::MUST_UNDERSTAND`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fills the end of a ring; readers step over it.
    Pad = 0,
    /// A request, with as much of its body as was there.
    RequestHead,
    /// More of a request's body.
    RequestBody,
    /// A response, with as much of its body as was there.
    ResponseHead,
    /// More of a response's body.
    ResponseBody,
    /// A file that is (part of) a response's body.
    ResponseFile,
    /// Trailer fields of a response.
    ResponseTrailers,
    /// The response failed after its head.
    ResponseAbort,
    /// The exchange ended on request of the engine; `aux` is 1 if the application had it.
    Cancelled,
    /// A stream opens.
    Open,
    /// Bytes of a stream.
    Data,
    /// A stream ends.
    Close,
    /// A WebSocket message; its opcode stands in `aux`.
    Message,
    /// Asks for a `Pong`.
    Ping,
    /// Answers a `Ping`.
    Pong,
    /// What a consumer waits for on a stream, and for how long.
    Want,
    /// Nothing has come on a stream in time.
    Timeout,
}

impl Kind {
    /// The kind with this wire value, if this version knows it.
    #[inline]
    pub const fn from_wire(value: u8) -> Option<Kind> {
        const ALL: [Kind; 17] = [
            Kind::Pad,
            Kind::RequestHead,
            Kind::RequestBody,
            Kind::ResponseHead,
            Kind::ResponseBody,
            Kind::ResponseFile,
            Kind::ResponseTrailers,
            Kind::ResponseAbort,
            Kind::Cancelled,
            Kind::Open,
            Kind::Data,
            Kind::Close,
            Kind::Message,
            Kind::Ping,
            Kind::Pong,
            Kind::Want,
            Kind::Timeout,
        ];
        if (value as usize) < ALL.len() {
            return Some(ALL[value as usize]);
        }
        None
    }
}

/// Bits of [`RecordHeader::flags`].
pub mod flags {
    /// The message is complete on the wire.
    pub const END: u8 = 1;
    /// The exchange is over; its slot is free.
    pub const DONE: u8 = 2;
    /// A reader that does not know the kind must refuse it instead of skipping it.
    pub const MUST_UNDERSTAND: u8 = 4;
    /// A descriptor belongs to the record and was sent on the control socket before.
    pub const FD_FOLLOWS: u8 = 8;
}

/// A record's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// A [`Kind`], or a value that this version does not know.
    pub kind: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Its meaning depends on the kind.
    pub aux: u16,
    /// The loop whose exchange it is.
    pub owner: u16,
    /// The exchange's slot on the lane.
    pub slot: u16,
    /// Which use of the slot; never 0.
    pub generation: u32,
    /// Payload bytes, without header and padding.
    pub len: u32,
}

impl RecordHeader {
    /// The two words of the header, for `len` bytes of payload.
    #[inline]
    pub(super) fn to_words(self, len: usize) -> [u64; 2] {
        let first = (len + HEADER) as u64 & u64::from(u32::MAX)
            | u64::from(self.kind) << 32
            | u64::from(self.flags) << 40
            | u64::from(self.aux) << 48;
        let second =
            u64::from(self.owner) | u64::from(self.slot) << 16 | u64::from(self.generation) << 32;
        [first, second]
    }

    /// What two words say; `len` is wrong if the record is shorter than a header.
    #[inline]
    pub(super) fn from_words(first: u64, second: u64) -> Self {
        Self {
            kind: (first >> 32) as u8,
            flags: (first >> 40) as u8,
            aux: (first >> 48) as u16,
            owner: second as u16,
            slot: (second >> 16) as u16,
            generation: (second >> 32) as u32,
            len: (first as u32).wrapping_sub(HEADER as u32),
        }
    }
}

/// The bytes that a record of `len` payload bytes takes in a ring.
#[inline]
pub(super) const fn record_size(len: usize) -> usize {
    (len + HEADER).next_multiple_of(HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_on_the_wire() {
        let header = RecordHeader {
            kind: Kind::ResponseHead as u8,
            flags: flags::END | flags::DONE,
            aux: 0x1122,
            owner: 0x0102,
            slot: 0x0304,
            generation: 0x0506_0708,
            len: 5,
        };
        let [first, second] = header.to_words(5);
        assert_eq!(first.to_le_bytes(), [21, 0, 0, 0, 3, 3, 0x22, 0x11]);
        assert_eq!(second.to_le_bytes(), [2, 1, 4, 3, 8, 7, 6, 5]);
        assert_eq!(RecordHeader::from_words(first, second), header);
        assert_eq!(
            (record_size(0), record_size(1), record_size(16)),
            (16, 32, 32)
        );
    }

    #[test]
    fn kinds_on_the_wire() {
        for value in 0..=u8::MAX {
            let kind = Kind::from_wire(value);
            assert_eq!(kind.map(|kind| kind as u8), (value < 17).then_some(value));
        }
    }
}
