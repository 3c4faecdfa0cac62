//! Where everything stands in the three kinds of memory: S (the engine's status page), E (written by
//! the engine) and C (written by the consumer). Little-endian; words of different writers or readers
//! are 128 bytes apart.
//!
//! The structs are never made: they give the offsets.
#![forbid(unsafe_code)]

use std::io;

use crate::bus::record::HEADER;

const _: () = assert!(cfg!(target_endian = "little"));

/// The most loops an engine has.
pub const MAX_LOOPS: u16 = 32;

/// The version of the layout and of the records: (major, minor). Majors are incompatible, minors
/// append.
pub const ABI: (u16, u16) = (1, 0);

pub(super) const STATUS_MAGIC: u32 = u32::from_le_bytes(*b"BUSS");
pub(super) const ENGINE_MAGIC: u32 = u32::from_le_bytes(*b"BUSE");
pub(super) const CONSUMER_MAGIC: u32 = u32::from_le_bytes(*b"BUSC");

/// The length of S: loops, then public counters.
pub(super) const STATUS_LEN: usize = 0x3000;
/// Where the ring table stands in E and C; the slot table follows it.
pub(super) const RING_TABLE: usize = 0x100;

const PAGE: usize = 4096;
const MIN_CAPACITY: u32 = 4096;
const MAX_CAPACITY: u32 = 1 << 26;

/// The head of S.
#[repr(C)]
pub(super) struct StatusHeader {
    pub(super) magic: u32,
    pub(super) abi: u32,
    pub(super) epoch: u64,
    rest: [u8; 0xF0],
}

/// One per loop in S, behind the head.
#[repr(C)]
pub(super) struct LoopEntry {
    pub(super) wake: u32,
    rest: [u8; 0x7C],
}

/// The head of E. The version is major in the low half, minor in the high one; likewise rings and
/// slots.
#[repr(C)]
pub(super) struct EngineHeader {
    pub(super) magic: u32,
    pub(super) abi: u32,
    pub(super) lane_id: u64,
    pub(super) engine_len: u64,
    pub(super) consumer_len: u64,
    pub(super) rings_and_slots: u32,
    pub(super) ring_table: u32,
    pub(super) slot_table: u32,
    pub(super) request_capacity: u32,
    pub(super) response_capacity: u32,
    reserved: u32,
    pub(super) features: u64,
    gap: [u8; 0x40],
    pub(super) state: u32,
    rest: [u8; 0x7C],
}

/// The head of C.
#[repr(C)]
pub(super) struct ConsumerHeader {
    pub(super) magic: u32,
    pub(super) abi: u32,
    gap: [u8; 0x78],
    pub(super) wake: u32,
    gap_of_tick: [u8; 0x3C],
    pub(super) tick: u32,
    rest: [u8; 0x3C],
}

/// One per loop in E (tail of requests, head of responses) and in C (the other way round).
#[repr(C)]
pub(super) struct RingEntry {
    pub(super) tail: u64,
    pub(super) want: u32,
    pub(super) notice: u32,
    gap: [u8; 0x70],
    pub(super) head: u64,
    rest: [u8; 0x78],
}

/// One per slot in E (cancelled, bytes of response granted) and in C (started, bytes of request
/// granted).
#[repr(C)]
pub(super) struct SlotEntry {
    pub(super) generation: u32,
    /// Of the engine's table: the generation that was called back.
    pub(super) recalled: u32,
    pub(super) granted: u64,
    rest: [u8; 0x30],
}

/// What is behind the heads of E and C, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Rings in each direction: one per loop.
    pub rings: u16,
    /// Slots of the lane.
    pub slots: u16,
    /// Bytes of each request ring; a power of two.
    pub request_capacity: u32,
    /// Bytes of each response ring; a power of two.
    pub response_capacity: u32,
}

impl Default for Geometry {
    fn default() -> Self {
        Self {
            rings: 1,
            slots: 1024,
            request_capacity: 256 << 10,
            response_capacity: 256 << 10,
        }
    }
}

impl Geometry {
    /// The most payload bytes of a request record.
    pub fn max_request_payload(&self) -> usize {
        max_payload(self.request_capacity)
    }

    /// The most payload bytes of a response record.
    pub fn max_response_payload(&self) -> usize {
        max_payload(self.response_capacity)
    }

    pub(super) fn check(&self) -> io::Result<()> {
        let capacity =
            |bytes: u32| bytes.is_power_of_two() && (MIN_CAPACITY..=MAX_CAPACITY).contains(&bytes);
        let fits = (1..=MAX_LOOPS).contains(&self.rings)
            && self.slots > 0
            && capacity(self.request_capacity)
            && capacity(self.response_capacity);
        if !fits {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a lane has 1 to 32 rings of 4 KiB to 64 MiB, a power of two, and at least 1 slot",
            ));
        }
        Ok(())
    }

    pub(super) fn ring(&self, index: u16) -> usize {
        RING_TABLE + usize::from(index) * size_of::<RingEntry>()
    }

    pub(super) fn slot_table(&self) -> usize {
        self.ring(self.rings)
    }

    pub(super) fn request_data(&self, index: u16) -> usize {
        self.data() + usize::from(index) * self.request_capacity as usize
    }

    pub(super) fn response_data(&self, index: u16) -> usize {
        self.data() + usize::from(index) * self.response_capacity as usize
    }

    pub(super) fn engine_len(&self) -> usize {
        self.request_data(self.rings)
    }

    pub(super) fn consumer_len(&self) -> usize {
        self.response_data(self.rings)
    }

    fn data(&self) -> usize {
        let end = self.slot_table() + usize::from(self.slots) * size_of::<SlotEntry>();
        end.next_multiple_of(PAGE)
    }
}

