//! What passed through a vsock device.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one vsock device. Written by its worker, readable at any time.
#[derive(Debug, Default)]
pub struct VsockCounters {
    pub(super) opened: Count,
    pub(super) refused: Count,
    pub(super) open: AtomicU64,
    pub(super) to_guest: Count,
    pub(super) from_guest: Count,
    pub(super) dropped: Count,
}

/// A value of [`VsockCounters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VsockCounts {
    /// Connections that came about, from either side.
    pub opened: u64,
    /// Connections that did not: nobody listened, or there were too many.
    pub refused: u64,
    /// Connections that there are, with those that are about to come about or whose end the host has not
    /// read yet.
    pub open: u64,
    /// Bytes of data from the host to the guest.
    pub to_guest_bytes: u64,
    /// Bytes of data from the guest to the host.
    pub from_guest_bytes: u64,
    /// Packets of the guest's that were no packets of its own: too short, or with another's identifier.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl VsockCounters {
    /// What has been counted so far.
    pub fn counts(&self) -> VsockCounts {
        VsockCounts {
            opened: self.opened.get(),
            refused: self.refused.get(),
            open: self.open.load(Ordering::Relaxed),
            to_guest_bytes: self.to_guest.get(),
            from_guest_bytes: self.from_guest.get(),
            dropped: self.dropped.get(),
        }
    }

    pub(super) fn set_open(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.open.store(count, Ordering::Relaxed);
    }
}

impl Count {
    /// Adds to it; gives what it was before.
    pub(super) fn add(&self, count: u64) -> u64 {
        self.0.fetch_add(count, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
