//! The `toolb` program.
#![forbid(unsafe_code)]
