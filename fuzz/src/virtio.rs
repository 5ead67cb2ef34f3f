//! virtio devices and a driver that mostly knows how to use them, and then does not.

mod devices;
mod guest;
mod transport;

pub use devices::Device;
pub use guest::Guest;

/// Who does the devices' work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The thread of the input, when the driver rings: the same each time, and quick.
    Driven,
    /// Their own threads, with each of a disk's engines.
    Threads,
}
