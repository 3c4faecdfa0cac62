//! Single-producer single-consumer rings of records.
//!
//! Positions are byte counts that never wrap. The producer owns the tail, its wishes and the record
//! bytes; the reader owns the head. Each checks what it reads from the other.
#![forbid(unsafe_code)]

use std::fmt;

use crate::bus::record::{HEADER, Kind, MAX_RECORD, RecordHeader, record_size};
use crate::bus::sync::{Bytes, Ordering, Word32, Word64, fence};

/// Bit of the want word: the producer waits for space.
const WANTS_SPACE: u32 = 1;
/// Bit of the want word: the producer wants to hear when an exchange starts.
const WANTS_STARTS: u32 = 2;

/// How a tail is stored: after the records before it.
#[cfg(not(mutant = "no_publish_release"))]
const PUBLISH: Ordering = Ordering::Release;
#[cfg(mutant = "no_publish_release")]
const PUBLISH: Ordering = Ordering::Relaxed;

/// How a head is stored: after the last read of the records before it.
#[cfg(not(mutant = "no_head_release"))]
const FREE: Ordering = Ordering::Release;
#[cfg(mutant = "no_head_release")]
const FREE: Ordering = Ordering::Relaxed;

/// The peer wrote something into shared memory that it may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Violation {}

/// The writing end of a ring.
pub struct Producer {
    data: Bytes,
    tail_word: Word64,
    want_word: Word32,
    head_word: Word64,
    /// Where the next record begins.
    tail: u64,
    /// The tail that the reader may see.
    published: u64,
    /// The reader's head when last looked at.
    head: u64,
    want: u32,
    violation: Option<Violation>,
}

/// The reading end of a ring.
pub struct Reader {
    data: Bytes,
    head_word: Word64,
    tail_word: Word64,
    want_word: Word32,
    /// Where the next record begins.
    head: u64,
    /// The head that the producer may see.
    released: u64,
    /// The producer's tail when last looked at.
    tail: u64,
    /// The released head for which the producer was last found waiting.
    kicked: u64,
    peeked: Option<RecordHeader>,
    owner: u16,
    slots: u16,
}

