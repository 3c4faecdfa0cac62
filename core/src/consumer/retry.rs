//! How long to wait between two looks for an engine that is not there.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const MOST: Duration = Duration::from_secs(1);

/// Doubling pauses, each of them shortened by chance, so that many consumers of one engine do not
/// come all at once when it is back.
#[derive(Debug)]
pub struct Retry {
    next: Duration,
    chance: RandomState,
    tries: u64,
}

impl Retry {
    /// Before the first pause.
    pub fn new() -> Self {
        Self {
            next: FIRST,
            chance: RandomState::new(),
            tries: 0,
        }
    }

    /// How long to wait now: between half of the current step and all of it.
    pub fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(MOST);
        self.tries += 1;
        let mut hasher = self.chance.build_hasher();
        hasher.write_u64(self.tries);
        let part = (hasher.finish() % 1000) as u32;
        step / 2 + step / 2 * part / 1000
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_vary() {
        let mut retry = Retry::new();
        let mut step = FIRST;
        for _ in 0..12 {
            let pause = retry.pause();
            assert!(step / 2 <= pause && pause <= step, "{pause:?} of {step:?}");
            step = (step * 2).min(MOST);
        }
        let mut others = (0..8).map(|_| Retry::new().pause());
        let first = others.next();
        assert!(others.any(|pause| Some(pause) != first));
    }
}
