//! Floor 1: counters.
#![forbid(unsafe_code)]
