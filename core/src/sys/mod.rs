//! Floor 0: the only module that makes system calls.

mod address;
pub mod affinity;
mod call;
pub mod clock;
pub mod crash;
pub mod epoll;
pub mod eventfd;
pub mod file;
pub mod inherited;
pub mod memory;
mod poll;
pub mod process;
pub mod rendezvous;
pub mod seqpacket;
pub mod shortage;
pub mod signal;
pub mod socket;
pub mod stderr;
pub(crate) mod stdout;

pub(crate) use poll::{wait_hang_up, wait_readable};
