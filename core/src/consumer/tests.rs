//! Tests against a mini engine.
