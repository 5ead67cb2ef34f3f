//! The virtio devices of a machine: made from what the session lends, each behind a virtio-mmio
//! transport with a page and an interrupt of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arch::layout::{self, gsi};
use boot::acpi::VirtioMmio;
use bus::{DoorbellRegistry, MmioBus};
use kvm_ioctls::VmFd;
use virtio::VirtioDevice;
use virtio::devices::rng::Rng;
use virtio::transport::MmioTransport;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::doorbells::Doorbells;
use crate::config::MachineConfig;
use crate::error::VmmError;
use crate::interrupts::Interrupts;
use crate::memory::GuestMemory;
use crate::resources::Resources;

/// The virtio devices of a machine.
#[derive(Debug, Default)]
pub struct VirtioDevices {
    transports: Vec<Arc<Mutex<MmioTransport>>>,
    /// Where the guest finds each.
    pub places: Vec<VirtioMmio>,
}

impl VirtioDevices {
    /// Stops the devices that their drivers have started, with nothing in flight. The vCPUs stand.
    pub fn pause(&self) {
        for transport in &self.transports {
            lock(transport).pause();
        }
    }

    /// Lets paused devices go on.
    pub fn resume(&self) {
        for transport in &self.transports {
            lock(transport).resume();
        }
    }
}

fn lock(transport: &Mutex<MmioTransport>) -> MutexGuard<'_, MmioTransport> {
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places disks, network interfaces and the entropy device, in this order.
///
/// # Errors
///
/// [`VmmError::Host`] when the host refuses a descriptor or an interrupt.
pub fn place(
    config: &MachineConfig,
    resources: &Resources,
    vm: &Arc<VmFd>,
    memory: &GuestMemory,
    interrupts: &Interrupts,
    mmio: &mut MmioBus,
) -> Result<VirtioDevices, VmmError> {
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    for (index, disk) in config.disk.iter().enumerate() {
        devices.push(Box::new(resources.blk(index, disk)?));
    }
    for (index, net) in config.net.iter().enumerate() {
        devices.push(Box::new(resources.net(&config.name, index, net)?));
    }
    if config.rng {
        devices.push(Box::new(Rng::new()));
    }
    let addresses = layout::VIRTIO_MMIO
        .step_by(usize::try_from(layout::VIRTIO_MMIO_STRIDE).unwrap_or(usize::MAX));
    let mut placed = VirtioDevices::default();
    for ((device, address), gsi) in devices.into_iter().zip(addresses).zip(gsi::VIRTIO_MMIO) {
        let event = EventFd::new(EFD_NONBLOCK).map_err(VmmError::host)?;
        let doorbells: Arc<dyn DoorbellRegistry> = Arc::new(Doorbells::new(
            Arc::clone(vm),
            interrupts.clone(),
            event.try_clone().map_err(VmmError::host)?,
            gsi,
        ));
        let transport = MmioTransport::new(device, Arc::clone(memory), address, event, doorbells);
        let length = layout::VIRTIO_MMIO_LENGTH;
        let transport = Arc::new(Mutex::new(transport));
        mmio.insert(address, length, transport.clone())
            .map_err(VmmError::host)?;
        placed.transports.push(transport);
        placed.places.push(VirtioMmio {
            address,
            length,
            gsi,
        });
    }
    Ok(placed)
}
