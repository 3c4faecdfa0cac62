//! Floor 4: which consumer gets which request; pure decisions, no I/O.
//!
//! A [`Pool`] knows the lanes of the consumers that run one application. Each lane announces
//! numbers ([`LaneLimits`]) and dispatch needs room in all three: ids (slots), exchanges the
//! application may hold at once (concurrency), and records sent but not yet started (window); for a
//! raw connection also in a fourth, the streams that it takes.
//! Work goes to the lane with the fewest exchanges in flight; what finds no room waits in one
//! first-in first-out line, one for
//! requests and one for streams.
//!
//! # Nothing strands
//!
//! Whoever makes room makes it first and looks at the line afterwards; whoever joins the line joins
//! it first and looks for room afterwards. Both sides do so in sequentially consistent order, hence
//! at least one of them sees the other. The pool cannot post a granted ticket to its owner, so the
//! second look is the caller's: call [`Pool::pump`] until it returns `None` after
//!
//! - [`Pool::started`], [`Pool::finished`], [`Pool::release`] and [`Pool::open_lane`];
//! - an [`Admission::Queued`] from [`Pool::admit`] or [`Pool::readmit`].
#![forbid(unsafe_code)]

mod lane;
mod line;
mod pool;
mod sync;
mod ticket;

pub use lane::{LaneLimits, Work};
pub use pool::{Admission, MAX_LANES, Pool, PoolLimits, Reservation};
pub use ticket::Ticket;
