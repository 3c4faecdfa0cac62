//! What the bus shares between two sides: words, record bytes, tables, fences and doorbells.
//!
//! Everything above is written against these few types, so that `cfg(loom)` can put loom's atomics
//! under the very source that ships. This folder holds all `unsafe` code of the bus.

#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod shared;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{Ordering, fence};

#[cfg(loom)]
pub(crate) use model::{Bell, Bytes, Memory, Table, Word32, Word64};
#[cfg(not(loom))]
pub(crate) use shared::{Bell, Bytes, Memory, Table, Word32, Word64};
