//! What passed through a network device and what did not.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one network device, since it was made. Written by its worker, readable at any time.
#[derive(Debug, Default)]
pub struct NetCounters {
    pub(super) received: Direction,
    pub(super) transmitted: Direction,
}

/// A value of [`NetCounters`]: one direction at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectionCounts {
    /// Frames that passed.
    pub frames: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
    /// Frames that did not pass: malformed, refused by the host, or without a buffer to fit.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Direction {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
}

impl NetCounters {
    /// From the host to the guest.
    pub fn received(&self) -> DirectionCounts {
        self.received.counts()
    }

    /// From the guest to the host.
    pub fn transmitted(&self) -> DirectionCounts {
        self.transmitted.counts()
    }
}

impl Direction {
    pub(super) fn passed(&self, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes
            .fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts a frame that did not pass; whether it is the first one.
    pub(super) fn dropped(&self) -> bool {
        self.dropped.fetch_add(1, Ordering::Relaxed) == 0
    }

    fn counts(&self) -> DirectionCounts {
        DirectionCounts {
            frames: self.frames.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}
