//! The virtio devices of a machine: made from what the session lends, placed on the transport that the
//! configuration says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio::VirtioDevice;
use virtio::devices::rng::Rng;
use virtio::transport::{MmioTransport, PciTransport};

use crate::config::MachineConfig;
use crate::error::VmmError;
use crate::resources::Resources;

/// The virtio devices of a machine, each behind its transport.
#[derive(Debug)]
pub enum VirtioDevices {
    /// Functions on PCI.
    Pci(Vec<Arc<Mutex<PciTransport>>>),
    /// Each with a page and an interrupt of its own.
    Mmio(Vec<Arc<Mutex<MmioTransport>>>),
}

impl VirtioDevices {
    /// Stops the devices that their drivers have started, with nothing in flight. The vCPUs stand.
    pub fn pause(&self) {
        match self {
            Self::Pci(devices) => devices.iter().for_each(|device| lock(device).pause()),
            Self::Mmio(devices) => devices.iter().for_each(|device| lock(device).pause()),
        }
    }

    /// Lets paused devices go on.
    pub fn resume(&self) {
        match self {
            Self::Pci(devices) => devices.iter().for_each(|device| lock(device).resume()),
            Self::Mmio(devices) => devices.iter().for_each(|device| lock(device).resume()),
        }
    }
}

fn lock<T>(transport: &Mutex<T>) -> MutexGuard<'_, T> {
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Disks, network interfaces, the entropy device and the socket device, in this order, for this incarnation of
/// the machine.
///
/// # Errors
///
/// [`VmmError`] when the host refuses one.
pub fn make(
    config: &MachineConfig,
    resources: &Resources,
    incarnation: u64,
) -> Result<Vec<Box<dyn VirtioDevice>>, VmmError> {
    let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
    for (index, disk) in config.disk.iter().enumerate() {
        devices.push(Box::new(resources.blk(index, disk, incarnation)?));
    }
    for (index, net) in config.net.iter().enumerate() {
        devices.push(Box::new(resources.net(&config.name, index, net)?));
    }
    if config.rng {
        devices.push(Box::new(Rng::new()));
    }
    if let Some(vsock) = resources.vsock(config)? {
        devices.push(Box::new(vsock));
    }
    Ok(devices)
}
