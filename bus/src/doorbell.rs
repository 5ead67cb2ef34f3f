//! Doorbells: writes of the guest that become an event without leaving the kernel.

use std::fmt::Debug;
use std::io;

use vmm_sys_util::eventfd::EventFd;

/// A guest's write that signals an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Doorbell {
    /// The guest-physical address that is written.
    pub address: u64,
    /// With a value, four-byte writes of it; without one, every write to the address, whatever its
    /// length and value.
    pub value: Option<u32>,
}

/// Where a device has its doorbells taken care of, as KVM does with ioeventfds.
///
/// Called on the vCPU thread that starts, moves or resets a device, under the device's lock. After
/// [`register`](Self::register) returns, the guest's write signals `event` and does not reach the bus.
pub trait DoorbellRegistry: Debug + Send + Sync {
    /// Comes before a device is started, whether or not that succeeds: from now on it may interrupt its
    /// driver. Comes again with each start.
    fn prepare(&self) {}

    /// Signals `event` each time the guest rings `doorbell`.
    ///
    /// # Errors
    ///
    /// What the host answers, for example when too many doorbells are registered. The device then
    /// goes on with writes that arrive over the bus.
    fn register(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()>;

    /// Takes back what [`register`](Self::register) did with the same arguments.
    ///
    /// # Errors
    ///
    /// What the host answers; the doorbell may then still be active.
    fn unregister(&self, doorbell: Doorbell, event: &EventFd) -> io::Result<()>;
}
