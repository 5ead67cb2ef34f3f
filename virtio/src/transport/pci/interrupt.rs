//! The interrupts of a virtio function: a vector for each queue and one for the configuration (virtio 1.3,
//! 4.1.4.3 and 4.1.5.1.2), or the pin with the ISR status (4.1.4.5).
//!
//! Shared by the transport (vCPU threads, under the function's lock) and the device's worker, which takes
//! no lock but that of the vector, or of the pin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use pci::{Intx, Msix};

use crate::transport::link::Notifier;

/// No vector: no interrupt (`VIRTIO_MSI_NO_VECTOR`).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// Bits of the ISR status.
mod isr {
    pub const QUEUE: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
}

/// Which event goes to which vector.
#[derive(Debug)]
pub(super) struct PciInterrupt {
    pub msix: Arc<Msix>,
    intx: Arc<Intx>,
    configuration: AtomicU16,
    queues: Box<[AtomicU16]>,
}

impl PciInterrupt {
    /// The interrupts of a device with `queues` queues.
    pub(super) fn new(msix: Arc<Msix>, intx: Arc<Intx>, queues: usize) -> Self {
        let unassigned = || AtomicU16::new(NO_VECTOR);
        Self {
            msix,
            intx,
            configuration: unassigned(),
            queues: std::iter::repeat_with(unassigned).take(queues).collect(),
        }
    }

    /// Reads the ISR status, which clears it and releases the pin (4.1.4.5.1).
    pub(super) fn take_status(&self) -> u8 {
        self.intx.take()
    }

    /// The vector for changes of the configuration.
    pub(super) fn configuration_vector(&self) -> u16 {
        self.configuration.load(Ordering::Acquire)
    }

    /// Takes the vector for changes of the configuration; none, where there is no such vector.
    pub(super) fn set_configuration_vector(&self, vector: u16) {
        self.configuration
            .store(self.existing(vector), Ordering::Release);
    }

    /// The vector of a queue.
    pub(super) fn queue_vector(&self, queue: u32) -> u16 {
        self.queue(queue)
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// Takes the vector of a queue; none, where there is no such vector.
    pub(super) fn set_queue_vector(&self, queue: u32, vector: u16) {
        if let Some(place) = self.queue(queue) {
            place.store(self.existing(vector), Ordering::Release);
        }
    }

    fn queue(&self, queue: u32) -> Option<&AtomicU16> {
        self.queues.get(usize::try_from(queue).ok()?)
    }

    fn existing(&self, vector: u16) -> u16 {
        match vector < self.msix.vectors() {
            true => vector,
            false => NO_VECTOR,
        }
    }
}

impl Notifier for PciInterrupt {
    fn used_buffer(&self, queue_index: u16) {
        if self.msix.is_enabled() {
            self.msix.fire(self.queue_vector(u32::from(queue_index)));
        } else {
            self.intx.raise(isr::QUEUE);
        }
    }

    fn configuration_change(&self) {
        // The status says so in either case; the pin is still while MSI-X is enabled.
        self.intx.raise(isr::CONFIGURATION);
        if self.msix.is_enabled() {
            self.msix.fire(self.configuration_vector());
        }
    }

    fn reset(&self) {
        self.intx.take();
        self.configuration.store(NO_VECTOR, Ordering::Release);
        for queue in &self.queues {
            queue.store(NO_VECTOR, Ordering::Release);
        }
    }
}
