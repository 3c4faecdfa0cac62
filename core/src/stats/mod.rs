//! Floor 1: counters.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer, read by anybody at any time.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts that many. For the one writer only: two would lose counts.
    pub fn add(&self, count: u64) {
        // No read-modify-write: with one writer a plain load and store, a few times cheaper, is exact.
        self.0
            .store(self.value().wrapping_add(count), Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares the counters once, for the loops and for their sum.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one loop counts. The loop alone writes; each has cache lines of its own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct LoopStats {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// What was counted, of one loop or the sum of several. The counters are read one after the
        /// other, so what happens meanwhile may show in some of them.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl LoopStats {
            /// The counters as they are now.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.value(),)*
                }
            }
        }

        impl std::ops::AddAssign for Snapshot {
            fn add_assign(&mut self, other: Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }
    };
}

counters! {
    /// Requests whose head was complete.
    requests,
    /// Responses with an informational status.
    responses_1xx,
    /// Successful responses.
    responses_2xx,
    /// Redirections.
    responses_3xx,
    /// Responses that blame the client.
    responses_4xx,
    /// Responses that blame the server.
    responses_5xx,
    /// Responses 502: the consumer died or answered nonsense.
    bad_gateway_502,
    /// Responses 503: no room.
    unavailable_503,
    /// Responses 504: no answer in time.
    gateway_timeout_504,
    /// Connections closed. Before the accepted ones, so that a snapshot never shows more of these.
    connections_closed,
    /// Connections accepted.
    connections_accepted,
    /// Requests that waited in the queue for too long.
    queue_timeouts,
    /// Requests taken back from a consumer that had not started them.
    recalls,
    /// Requests dispatched again.
    redispatches,
    /// Lanes closed because of what the consumer wrote into them.
    poisoned_lanes,
    /// Bytes received from clients.
    bytes_in,
    /// Bytes sent to clients.
    bytes_out,
}

impl LoopStats {
    /// Counts a response under its class, and under its status if that has a counter.
    pub fn response(&self, status: u16) {
        match status / 100 {
            1 => self.responses_1xx.add(1),
            2 => self.responses_2xx.add(1),
            3 => self.responses_3xx.add(1),
            4 => self.responses_4xx.add(1),
            _ => self.responses_5xx.add(1),
        }
        match status {
            502 => self.bad_gateway_502.add(1),
            503 => self.unavailable_503.add(1),
            504 => self.gateway_timeout_504.add(1),
            _ => {}
        }
    }
}

impl Snapshot {
    /// The sum over loops.
    pub fn sum<'a>(loops: impl IntoIterator<Item = &'a LoopStats>) -> Self {
        loops.into_iter().fold(Self::default(), |mut sum, stats| {
            sum += stats.snapshot();
            sum
        })
    }

    /// Connections open.
    pub fn connections_active(&self) -> u64 {
        self.connections_accepted
            .saturating_sub(self.connections_closed)
    }

    /// Responses of any class.
    pub fn responses(&self) -> u64 {
        self.responses_1xx
            + self.responses_2xx
            + self.responses_3xx
            + self.responses_4xx
            + self.responses_5xx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_the_sum_over_loops() {
        let loops = [LoopStats::default(), LoopStats::default()];
        loops[0].requests.add(2);
        loops[1].requests.add(3);
        loops[1].bytes_in.add(100);
        loops[0].connections_accepted.add(3);
        loops[1].connections_closed.add(1);
        let sum = Snapshot::sum(&loops);
        assert_eq!((sum.requests, sum.bytes_in), (5, 100));
        assert_eq!(sum.connections_active(), 2);
        assert_eq!(loops[0].snapshot().requests, 2);
    }

    #[test]
    fn responses_are_counted_by_class_and_some_by_status() {
        let stats = LoopStats::default();
        for status in [101, 200, 204, 302, 404, 500, 502, 503, 503, 504] {
            stats.response(status);
        }
        let expected = Snapshot {
            responses_1xx: 1,
            responses_2xx: 2,
            responses_3xx: 1,
            responses_4xx: 1,
            responses_5xx: 5,
            bad_gateway_502: 1,
            unavailable_503: 2,
            gateway_timeout_504: 1,
            ..Snapshot::default()
        };
        assert_eq!(stats.snapshot(), expected);
        assert_eq!(expected.responses(), 10);
    }
}
