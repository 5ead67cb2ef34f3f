//! The interrupt of a virtio-mmio device, and what of its registers changes by the device itself.
//!
//! Shared by the transport (vCPU threads, under the device's lock) and the device's worker, which takes
//! no lock: everything is atomic.

use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::register::{interrupt_status, status};
use crate::Interrupt;
use crate::transport::broken_log::BrokenLog;

/// Status, interrupt status and configuration generation, and the wire to the guest.
#[derive(Debug)]
pub(super) struct MmioInterrupt {
    /// Signalled for each interrupt: the wire is edge-triggered.
    event: EventFd,
    pub status: AtomicU32,
    pub interrupt_status: AtomicU32,
    pub config_generation: AtomicU32,
    broken_log: BrokenLog,
}

impl MmioInterrupt {
    pub(super) fn new(device: &str, event: EventFd) -> Self {
        Self {
            event,
            status: AtomicU32::new(0),
            interrupt_status: AtomicU32::new(0),
            config_generation: AtomicU32::new(0),
            broken_log: BrokenLog::new(device),
        }
    }

    /// One edge for each call, whether or not the bit was set: an edge that the interrupt controller
    /// did not take, masked as it may have been, must not be the last one.
    fn raise(&self, bit: u32) {
        // Release: what the device wrote before, used ring or status, is seen by who sees the bit.
        self.interrupt_status.fetch_or(bit, Ordering::Release);
        // This fails when the counter is full, and then an interrupt is pending.
        let _already_pending = self.event.write(1);
    }
}

impl Interrupt for MmioInterrupt {
    fn signal_used(&self, _queue_index: u16) {
        self.raise(interrupt_status::USED_BUFFER);
    }

    fn signal_config_change(&self) {
        self.config_generation.fetch_add(1, Ordering::Release);
        self.raise(interrupt_status::CONFIG_CHANGE);
    }

    fn mark_broken(&self, reason: &dyn Display) {
        let before = self
            .status
            .fetch_or(status::DEVICE_NEEDS_RESET, Ordering::AcqRel);
        self.broken_log.write(reason);
        if before & status::DRIVER_OK != 0 {
            self.raise(interrupt_status::CONFIG_CHANGE);
        }
    }
}
