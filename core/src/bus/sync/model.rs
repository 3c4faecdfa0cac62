//! The same types over loom's, for the models: a word is made when first asked for, and every clone
//! of a `Memory` finds the same one at the same offset. Record bytes are no atomics, so loom reports
//! every access to them that the control words do not order.

use std::collections::HashMap;
use std::io;
use std::mem::{offset_of, take};
use std::sync::{Arc, Mutex, MutexGuard};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::sync::{Condvar as LoomCondvar, Mutex as LoomMutex};

use crate::bus::layout::SlotEntry;

/// Shared memory of a model.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Words>>);

#[derive(Default)]
struct Words {
    short: HashMap<usize, Word32>,
    long: HashMap<usize, Word64>,
    bytes: HashMap<usize, Arc<Cell>>,
}

struct Cell(UnsafeCell<u64>);

// SAFETY: loom runs one thread at a time, and fails the model if two accesses are not ordered.
unsafe impl Send for Cell {}
// SAFETY: as above.
unsafe impl Sync for Cell {}

/// A control word.
#[derive(Clone)]
pub(crate) struct Word32(Arc<AtomicU32>);

/// A control word.
#[derive(Clone)]
pub(crate) struct Word64(Arc<AtomicU64>);

/// Rows of control words.
#[derive(Clone)]
pub(crate) struct Table {
    memory: Memory,
    offset: usize,
    stride: usize,
}

/// The record area of a ring.
pub(crate) struct Bytes(Vec<Arc<Cell>>);

/// Wakes the other side.
#[derive(Clone)]
pub(crate) struct Bell(Arc<(LoomMutex<u32>, LoomCondvar)>);

impl Memory {
    pub(crate) fn word32(&self, offset: usize) -> Word32 {
        let new = || Word32(Arc::new(AtomicU32::new(0)));
        self.words().short.entry(offset).or_insert_with(new).clone()
    }

    pub(crate) fn word64(&self, offset: usize) -> Word64 {
        let new = || Word64(Arc::new(AtomicU64::new(0)));
        self.words().long.entry(offset).or_insert_with(new).clone()
    }

    pub(crate) fn bytes(&self, offset: usize, capacity: usize) -> Bytes {
        let new = || Arc::new(Cell(UnsafeCell::new(0)));
        let mut words = self.words();
        let offsets = (offset..offset + capacity).step_by(8);
        let cell = |offset| words.bytes.entry(offset).or_insert_with(new).clone();
        Bytes(offsets.map(cell).collect())
    }

    /// Makes the words of slots at once: a thread that did it later would race with the others.
    pub(crate) fn table(&self, offset: usize, stride: usize, rows: u16) -> Table {
        for row in (0..rows).map(|row| offset + usize::from(row) * stride) {
            self.word32(row + offset_of!(SlotEntry, generation));
            self.word32(row + offset_of!(SlotEntry, recalled));
            self.word64(row + offset_of!(SlotEntry, granted));
        }
        Table {
            memory: self.clone(),
            offset,
            stride,
        }
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Word32 {
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }
}

impl Word64 {
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }
}

impl Table {
    pub(crate) fn load32(&self, row: u16, field: usize, order: Ordering) -> u32 {
        self.memory.word32(self.place(row, field)).load(order)
    }

    pub(crate) fn store32(&self, row: u16, field: usize, value: u32, order: Ordering) {
        let word = self.memory.word32(self.place(row, field));
        word.store(value, order);
    }

    pub(crate) fn load64(&self, row: u16, field: usize, order: Ordering) -> u64 {
        self.memory.word64(self.place(row, field)).load(order)
    }

    pub(crate) fn store64(&self, row: u16, field: usize, value: u64, order: Ordering) {
        let word = self.memory.word64(self.place(row, field));
        word.store(value, order);
    }

    fn place(&self, row: u16, field: usize) -> usize {
        self.offset + usize::from(row) * self.stride + field
    }
}

impl Bytes {
    pub(crate) fn capacity(&self) -> usize {
        self.0.len() * 8
    }

    pub(crate) fn load(&self, position: u64) -> u64 {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.word(position).with(|word| unsafe { *word })
    }

    fn store(&self, position: u64, value: u64) {
        // SAFETY: loom checks that nobody reads or writes meanwhile.
        self.word(position)
            .with_mut(|word| unsafe { *word = value });
    }

    pub(crate) fn put(&self, position: u64, header: [u64; 2], parts: &[&[u8]]) {
        for (position, word) in (position..).step_by(8).zip(header) {
            self.store(position, word);
        }
        let bytes = parts.iter().copied().flatten();
        for (position, byte) in (position + 16..).zip(bytes) {
            let mut word = self.load(position).to_le_bytes();
            word[position as usize % 8] = *byte;
            self.store(position, u64::from_le_bytes(word));
        }
    }

    pub(crate) fn read(&self, position: u64, len: usize, into: &mut Vec<u8>) {
        let end = into.len() + len;
        for position in (position..position + len as u64).step_by(8) {
            into.extend(self.load(position).to_le_bytes());
        }
        into.truncate(end);
    }

    fn word(&self, position: u64) -> &UnsafeCell<u64> {
        &self.0[position as usize / 8 % self.0.len()].0
    }
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self(Arc::new((LoomMutex::new(0), LoomCondvar::new())))
    }

    pub(crate) fn ring(&self) -> io::Result<()> {
        let (count, changed) = &*self.0;
        *lock(count) += 1;
        changed.notify_one();
        Ok(())
    }

    /// Blocks until it rings; how often it rang since the last call.
    pub(crate) fn wait(&self) -> u32 {
        let (count, changed) = &*self.0;
        let mut count = lock(count);
        while *count == 0 {
            count = changed
                .wait(count)
                .unwrap_or_else(|poison| poison.into_inner());
        }
        take(&mut *count)
    }
}

fn lock(count: &LoomMutex<u32>) -> loom::sync::MutexGuard<'_, u32> {
    count.lock().unwrap_or_else(|poison| poison.into_inner())
}
