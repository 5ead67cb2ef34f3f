//! The time stamp counter, in which a guest measures. KVM lets it run in a guest as on the host.

use std::arch::x86_64::_rdtsc;
use std::time::{Duration, Instant};

/// How fast it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tsc {
    cycles_per_microsecond: f64,
}

impl Tsc {
    /// Compares it with the host's clock for a while.
    pub(super) fn measure() -> Self {
        // SAFETY: the instruction only reads a counter.
        let counter = || unsafe { _rdtsc() };
        let (started, first) = (Instant::now(), counter());
        std::thread::sleep(Duration::from_millis(100));
        let (time, last) = (started.elapsed(), counter());
        Self {
            cycles_per_microsecond: (last - first) as f64 / (time.as_secs_f64() * 1e6),
        }
    }

    #[cfg(test)]
    pub(super) fn with_cycles_per_microsecond(cycles_per_microsecond: f64) -> Self {
        Self {
            cycles_per_microsecond,
        }
    }

    pub(super) fn cycles_per_microsecond(self) -> f64 {
        self.cycles_per_microsecond
    }

    /// How far it gets in so many milliseconds.
    pub(super) fn cycles(self, milliseconds: u64) -> String {
        format!(
            "{:.0}",
            milliseconds as f64 * 1e3 * self.cycles_per_microsecond
        )
    }
}
