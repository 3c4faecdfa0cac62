//! Floor 2: shared memory lanes of single-producer single-consumer rings. Knows bytes and records, not HTTP.
