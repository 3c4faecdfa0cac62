//! The real thing: mapped memory that another process may change at any time.
//!
//! No reference or slice to such memory is ever made except to its atomics. Where a mapping is
//! read-only only relaxed loads of at most eight bytes are done, the one kind of atomic access that
//! is allowed there; a fence follows where order matters.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys::eventfd::EventFd;
use crate::sys::memory::Mapping;

/// Payloads up to this size are copied word by word, longer ones by the processor's string copy.
const WORD_COPY_LIMIT: usize = 256;

/// A mapping, kept alive by everything that points into it.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Mapping>);

impl Memory {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self(Arc::new(mapping))
    }

    pub(crate) fn word32(&self, offset: usize) -> Word32 {
        Word32 {
            word: self.place(offset, 4, 4).cast(),
            memory: self.clone(),
        }
    }

    pub(crate) fn word64(&self, offset: usize) -> Word64 {
        Word64 {
            word: self.place(offset, 8, 8).cast(),
            memory: self.clone(),
        }
    }

    /// `capacity` bytes, a power of two.
    pub(crate) fn bytes(&self, offset: usize, capacity: usize) -> Bytes {
        assert!(capacity.is_power_of_two() && capacity >= 16);
        Bytes {
            start: self.place(offset, capacity, 16),
            mask: capacity - 1,
            memory: self.clone(),
        }
    }

    /// `rows` rows, `stride` bytes apart.
    pub(crate) fn table(&self, offset: usize, stride: usize, rows: u16) -> Table {
        assert!(rows > 0 && stride.is_multiple_of(8));
        Table {
            start: self.place(offset, stride * usize::from(rows), 8),
            stride,
            rows,
            memory: self.clone(),
        }
    }

    fn place(&self, offset: usize, len: usize, align: usize) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.0.len()) && offset.is_multiple_of(align));
        // SAFETY: the assertion keeps the result within the mapping, which is not at null.
        unsafe { NonNull::new_unchecked(self.0.as_ptr().add(offset)) }
    }

    fn is_writable(&self) -> bool {
        self.0.is_writable()
    }
}

macro_rules! word {
    ($name:ident, $atomic:ty, $value:ty) => {
        /// A control word.
        #[derive(Debug)]
        pub(crate) struct $name {
            word: NonNull<$value>,
            memory: Memory,
        }

        // SAFETY: the word is reached by atomic operations only and the mapping is Send and Sync.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $name {
            /// Relaxed is the only order allowed where the memory is mapped read-only.
            #[inline]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                // SAFETY: `Memory` made the pointer aligned and within the mapping it keeps alive.
                unsafe { <$atomic>::from_ptr(self.word.as_ptr()) }.load(order)
            }

            #[inline]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                debug_assert!(self.memory.is_writable());
                // SAFETY: as in `load`; only words of writable mappings are stored to.
                unsafe { <$atomic>::from_ptr(self.word.as_ptr()) }.store(value, order);
            }
        }
    };
}

word!(Word32, AtomicU32, u32);
word!(Word64, AtomicU64, u64);

/// Rows of control words.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    start: NonNull<u8>,
    stride: usize,
    rows: u16,
    memory: Memory,
}

// SAFETY: the rows are reached by atomic operations only and the mapping is Send and Sync.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    #[inline]
    pub(crate) fn load32(&self, row: u16, field: usize, order: Ordering) -> u32 {
        let word = self.place(row, field, 4).cast();
        // SAFETY: `place` checked that the word is aligned and within the table.
        unsafe { AtomicU32::from_ptr(word) }.load(order)
    }

    #[inline]
    pub(crate) fn store32(&self, row: u16, field: usize, value: u32, order: Ordering) {
        debug_assert!(self.memory.is_writable());
        let word = self.place(row, field, 4).cast();
        // SAFETY: `place` checked that the word is aligned and within the table; only tables in
        // writable mappings are stored to.
        unsafe { AtomicU32::from_ptr(word) }.store(value, order);
    }

    #[inline]
    pub(crate) fn load64(&self, row: u16, field: usize, order: Ordering) -> u64 {
        let word = self.place(row, field, 8).cast();
        // SAFETY: `place` checked that the word is aligned and within the table.
        unsafe { AtomicU64::from_ptr(word) }.load(order)
    }

    #[inline]
    pub(crate) fn store64(&self, row: u16, field: usize, value: u64, order: Ordering) {
        debug_assert!(self.memory.is_writable());
        let word = self.place(row, field, 8).cast();
        // SAFETY: `place` checked that the word is aligned and within the table; only tables in
        // writable mappings are stored to.
        unsafe { AtomicU64::from_ptr(word) }.store(value, order);
    }

    #[inline]
    fn place(&self, row: u16, field: usize, size: usize) -> *mut u8 {
        assert!(row < self.rows, "slot {row} of {}", self.rows);
        assert!(field.is_multiple_of(size) && field + size <= self.stride);
        // SAFETY: the assertions keep the result within the table.
        unsafe {
            self.start
                .as_ptr()
                .add(usize::from(row) * self.stride + field)
        }
    }
}

/// The record area of a ring. Positions are taken modulo its capacity.
#[derive(Debug)]
pub(crate) struct Bytes {
    start: NonNull<u8>,
    mask: usize,
    memory: Memory,
}

