//! A clock that stands still until a test moves it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Clock;

#[derive(Debug, Default)]
pub(crate) struct TestClock {
    monotonic_ns: AtomicU64,
    utc_ns: AtomicU64,
}

impl TestClock {
    pub(crate) fn at_utc(seconds: u64) -> Self {
        Self {
            monotonic_ns: AtomicU64::new(0),
            utc_ns: AtomicU64::new(seconds * 1_000_000_000),
        }
    }

    pub(crate) fn advance_ns(&self, nanoseconds: u64) {
        self.monotonic_ns.fetch_add(nanoseconds, Ordering::Relaxed);
        self.utc_ns.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::Relaxed)
    }

    fn utc(&self) -> Duration {
        Duration::from_nanos(self.utc_ns.load(Ordering::Relaxed))
    }
}
