//! How a driver finds a device, configures it and is called by it (virtio 1.3, 4).

mod broken_log;
mod mmio;

pub use mmio::MmioTransport;
