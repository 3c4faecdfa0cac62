//! The atomics, locks and queues of dispatch, from the standard library or, under `cfg(shuttle)`,
//! from shuttle, which runs the threads of a test in random order.
#![forbid(unsafe_code)]

#[cfg(not(shuttle))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(not(shuttle))]
pub(super) use crossbeam_queue::ArrayQueue;
#[cfg(shuttle)]
pub(super) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(shuttle)]
pub(super) use self::yielding::ArrayQueue;

/// Keeps its content on a cache line (a pair of them, as they are prefetched) of its own.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

#[cfg(shuttle)]
mod yielding {
    use super::{AtomicU64, Ordering};

    /// crossbeam's queue with a scheduling point before each operation, which happens as a whole.
    pub(crate) struct ArrayQueue<T> {
        queue: crossbeam_queue::ArrayQueue<T>,
        point: AtomicU64,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            Self {
                queue: crossbeam_queue::ArrayQueue::new(capacity),
                point: AtomicU64::new(0),
            }
        }

        pub(crate) fn push(&self, value: T) -> Result<(), T> {
            self.point.load(Ordering::SeqCst);
            self.queue.push(value)
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.point.load(Ordering::SeqCst);
            self.queue.pop()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.point.load(Ordering::SeqCst);
            self.queue.is_empty()
        }
    }
}
