//! Floor 3: what travels on the bus.
#![forbid(unsafe_code)]
