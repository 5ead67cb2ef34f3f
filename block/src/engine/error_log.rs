//! The log of failed requests, at a rate that a guest cannot drive up.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::SECTOR_BYTES;
use crate::request::Work;

/// At most one line in this time for each engine.
const INTERVAL: Duration = Duration::from_secs(10);

/// When the last line was written, and how many were not.
#[derive(Debug, Default)]
pub(super) struct ErrorLog {
    last: Option<Instant>,
    kept_back: u64,
}

impl ErrorLog {
    /// Says that the host failed a request, unless it was said just before. Returns whether it was.
    pub(super) fn write(&mut self, path: &Path, work: &Work, error: &io::Error) -> bool {
        let now = Instant::now();
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < INTERVAL)
        {
            self.kept_back = self.kept_back.saturating_add(1);
            return false;
        }
        self.last = Some(now);
        let kept_back = std::mem::take(&mut self.kept_back);
        let (what, offset) = work.describe();
        let sector = offset.map(|offset| offset / SECTOR_BYTES);
        tracing::error!(disk = %path.display(), what, sector, kept_back, "the host failed a request: {error}");
        true
    }
}
