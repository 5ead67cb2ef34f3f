//! A virtio driver of our own (virtio 1.3): the transports, split and packed rings, and the device types.

pub mod block;
pub mod entropy;
pub mod mmio;
pub mod net;
mod packed;
pub mod pci;
mod queue;
mod transport;
pub mod vsock;

pub use queue::{Buffer, Descriptor, Layout, Queue, flag};
pub use transport::{Device, Transport, device_id, feature, status};
