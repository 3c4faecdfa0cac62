//! Floor 4: the consumer's end of the bus.
#![forbid(unsafe_code)]
