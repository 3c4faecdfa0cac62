//! Clients that read slowly, not at all, or only after a while, and how long they are waited for.
#![forbid(unsafe_code)]

mod keep_alive;
mod slow;
#[path = "../support/mod.rs"]
mod support;
mod unix;
