//! Floor 1: deadlines.
#![forbid(unsafe_code)]
