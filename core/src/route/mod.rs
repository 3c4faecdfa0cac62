//! Floor 2: method and path matching.
#![forbid(unsafe_code)]
