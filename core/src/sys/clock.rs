//! Clocks.

use std::mem::MaybeUninit;

/// Nanoseconds of `CLOCK_MONOTONIC`; every deadline in toolB is one of these.
#[inline]
pub fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Whole seconds since the Unix epoch, from the coarse real-time clock.
pub fn unix_seconds() -> u64 {
    read(libc::CLOCK_REALTIME_COARSE) / 1_000_000_000
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills the timespec; both clocks exist on every Linux, so it cannot fail.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