impl Producer {
    /// Appends a record made of `header` and `parts`; `header.len` is ignored. False: no room now.
    /// The reader sees it after the next [`publish`](Self::publish).
    ///
    /// # Panics
    /// If the parts are longer than [`max_payload`](Self::max_payload).
    #[inline]
    pub fn push(&mut self, header: RecordHeader, parts: &[&[u8]]) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        let Some(at) = self.claim(len) else {
            return false;
        };
        self.data.put(at, header.to_words(len), parts);
        self.tail = at + record_size(len) as u64;
        self.got_space();
        true
    }

    /// Shows the reader what was pushed. True: there was something. The caller then does one
    /// [`fence`](crate::bus::fence()) for all rings it published to, and kicks.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.tail == self.published {
            return false;
        }
        self.tail_word.store(self.tail, PUBLISH);
        self.published = self.tail;
        true
    }

    /// Tells the reader to kick us when it has freed space. The caller tries once more right after,
    /// and again whenever [`space_came`](Self::space_came).
    #[cold]
    pub fn want_space(&mut self) {
        self.set_want(self.want | WANTS_SPACE);
        #[cfg(not(mutant = "no_space_fence"))]
        fence(Ordering::SeqCst);
        self.reload_head();
    }

    /// Whether it waits for space, and the reader has moved on since it last looked.
    #[inline]
    pub fn space_came(&self) -> bool {
        self.want & WANTS_SPACE != 0
            && self.violation.is_none()
            && self.head_word.load(Ordering::Relaxed) != self.head
    }

    /// Whether a record of this many payload bytes would find room. If so, it no longer waits for
    /// space.
    #[inline]
    pub fn has_room(&mut self, payload_len: usize) -> bool {
        if payload_len > self.max_payload() || self.find(payload_len).is_none() {
            return false;
        }
        self.got_space();
        true
    }

    /// The most payload bytes that a record in this ring can have.
    #[inline]
    pub fn max_payload(&self) -> usize {
        max_record(&self.data) - HEADER
    }

    /// Tells the consumer to bump its notice and kick us when it starts an exchange, or no longer to.
    /// After switching it on the caller looks once more at the started words.
    #[inline]
    pub fn want_starts(&mut self, on: bool) {
        let want = if on {
            self.want | WANTS_STARTS
        } else {
            self.want & !WANTS_STARTS
        };
        if want == self.want {
            return;
        }
        self.set_want(want);
        #[cfg(not(mutant = "no_starts_fence"))]
        if on {
            fence(Ordering::SeqCst);
        }
    }

    /// What the reader did wrong, if anything. Its head is then no longer believed: the ring fills
    /// up and stays full.
    #[inline]
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    pub(super) fn new(data: Bytes, tail: Word64, want: Word32, head: Word64) -> Self {
        Self {
            data,
            tail_word: tail,
            want_word: want,
            head_word: head,
            tail: 0,
            published: 0,
            head: 0,
            want: 0,
            violation: None,
        }
    }

    /// Where a record of `len` payload bytes can begin, with the end of the ring filled before it
    /// if it would not fit there.
    #[inline]
    fn claim(&mut self, len: usize) -> Option<u64> {
        assert!(len <= self.max_payload(), "record too large");
        let at = self.find(len)?;
        if at != self.tail {
            let pad = RecordHeader {
                kind: Kind::Pad as u8,
                ..RecordHeader::default()
            };
            let len = (at - self.tail) as usize - HEADER;
            self.data.put(self.tail, pad.to_words(len), &[]);
        }
        Some(at)
    }

    #[inline]
    fn find(&mut self, len: usize) -> Option<u64> {
        let (size, capacity) = (record_size(len), self.data.capacity());
        let to_end = capacity - (self.tail as usize & (capacity - 1));
        let at = self.tail + if size > to_end { to_end as u64 } else { 0 };
        let end = at + size as u64;
        if end - self.head > capacity as u64 {
            self.reload_head();
            if end - self.head > capacity as u64 {
                return None;
            }
        }
        Some(at)
    }

    #[inline]
    fn got_space(&mut self) {
        if self.want & WANTS_SPACE != 0 {
            self.set_want(self.want & !WANTS_SPACE);
        }
    }

    fn reload_head(&mut self) {
        let head = self.head_word.load(Ordering::Relaxed);
        // What the reader read before it moved its head may be overwritten only after this.
        #[cfg(not(mutant = "no_reload_acquire"))]
        fence(Ordering::Acquire);
        let moved = head.wrapping_sub(self.head);
        if moved > self.published - self.head || !head.is_multiple_of(HEADER as u64) {
            self.violation = Some(Violation(
                "the head of a ring is not between its last value and the tail",
            ));
            return;
        }
        self.head = head;
    }

    fn set_want(&mut self, want: u32) {
        self.want = want;
        self.want_word.store(want, Ordering::Relaxed);
    }
}

impl Reader {
    /// Takes one look at the producer's tail. True: there is something to [`peek`](Self::peek) at.
    #[inline]
    pub fn refresh(&mut self) -> Result<bool, Violation> {
        let tail = self.tail_word.load(Ordering::Relaxed);
        // The records up to the tail are read only after it.
        #[cfg(not(mutant = "no_refresh_acquire"))]
        fence(Ordering::Acquire);
        if tail != self.tail {
            let there = tail.wrapping_sub(self.head);
            let moved = tail.wrapping_sub(self.tail);
            let capacity = self.data.capacity() as u64;
            if there > capacity || moved > capacity || !tail.is_multiple_of(HEADER as u64) {
                return Err(Violation(
                    "the tail of a ring is not between its last value and the end of the free space",
                ));
            }
            self.tail = tail;
        }
        Ok(self.tail != self.head)
    }

