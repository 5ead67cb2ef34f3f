//! A virtio driver of our own (virtio 1.3): the MMIO transport, split rings, and the device types.

pub mod block;
pub mod entropy;
pub mod net;
mod queue;
mod transport;

pub use queue::{Buffer, Descriptor, Layout, Queue, flag};
pub use transport::{Device, device_id, feature, register, status};
