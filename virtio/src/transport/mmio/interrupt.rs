//! The interrupt of a virtio-mmio device: one wire, and a register that says why.
//!
//! Shared by the transport (vCPU threads, under the device's lock) and the device's worker, which takes
//! no lock: everything is atomic.

use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::register::interrupt_status;
use crate::transport::link::Notifier;

/// Interrupt status, and the wire to the guest.
#[derive(Debug)]
pub(super) struct MmioInterrupt {
    /// Signalled for each interrupt: the wire is edge-triggered.
    event: EventFd,
    pub(super) interrupt_status: AtomicU32,
}

impl MmioInterrupt {
    pub(super) const fn new(event: EventFd) -> Self {
        Self {
            event,
            interrupt_status: AtomicU32::new(0),
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

impl Notifier for MmioInterrupt {
    fn used_buffer(&self, _queue_index: u16) {
        self.raise(interrupt_status::USED_BUFFER);
    }

    fn configuration_change(&self) {
        self.raise(interrupt_status::CONFIG_CHANGE);
    }

    fn reset(&self) {
        self.interrupt_status.store(0, Ordering::Release);
    }
}