    /// The next record's header, copied once and checked; the same copy until the record is read or
    /// skipped. None: nothing more up to the tail seen by [`refresh`](Self::refresh).
    #[inline]
    pub fn peek(&mut self) -> Result<Option<RecordHeader>, Violation> {
        if self.peeked.is_none() {
            self.peeked = self.next_header()?;
        }
        Ok(self.peeked)
    }

    /// Appends the peeked record's payload to `into` and steps over the record. Does nothing if no
    /// record was peeked at.
    #[inline]
    pub fn read(&mut self, into: &mut Vec<u8>) {
        if let Some(header) = self.peeked {
            self.data
                .read(self.head + HEADER as u64, header.len as usize, into);
            self.step(header);
        }
    }

    /// Steps over the peeked record. Does nothing if no record was peeked at.
    #[inline]
    pub fn skip(&mut self) {
        if let Some(header) = self.peeked {
            self.step(header);
        }
    }

    /// Gives the space of all records stepped over back to the producer. True: there was some. Done
    /// along the way whenever it is a quarter of the ring; otherwise due at the end of a drain.
    #[inline]
    pub fn release(&mut self) -> bool {
        if self.head == self.released {
            return false;
        }
        self.head_word.store(self.head, FREE);
        self.released = self.head;
        true
    }

    /// Whether the producer waits for space and has not been found waiting since the last release:
    /// then it is to be kicked. To be asked after a release and a [`fence`](crate::bus::fence()).
    #[inline]
    pub fn peer_wants_space(&mut self) -> bool {
        if self.want_word.load(Ordering::Relaxed) & WANTS_SPACE == 0 || self.released == self.kicked
        {
            return false;
        }
        self.kicked = self.released;
        true
    }

    /// Whether the engine wants to hear of starts. To be asked after a start, which fences; if so, bump
    /// the notice, fence and kick.
    #[inline]
    pub fn peer_wants_starts(&self) -> bool {
        self.want_word.load(Ordering::Relaxed) & WANTS_STARTS != 0
    }

    pub(super) fn new(
        data: Bytes,
        tail: Word64,
        want: Word32,
        head: Word64,
        owner: u16,
        slots: u16,
    ) -> Self {
        Self {
            data,
            head_word: head,
            tail_word: tail,
            want_word: want,
            head: 0,
            released: 0,
            tail: 0,
            kicked: 0,
            peeked: None,
            owner,
            slots,
        }
    }

    #[inline]
    fn next_header(&mut self) -> Result<Option<RecordHeader>, Violation> {
        while self.head != self.tail {
            let first = self.data.load(self.head);
            let header = RecordHeader::from_words(first, self.data.load(self.head + 8));
            let capacity = self.data.capacity();
            let to_end = capacity - (self.head as usize & (capacity - 1));
            let to_tail = (self.tail - self.head) as usize;
            if header.kind == Kind::Pad as u8 {
                if first as u32 as usize != to_end || to_end > to_tail {
                    return Err(Violation("padding does not end where the ring ends"));
                }
                self.head += to_end as u64;
                continue;
            }
            // A length shorter than the header has become a huge one.
            if header.len as usize > max_record(&self.data) - HEADER {
                return Err(Violation("a record has an impossible length"));
            }
            let size = record_size(header.len as usize);
            if size > to_tail.min(to_end) {
                return Err(Violation(
                    "a record goes beyond the tail or the end of its ring",
                ));
            }
            if header.owner != self.owner || header.slot >= self.slots {
                return Err(Violation(
                    "a record names a loop or a slot that is not of this ring",
                ));
            }
            return Ok(Some(header));
        }
        Ok(None)
    }

    #[inline]
    fn step(&mut self, header: RecordHeader) {
        self.peeked = None;
        self.head += record_size(header.len as usize) as u64;
        if self.head - self.released >= self.data.capacity() as u64 / 4 {
            self.release();
        }
    }
}

/// Two of the largest fit, so each fits into an empty ring wherever its tail stands.
#[inline]
fn max_record(data: &Bytes) -> usize {
    MAX_RECORD.min(data.capacity() / 2)
}
