//! Floor 6: the whole as a user meets it.
#![forbid(unsafe_code)]
