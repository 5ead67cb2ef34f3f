//! What a device tells its driver: status, configuration generation, and notifications, which each
//! transport sends in its own way.
//!
//! Shared by the transport (vCPU threads, under the device's lock) and the device's worker, which takes
//! no lock of the transport: everything is atomic.

use std::fmt::{Debug, Display};
use std::sync::atomic::{AtomicU32, Ordering};

use super::broken_log::BrokenLog;
use super::status;
use crate::Interrupt;

/// How a transport sends notifications to its driver (virtio 1.3, 2.3). Never blocks.
pub(super) trait Notifier: Debug + Send + Sync + 'static {
    /// The queue has used buffers.
    fn used_buffer(&self, queue_index: u16);

    /// The configuration space, or the status, has changed.
    fn configuration_change(&self);

    /// The device was reset: nothing is left to tell.
    fn reset(&self);
}

/// Status and configuration generation, and the way to the driver.
#[derive(Debug)]
pub(super) struct DriverLink<N> {
    pub(super) status: AtomicU32,
    pub(super) config_generation: AtomicU32,
    pub(super) notifier: N,
    broken_log: BrokenLog,
}

impl<N> DriverLink<N> {
    pub(super) fn new(device: &str, notifier: N) -> Self {
        Self {
            status: AtomicU32::new(0),
            config_generation: AtomicU32::new(0),
            notifier,
            broken_log: BrokenLog::new(device),
        }
    }
}

impl<N: Notifier> Interrupt for DriverLink<N> {
    fn signal_used(&self, queue_index: u16) {
        self.notifier.used_buffer(queue_index);
    }

    fn signal_config_change(&self) {
        self.config_generation.fetch_add(1, Ordering::Release);
        self.notifier.configuration_change();
    }

    fn mark_broken(&self, reason: &dyn Display) {
        let before = self
            .status
            .fetch_or(status::DEVICE_NEEDS_RESET, Ordering::AcqRel);
        self.broken_log.write(reason);
        if before & status::DRIVER_OK != 0 {
            self.notifier.configuration_change();
        }
    }
}
