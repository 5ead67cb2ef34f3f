//! How a driver finds a device, configures it and is called by it (virtio 1.3, 4).
//!
//! A transport is a set of registers over the core in `core`, which knows what a driver's actions mean
//! whatever the registers are.

mod broken_log;
mod core;
mod link;
mod mmio;
mod pci;
mod status;

pub use mmio::MmioTransport;
pub use pci::{PciInterrupts, PciTransport};
