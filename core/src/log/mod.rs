//! Floor 1: log sinks.
#![forbid(unsafe_code)]
