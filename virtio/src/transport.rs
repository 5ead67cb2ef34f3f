//! How a driver finds a device, configures it and is called by it (virtio 1.3, 4).
//!
//! A transport is a set of registers over the core in `core`, which knows what a driver's actions mean
//! whatever the registers are.

mod broken_log;
mod core;
mod link;
mod mmio;
mod status;

pub use mmio::MmioTransport;

/// "CUDY", for the vendor identifiers of virtio-mmio.
const VENDOR_ID: u32 = 0x5944_5543;
