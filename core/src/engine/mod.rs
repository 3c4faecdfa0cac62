//! Floor 5: loops and connections.
#![forbid(unsafe_code)]
