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
    /// How many trips the figures stand on, at least.
    pub(crate) trips: usize,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) total: u64,
}

/// Most trips of one measurement: their times are kept.
const MOST: usize = 1 << 22;
/// Trips below this, in nanoseconds, are measured once more by batches: one look at the clock costs
/// a good part of them, and some clocks know only steps of ten.
const SHORT: u64 = 5_000;
/// Trips of one batch.
const BATCH: usize = 32;

/// Trips one after the other, timed one by one, and again by batches if they are short. `clock` is
/// what one look at it costs.
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
    let start = Instant::now();
    let mut times = timed(most, time / 2, 1, &mut trip)?;
    times.sort_unstable();
    let mut trips = times.len();
    let at = |share: f64| times[(share * (trips - 1) as f64) as usize].saturating_sub(clock);
    let (mut p50, p99) = (at(0.5), at(0.99));
    if p50 < SHORT && matches!(limit, Limit::Time(_)) {
        let mut times = timed(most, time / 2, BATCH, &mut trip)?;
        times.sort_unstable();
        p50 = times[times.len() / 2] / BATCH as u64;
        trips = trips.min(times.len() * BATCH);
    }
    Ok(Measured {
        trips,
        p50,
        p99,
        total: start.elapsed().as_nanos() as u64,
    })
}

/// The times of batches of trips, one after the other.
fn timed(
    most: usize,
    time: Duration,
    batch: usize,
    trip: &mut impl FnMut() -> Outcome<()>,
) -> Outcome<Vec<u64>> {
    // Written to now, so that no page is faulted in while it counts.
    let mut times = vec![u64::MAX; most];
    times.clear();
    let start = Instant::now();
    let mut last = start;
    while times.len() < most && (times.is_empty() || last.duration_since(start) < time) {
        for _ in 0..batch {
            trip()?;
        }
        let now = Instant::now();
        times.push(now.duration_since(last).as_nanos() as u64);
        last = now;
    }
    Ok(times)
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
