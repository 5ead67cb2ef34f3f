//! Where chips take the time from. The machine gives them the host's clocks, tests their own.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const NS_PER_SECOND: u64 = 1_000_000_000;

/// How often a clock of `frequency_hz` has ticked by the moment `now_ns`.
pub(crate) fn ticks_at(now_ns: u64, frequency_hz: u64) -> u64 {
    let ticks = u128::from(now_ns).saturating_mul(u128::from(frequency_hz));
    u64::try_from(ticks.div_euclid(u128::from(NS_PER_SECOND))).unwrap_or(u64::MAX)
}

/// The first moment, in nanoseconds, by which a clock of `frequency_hz` has ticked `ticks` times.
pub(crate) fn moment_of(ticks: u64, frequency_hz: u64) -> u64 {
    let ns = u128::from(ticks).saturating_mul(u128::from(NS_PER_SECOND));
    u64::try_from(ns.div_ceil(u128::from(frequency_hz.max(1)))).unwrap_or(u64::MAX)
}

/// The two clocks that chips run by. Called on any thread, often under a device's lock.
pub trait Clock: Debug + Send + Sync {
    /// Nanoseconds since some fixed moment, never going back: the time of timers.
    fn monotonic_ns(&self) -> u64;

    /// Time since 1970-01-01 00:00:00 UTC, as the host believes it: the time of calendars. It can
    /// jump when somebody sets the host's clock.
    fn utc(&self) -> Duration;
}

/// The host's own clocks: `CLOCK_MONOTONIC` since this value was made, and `CLOCK_REALTIME`.
#[derive(Debug, Clone, Copy)]
pub struct HostClock {
    origin: Instant,
}

impl HostClock {
    /// A clock whose monotonic time begins now.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn monotonic_ns(&self) -> u64 {
        // 64 bits of nanoseconds last 584 years.
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn utc(&self) -> Duration {
        // A host whose clock stands before 1970 has not set it: the epoch is as good an answer.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}
