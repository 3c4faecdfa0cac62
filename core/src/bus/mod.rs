//! Floor 2: shared memory lanes of single-producer single-consumer rings. Knows bytes and records,
//! not HTTP.
//!
//! A lane is everything the engine shares with one consumer: a request and a response ring per loop,
//! a table of slots, wake words and doorbells. Each memory has one writer, and both sides check
//! everything they read. `docs/bus.md` is the contract.

#[cfg(not(loom))]
mod consumer_lane;
#[cfg(not(loom))]
mod lane;
mod layout;
mod record;
mod ring;
mod slots;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod wake;

#[cfg(not(loom))]
pub use consumer_lane::{ConsumerLane, ConsumerRing, OpenError};
#[cfg(not(loom))]
pub use lane::{EngineLane, LoopEnds, StatusPage};
pub use layout::{ABI, Geometry, LaneState, MAX_LOOPS};
pub use record::{HEADER, Kind, MAX_RECORD, RecordHeader, flags};
pub use ring::{Producer, Reader, Violation};
pub use slots::EngineSlots;
pub use wake::{Notice, Sleeper, Waker, fence};
