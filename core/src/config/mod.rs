//! Floor 1: settings and their defaults.
#![forbid(unsafe_code)]