// SAFETY: the bytes are reached by atomic operations and raw copies only, never by references, and
// the mapping is Send. Not Sync: `put` must not run twice at once.
unsafe impl Send for Bytes {}

impl Bytes {
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.mask + 1
    }

    /// The word at `position`, rounded down to a multiple of eight.
    #[inline]
    pub(crate) fn load(&self, position: u64) -> u64 {
        // SAFETY: `word` is aligned and within the area.
        unsafe { AtomicU64::from_ptr(self.word(position)) }.load(Ordering::Relaxed)
    }

    /// Sets the words at `position` (a multiple of eight) on to `header`, and the bytes behind them to
    /// `parts`; they may not cross the end of the area.
    #[inline]
    pub(crate) fn put(&self, position: u64, header: [u64; 2], parts: &[&[u8]]) {
        debug_assert!(self.memory.is_writable());
        let offset = position as usize & self.mask & !7;
        let mut room = self.capacity() - offset;
        assert!(size_of_val(&header) <= room);
        // SAFETY: `room` counts what is left of the area behind `target`, and is asserted to hold each
        // piece; this process' own memory never overlaps it, and the words are aligned. The peer reads
        // here only what was published; if it looks at more, it sees torn bytes, which is its own
        // affair: nothing is read back.
        unsafe {
            let mut target = self.start.as_ptr().add(offset);
            for word in header {
                AtomicU64::from_ptr(target.cast()).store(word, Ordering::Relaxed);
                target = target.add(size_of::<u64>());
            }
            room -= size_of_val(&header);
            for part in parts {
                assert!(part.len() <= room);
                copy_in(part.as_ptr(), target, part.len());
                target = target.add(part.len());
                room -= part.len();
            }
        }
    }

    /// Appends `len` bytes from `position` (a multiple of eight) on to `into`; they may not cross
    /// the end of the area. The peer may be changing them: each is read exactly once.
    #[inline]
    pub(crate) fn read(&self, position: u64, len: usize, into: &mut Vec<u8>) {
        let offset = position as usize & self.mask & !7;
        let words = len.div_ceil(8);
        assert!(words <= (self.capacity() - offset) / 8);
        into.reserve(words * 8);
        // SAFETY: the assertion keeps the reads within the area; the reserve made room for `words`
        // words behind the end of `into`, of which the first `len` bytes are set when it grows.
        unsafe {
            let source = self.start.as_ptr().add(offset);
            let target = into.as_mut_ptr().add(into.len());
            if len <= WORD_COPY_LIMIT {
                copy_words(source, target, words);
            } else {
                copy_long(source, target, len);
            }
            into.set_len(into.len() + len);
        }
    }

    #[inline]
    fn word(&self, position: u64) -> *mut u64 {
        let offset = position as usize & self.mask & !7;
        // SAFETY: the capacity is a power of two of at least 16, so a whole word lies at every
        // multiple of eight below it.
        unsafe { self.start.as_ptr().add(offset).cast() }
    }
}

/// Wakes the other side.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<EventFd>);

impl Bell {
    pub(crate) fn new(event: Arc<EventFd>) -> Self {
        Self(event)
    }

    pub(crate) fn ring(&self) -> io::Result<()> {
        self.0.signal()
    }
}

/// Copies `len` bytes. Short ones are copied without a call, by their first and last 2^n bytes, which
/// may overlap.
///
/// # Safety
/// Both must be valid for `len` bytes and not overlap.
#[inline]
unsafe fn copy_in(source: *const u8, target: *mut u8, len: usize) {
    /// # Safety
    /// As above; `len` must be at least `N`.
    #[inline]
    unsafe fn ends<const N: usize>(source: *const u8, target: *mut u8, len: usize) {
        // SAFETY: the first and the last `N` bytes lie within the `len` bytes.
        unsafe {
            target.copy_from_nonoverlapping(source, N);
            let (source, target) = (source.add(len - N), target.add(len - N));
            target.copy_from_nonoverlapping(source, N);
        }
    }
    // SAFETY: as the caller promises.
    unsafe {
        match len {
            8..=16 => ends::<8>(source, target, len),
            17..=32 => ends::<16>(source, target, len),
            33..=64 => ends::<32>(source, target, len),
            65..=128 => ends::<64>(source, target, len),
            _ => target.copy_from_nonoverlapping(source, len),
        }
    }
}

/// Copies `words` words that somebody may be writing to.
///
/// # Safety
/// Both must be valid for that many words; `source` must be aligned to eight bytes.
#[inline]
unsafe fn copy_words(source: *mut u8, target: *mut u8, words: usize) {
    for index in 0..words {
        // SAFETY: within bounds and aligned, as the caller promises.
        unsafe {
            let word = AtomicU64::from_ptr(source.cast::<u64>().add(index)).load(Ordering::Relaxed);
            target.cast::<u64>().add(index).write_unaligned(word);
        }
    }
}

/// Copies `len` bytes that somebody may be writing to. The compiler sees no reads that it could
/// repeat or rely on.
///
/// # Safety
/// Both must be valid for `len` bytes rounded up to whole words, `source` aligned to eight bytes.
#[inline]
unsafe fn copy_long(source: *mut u8, target: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: both are valid for `len` bytes, and the ABI keeps the direction flag clear.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") source => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: as the caller promises.
    unsafe {
        copy_words(source, target, len.div_ceil(8));
    }
}
