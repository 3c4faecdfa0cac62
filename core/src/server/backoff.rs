//! How long to wait before a worker is started again.
#![forbid(unsafe_code)]

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);
/// Whoever lived this long did not fail because of how it was started.
const HEALTHY: Duration = Duration::from_secs(10);

/// Doubling delays for something that keeps failing.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The delay before the next start, after a life of `lived`.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY {
            self.next = FIRST;
        }
        let delay = self.next;
        self.next = (delay * 2).min(MOST);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_limit() {
        let mut backoff = Backoff::new();
        let delays: Vec<_> = (0..8)
            .map(|_| backoff.after(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_long_life_starts_it_over() {
        let mut backoff = Backoff::new();
        for _ in 0..8 {
            backoff.after(Duration::from_secs(9));
        }
        assert_eq!(backoff.after(HEALTHY), FIRST);
        assert_eq!(backoff.after(Duration::ZERO), 2 * FIRST);
    }
}