/// What a lane is up to.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Exchanges come and go.
    Active = 1,
    /// No new exchanges come.
    Draining = 2,
    /// Nothing comes, nothing is read.
    Closed = 3,
}

impl LaneState {
    pub(super) fn from_wire(value: u32) -> LaneState {
        match value {
            1 => LaneState::Active,
            2 => LaneState::Draining,
            _ => LaneState::Closed,
        }
    }
}

pub(super) fn pair(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

pub(super) fn halves(word: u32) -> (u16, u16) {
    (word as u16, (word >> 16) as u16)
}

fn max_payload(capacity: u32) -> usize {
    crate::bus::MAX_RECORD.min(capacity as usize / 2) - HEADER
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn offsets_of_abi_1() {
        assert_eq!(ABI.0, 1);
        assert_eq!(offset_of!(StatusHeader, magic), 0);
        assert_eq!(offset_of!(StatusHeader, abi), 4);
        assert_eq!(offset_of!(StatusHeader, epoch), 8);
        assert_eq!(size_of::<StatusHeader>(), 0x100);
        assert_eq!(
            (offset_of!(LoopEntry, wake), size_of::<LoopEntry>()),
            (0, 128)
        );
        assert_eq!(offset_of!(EngineHeader, magic), 0);
        assert_eq!(offset_of!(EngineHeader, abi), 4);
        assert_eq!(offset_of!(EngineHeader, lane_id), 0x08);
        assert_eq!(offset_of!(EngineHeader, engine_len), 0x10);
        assert_eq!(offset_of!(EngineHeader, consumer_len), 0x18);
        assert_eq!(offset_of!(EngineHeader, rings_and_slots), 0x20);
        assert_eq!(offset_of!(EngineHeader, ring_table), 0x24);
        assert_eq!(offset_of!(EngineHeader, slot_table), 0x28);
        assert_eq!(offset_of!(EngineHeader, request_capacity), 0x2C);
        assert_eq!(offset_of!(EngineHeader, response_capacity), 0x30);
        assert_eq!(offset_of!(EngineHeader, features), 0x38);
        assert_eq!(offset_of!(EngineHeader, state), 0x80);
        assert_eq!(size_of::<EngineHeader>(), RING_TABLE);
        assert_eq!(offset_of!(ConsumerHeader, magic), 0);
        assert_eq!(offset_of!(ConsumerHeader, abi), 4);
        assert_eq!(offset_of!(ConsumerHeader, wake), 0x80);
        assert_eq!(offset_of!(ConsumerHeader, tick), 0xC0);
        assert_eq!(size_of::<ConsumerHeader>(), RING_TABLE);
        assert_eq!(offset_of!(RingEntry, tail), 0);
        assert_eq!(offset_of!(RingEntry, want), 8);
        assert_eq!(offset_of!(RingEntry, notice), 12);
        assert_eq!(offset_of!(RingEntry, head), 128);
        assert_eq!(size_of::<RingEntry>(), 256);
        assert_eq!(offset_of!(SlotEntry, generation), 0);
        assert_eq!(offset_of!(SlotEntry, recalled), 4);
        assert_eq!(offset_of!(SlotEntry, granted), 8);
        assert_eq!(size_of::<SlotEntry>(), 64);
    }

    #[test]
    fn places_of_a_geometry() {
        let geometry = Geometry {
            rings: 3,
            slots: 100,
            request_capacity: 4096,
            response_capacity: 8192,
        };
        assert_eq!(geometry.ring(2), 0x300);
        assert_eq!(geometry.slot_table(), 0x400);
        assert_eq!(geometry.request_data(0), 0x2000);
        assert_eq!(geometry.response_data(1), 0x4000);
        assert_eq!(geometry.engine_len(), 0x2000 + 3 * 4096);
        assert_eq!(geometry.consumer_len(), 0x2000 + 3 * 8192);
        let default = Geometry::default();
        assert_eq!(default.engine_len(), 0x11000 + (256 << 10));
        assert_eq!(default.max_request_payload(), 65520);
        assert_eq!(geometry.max_response_payload(), 4080);
    }

    #[test]
    fn impossible_geometries() {
        let good = Geometry::default();
        good.check().unwrap();
        for bad in [
            Geometry { rings: 0, ..good },
            Geometry { rings: 33, ..good },
            Geometry { slots: 0, ..good },
            Geometry {
                request_capacity: 5000,
                ..good
            },
            Geometry {
                response_capacity: 2048,
                ..good
            },
            Geometry {
                response_capacity: 1 << 27,
                ..good
            },
        ] {
            bad.check().unwrap_err();
        }
    }
}
