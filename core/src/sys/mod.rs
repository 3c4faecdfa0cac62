//! Floor 0: the only module that makes system calls.

pub mod clock;
pub mod epoll;
pub mod socket;
