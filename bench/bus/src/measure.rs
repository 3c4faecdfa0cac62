//! Timing of round trips.

use std::time::{Duration, Instant};

use crate::{Asker, Outcome};

/// When a measurement ends.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// After so long.
    Time(Duration),
    /// After exactly so many trips, and none to warm up: for counting system calls.
    Trips(usize),
}

/// What one measurement found; times in nanoseconds.
pub(crate) struct Measured {
    pub(crate) trips: usize,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) mean: f64,
}

/// Most trips of one measurement: their times are kept.
const MOST: usize = 1 << 22;

/// Trips one after the other, each timed; `clock` is taken off each.
pub(crate) fn trips(
    asker: &mut dyn Asker,
    bytes: usize,
    limit: Limit,
    clock: u64,
) -> Outcome<Measured> {
    let (warm_up, time, most) = match limit {
        Limit::Time(time) => (time / 5, time, MOST),
        Limit::Trips(trips) => (Duration::ZERO, Duration::MAX, trips),
    };
    let mut message = vec![0x5a; bytes];
    let mut answer = Vec::with_capacity(bytes);
    let mut number = 0u64;
    let mut trip = || -> Outcome<()> {
        number += 1;
        message[..8].copy_from_slice(&number.to_ne_bytes());
        answer.clear();
        asker.trip(&message, &mut answer)?;
        match answer.len() == bytes && answer[..8] == message[..8] {
            true => Ok(()),
            false => Err(format!("trip {number} brought back something else").into()),
        }
    };
    let start = Instant::now();
    while start.elapsed() < warm_up {
        trip()?;
    }
    // Written to now, so that no page is faulted in while it counts.
    let mut times = vec![u64::MAX; most];
    times.clear();
    let start = Instant::now();
    let mut last = start;
    while times.len() < most && last.duration_since(start) < time {
        trip()?;
        let now = Instant::now();
        times.push(now.duration_since(last).as_nanos() as u64);
        last = now;
    }
    let trips = times.len();
    let mean = last.duration_since(start).as_nanos() as f64 / trips as f64 - clock as f64;
    times.sort_unstable();
    let at = |share: f64| times[(share * (trips - 1) as f64) as usize].saturating_sub(clock);
    Ok(Measured {
        trips,
        p50: at(0.5),
        p99: at(0.99),
        mean,
    })
}

/// What one look at the clock costs, in nanoseconds.
pub(crate) fn cost_of_the_clock() -> u64 {
    let looks = 100_000;
    let start = Instant::now();
    for _ in 0..looks {
        std::hint::black_box(Instant::now());
    }
    start.elapsed().as_nanos() as u64 / looks
}
