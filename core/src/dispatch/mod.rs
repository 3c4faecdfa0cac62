//! Floor 4: which consumer gets which request; pure decisions, no I/O.
#![forbid(unsafe_code)]
