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

/// Nanoseconds since the Unix epoch.
pub fn unix_nanos() -> u64 {
    read(libc::CLOCK_REALTIME)
}

/// A moment as the calendar and the clocks of this place have it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Local {
    /// Of our era.
    pub year: i32,
    /// From 1.
    pub month: u8,
    /// From 1.
    pub day: u8,
    /// Since midnight.
    pub hour: u8,
    /// Of the hour.
    pub minute: u8,
    /// Of the minute.
    pub second: u8,
    /// Seconds that it is later here than at Greenwich.
    pub east: i32,
}

impl Local {
    /// Sign, hours and minutes of the offset.
    pub fn offset(&self) -> (char, u32, u32) {
        let sign = if self.east < 0 { '-' } else { '+' };
        let minutes = self.east.unsigned_abs() / 60;
        (sign, minutes / 60, minutes % 60)
    }
}

/// A moment, given in seconds since the Unix epoch, at this place (`TZ`, `/etc/localtime`).
pub fn local(seconds: u64) -> Local {
    let seconds = seconds as libc::time_t;
    let mut broken = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both point to memory of ours. All zeroes are a valid tm, so whatever the call makes of
    // it, it is initialised.
    let broken = unsafe {
        libc::localtime_r(&seconds, broken.as_mut_ptr());
        broken.assume_init()
    };
    Local {
        year: broken.tm_year.saturating_add(1900),
        month: broken.tm_mon as u8 + 1,
        day: broken.tm_mday as u8,
        hour: broken.tm_hour as u8,
        minute: broken.tm_min as u8,
        second: broken.tm_sec as u8,
        east: broken.tm_gmtoff as i32,
    }
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
