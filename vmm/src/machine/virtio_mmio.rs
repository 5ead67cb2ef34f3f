//! virtio devices behind virtio-mmio transports, each with a page and an interrupt of its own.

use std::sync::{Arc, Mutex};

use arch::layout::{self, gsi};
use boot::acpi::VirtioMmio;
use bus::{DoorbellRegistry, MmioBus};
use kvm_ioctls::VmFd;
use virtio::VirtioDevice;
use virtio::transport::MmioTransport;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::doorbells::WiredDoorbells;
use crate::error::VmmError;
use crate::interrupts::Interrupts;
use crate::memory::GuestMemory;

/// The transports, and where the guest finds each.
pub type Placed = (Vec<Arc<Mutex<MmioTransport>>>, Vec<VirtioMmio>);

/// What the transports are made with.
#[derive(Debug)]
pub struct MmioSetup<'a> {
    /// The machine.
    pub vm: &'a Arc<VmFd>,
    /// Its memory.
    pub memory: &'a GuestMemory,
    /// Its interrupt controllers.
    pub interrupts: &'a Interrupts,
    /// Whether drivers are offered packed rings.
    pub packed_rings: bool,
}

impl MmioSetup<'_> {
    /// Places `devices` in their order.
    ///
    /// # Errors
    ///
    /// [`VmmError::Host`] when the host refuses a descriptor.
    pub fn place(
        &self,
        devices: Vec<Box<dyn VirtioDevice>>,
        mmio: &mut MmioBus,
    ) -> Result<Placed, VmmError> {
        let addresses = layout::VIRTIO_MMIO
            .step_by(usize::try_from(layout::VIRTIO_MMIO_STRIDE).unwrap_or(usize::MAX));
        let (mut transports, mut places) = Placed::default();
        for ((device, address), gsi) in devices.into_iter().zip(addresses).zip(gsi::VIRTIO_MMIO) {
            let event = EventFd::new(EFD_NONBLOCK).map_err(VmmError::host)?;
            let doorbells: Arc<dyn DoorbellRegistry> = Arc::new(WiredDoorbells::new(
                Arc::clone(self.vm),
                self.interrupts.clone(),
                event.try_clone().map_err(VmmError::host)?,
                gsi,
            ));
            let memory = Arc::clone(self.memory);
            let transport = MmioTransport::new(device, memory, address, event, doorbells)
                .with_packed_rings(self.packed_rings);
            let length = layout::VIRTIO_MMIO_LENGTH;
            let transport = Arc::new(Mutex::new(transport));
            mmio.insert(address, length, transport.clone())
                .map_err(VmmError::host)?;
            transports.push(transport);
            places.push(VirtioMmio {
                address,
                length,
                gsi,
            });
        }
        Ok((transports, places))
    }
}
