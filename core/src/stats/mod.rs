//! Floor 1: counters.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owning thread may: a load and a store need no locked instruction.
    #[inline]
    pub fn add(&self, more: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(more), Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one loop has counted.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct LoopStats {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// Counters at one moment, summed over loops.
        #[derive(Clone, Debug, Default, Eq, PartialEq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl LoopStats {
            /// The sum over `loops`.
            pub fn sum(loops: &[Self]) -> Snapshot {
                Snapshot {
                    $($name: loops.iter().map(|one| one.$name.value()).sum(),)*
                }
            }
        }
    };
}

impl Snapshot {
    /// Requests that are neither answered nor broken off.
    pub fn open(&self) -> u64 {
        // Loops go on counting while they are read.
        let over = self.answered.wrapping_add(self.broken);
        self.requests.saturating_sub(over)
    }

    /// Raw connections of services whose end has not come.
    pub fn open_streams(&self) -> u64 {
        let all = self.streams_accepted.wrapping_add(self.streams_connected);
        all.saturating_sub(self.streams_closed)
    }

    /// Of the requests that were open then, those that were not answered since, or with a failure.
    /// Those that nobody misses do not count.
    pub fn cut_since(&self, then: &Self) -> u64 {
        let answered = self.answered.wrapping_sub(then.answered);
        let failed = self.failed.wrapping_sub(then.failed);
        let unmissed = self.unmissed.wrapping_sub(then.unmissed);
        let settled = answered.saturating_sub(failed) + unmissed;
        then.open().saturating_sub(settled)
    }
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections closed.
    closed,
    /// Requests whose head was read.
    requests,
    /// Requests that have been answered.
    answered,
    /// Of these, those with a status of 500 to 599. Answers to what never became a request are among
    /// the responses alone.
    failed,
    /// Requests whose connection ended before their response did.
    broken,
    /// Of these, those that nobody misses: the client has left by itself, or the response had begun
    /// without saying how long it is, as streams without an end do.
    unmissed,
    /// Responses with a status of 200 to 299.
    responses_2xx,
    /// Responses with a status of 300 to 399.
    responses_3xx,
    /// Responses with a status of 400 to 499.
    responses_4xx,
    /// Responses with a status of 500 to 599.
    responses_5xx,
    /// Requests answered 503 as the queue was full or the limit reached.
    overloaded,
    /// Requests answered 503 as they waited too long.
    queue_timeouts,
    /// Requests answered 504.
    timed_out,
    /// Requests answered 502 as their worker died.
    worker_died,
    /// Requests called back from a busy worker.
    recalled,
    /// Requests sent again, as their worker died before it began.
    redispatched,
    /// Workers cut off as they broke the contract of the bus.
    poisoned,
    /// Raw connections accepted for services.
    streams_accepted,
    /// Raw connections that services have made.
    streams_connected,
    /// Raw connections whose end services have been told.
    streams_closed,
    /// Callbacks of stream services that ran for too long.
    stream_overruns,
    /// Bytes read from clients.
    bytes_in,
    /// Bytes sent to clients.
    bytes_out,
}

impl LoopStats {
    /// Counts a response by the class of its status.
    pub fn count_response(&self, status: u16) {
        let class = match status / 100 {
            2 => &self.responses_2xx,
            3 => &self.responses_3xx,
            4 => &self.responses_4xx,
            _ => &self.responses_5xx,
        };
        class.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sums_the_loops() {
        let loops = [LoopStats::default(), LoopStats::default()];
        loops[0].requests.add(2);
        loops[1].requests.add(3);
        loops[1].count_response(404);
        let sum = LoopStats::sum(&loops);
        assert_eq!(
            (sum.requests, sum.responses_4xx, sum.responses_2xx),
            (5, 1, 0)
        );
    }

    #[test]
    fn what_was_open_and_did_not_end_well_was_cut() {
        let then = Snapshot {
            requests: 10,
            answered: 4,
            broken: 1,
            failed: 2,
            ..Snapshot::default()
        };
        assert_eq!(then.open(), 5);
        assert_eq!(then.cut_since(&then), 5);
        let now = Snapshot {
            answered: 7,
            failed: 3,
            broken: 2,
            unmissed: 1,
            ..then.clone()
        };
        // Two were answered, one failed, one was a stream, one is still open.
        assert_eq!(now.cut_since(&then), 2);
    }
}
