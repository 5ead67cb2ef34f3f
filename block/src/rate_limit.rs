//! A limit on what a disk transfers in a time, with bursts: token buckets.
//!
//! Shared by the queues of a disk. A request is let through as long as there is a unit in each bucket, and
//! may leave them in debt, so that a request larger than a burst goes through as well and the average still
//! holds. The time is handed in, by whoever has a clock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Nanoseconds of a second.
const SECOND: u128 = 1_000_000_000;

/// So many units in a second, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units in a second, at least 1.
    pub per_second: u64,
    /// Units that may go at once when nothing went before, at least 1.
    pub burst: u64,
}

impl Rate {
    /// `per_second` units, and the units of a tenth of a second at once.
    pub fn new(per_second: u64) -> Self {
        Self {
            per_second,
            burst: (per_second / 10).max(1),
        }
    }
}

/// What a disk is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimit {
    /// Bytes that are read or written.
    pub bytes: Option<Rate>,
    /// Requests of any kind.
    pub operations: Option<Rate>,
}

impl RateLimit {
    /// Whether there is no limit.
    pub fn is_unlimited(&self) -> bool {
        self.bytes.is_none() && self.operations.is_none()
    }
}

/// The buckets of a disk.
#[derive(Debug)]
pub struct RateLimiter {
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

/// Tokens as the time that it takes to earn them: a bucket that is full has `burst` units' worth.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// Units times [`SECOND`] that can be spent; negative in debt.
    level: i128,
    filled: Instant,
}

impl RateLimiter {
    /// Full buckets.
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        let bucket = |rate: Rate| Bucket::new(rate, now);
        Self {
            buckets: Mutex::new(Buckets {
                bytes: limit.bytes.map(bucket),
                operations: limit.operations.map(bucket),
            }),
        }
    }

    /// Whether a request may go at `now`.
    ///
    /// # Errors
    ///
    /// How long it has to wait, for others that have gone before. Others may go meanwhile.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Buckets { bytes, operations } = &mut *buckets;
        let wait = [bytes, operations]
            .into_iter()
            .flatten()
            .map(|bucket| bucket.wait(now))
            .max()
            .unwrap_or_default();
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Takes the tokens of a request of `length_bytes` that was let through.
    pub fn charge(&self, length_bytes: u64) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &mut buckets.bytes {
            bytes.spend(length_bytes);
        }
        if let Some(operations) = &mut buckets.operations {
            operations.spend(1);
        }
    }
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        let rate = Rate {
            per_second: rate.per_second.max(1),
            burst: rate.burst.max(1),
        };
        Self {
            rate,
            level: worth(rate.burst),
            filled: now,
        }
    }

    /// Fills the bucket up to `now`; returns how long it takes until there is a unit in it.
    fn wait(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        self.filled = self.filled.max(now);
        let earned = passed.saturating_mul(u128::from(self.rate.per_second));
        let earned = i128::try_from(earned).unwrap_or(i128::MAX);
        self.level = self
            .level
            .saturating_add(earned)
            .min(worth(self.rate.burst));
        let missing = worth(1).saturating_sub(self.level);
        if missing <= 0 {
            return Duration::ZERO;
        }
        let nanoseconds = missing
            .unsigned_abs()
            .div_ceil(u128::from(self.rate.per_second));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    fn spend(&mut self, units: u64) {
        self.level = self.level.saturating_sub(worth(units));
    }
}

fn worth(units: u64) -> i128 {
    i128::try_from(u128::from(units).saturating_mul(SECOND)).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests;
