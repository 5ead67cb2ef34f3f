//! The log line of a device that its driver broke, at a rate that the guest cannot drive up.
//!
//! A driver may break its device, reset it and break it again, as often as it likes.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one line in this time for each device.
const INTERVAL: Duration = Duration::from_secs(10);

/// The log of one device's faults.
#[derive(Debug)]
pub(super) struct BrokenLog {
    device: String,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    line: Option<Instant>,
    kept_back: u64,
}

impl BrokenLog {
    /// A log that names `device`.
    pub(super) fn new(device: &str) -> Self {
        Self {
            device: device.to_owned(),
            last: Mutex::default(),
        }
    }

    /// Writes a line that says `reason`, unless one came just before. Returns whether it did.
    pub(super) fn write(&self, reason: &dyn Display) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last
            .line
            .is_some_and(|line| now.duration_since(line) < INTERVAL)
        {
            last.kept_back = last.kept_back.saturating_add(1);
            return false;
        }
        let kept_back = std::mem::take(&mut last.kept_back);
        last.line = Some(now);
        drop(last);
        tracing::error!(
            device = %self.device,
            kept_back,
            "{reason}; the device is broken until its driver resets it"
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_line_is_kept_back_and_counted() {
        let log = BrokenLog::new("disk0");
        assert!(log.write(&"a reason"));
        assert!(!log.write(&"a reason"));
        assert!(!log.write(&"a reason"));
        assert_eq!(log.last.lock().unwrap().kept_back, 2);
    }
}
