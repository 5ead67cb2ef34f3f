//! What the queues of a disk have in common, and the vCPU threads that read its configuration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use block::{RateLimit, RateLimiter};

/// State of the whole device.
#[derive(Debug)]
pub(super) struct Shared {
    /// The driver knows of a volatile cache and flushes it (virtio 1.3, 5.2.6.2); else each write is
    /// durable before it completes.
    pub writeback: AtomicBool,
    pub limiter: Option<RateLimiter>,
    /// Writes that were acknowledged and are not durable by themselves.
    written: AtomicU64,
    /// How many of them were when the last flush that is known to have succeeded began.
    flushed: AtomicU64,
    /// The listener has been told of a request that is kept.
    pub stop_said: AtomicBool,
}

impl Shared {
    pub(super) fn new(limit: RateLimit, writeback: bool) -> Self {
        let limiter = (!limit.is_unlimited()).then(|| RateLimiter::new(limit, Instant::now()));
        Self {
            writeback: AtomicBool::new(writeback),
            limiter,
            written: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            stop_said: AtomicBool::new(false),
        }
    }

    /// A write that is not durable by itself is about to be acknowledged.
    pub(super) fn note_written(&self) {
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    /// A flush begins: what [`note_flushed`](Self::note_flushed) is to be told when it has succeeded.
    pub(super) fn begin_flush(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(super) fn note_flushed(&self, begun_at: u64) {
        self.flushed.fetch_max(begun_at, Ordering::AcqRel);
    }

    /// Whether a write was acknowledged that no flush has made durable.
    pub(super) fn has_unflushed(&self) -> bool {
        self.flushed.load(Ordering::Acquire) != self.written.load(Ordering::Acquire)
    }
}
