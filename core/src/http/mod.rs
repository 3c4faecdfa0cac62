//! Floor 2: sans-I/O HTTP/1.1. Knows no socket.
#![forbid(unsafe_code)]
