//! How long nothing may happen on a stream, whoever serves it: decided from what was asked for and a
//! time, without a clock.

use std::time::Duration;

use super::Wait;

/// The end of the wait for the next event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Patience {
    /// When the wait has lasted for too long.
    pub(super) until: u64,
    /// `until` comes from the default.
    by_default: bool,
}

impl Patience {
    /// Waits for ever until it is told otherwise.
    pub(super) const fn new() -> Self {
        Self {
            until: u64::MAX,
            by_default: true,
        }
    }

    /// Waits from `now` on.
    pub(super) fn wait(&mut self, wait: Wait, now: u64, default: Option<Duration>) {
        self.by_default = wait == Wait::Default;
        let timeout = match wait {
            Wait::Default => default,
            Wait::For(timeout) => Some(timeout),
            Wait::Forever => None,
        };
        self.until = after(now, timeout);
    }

    /// Something moved that puts off the default only.
    pub(super) fn moved(&mut self, now: u64, default: Option<Duration>) {
        if self.by_default {
            self.wait(Wait::Default, now, default);
        }
    }

    /// Whether the end comes from the default.
    pub(super) const fn is_by_default(&self) -> bool {
        self.by_default
    }
}

/// The time `timeout` after `now`.
pub(super) fn after(now: u64, timeout: Option<Duration>) -> u64 {
    match timeout {
        Some(timeout) => now.saturating_add(timeout.as_nanos().min(u128::from(u64::MAX)) as u64),
        None => u64::MAX,
    }
}
