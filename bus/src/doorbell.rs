//! Doorbells: writes of the guest that become an event without leaving the kernel.

use std::fmt::Debug;
use std::io;

use vmm_sys_util::eventfd::EventFd;

/// Where a device has its doorbells taken care of, as KVM does with ioeventfds.
///
/// Called on the vCPU thread that starts or resets a device, under the device's lock. After
/// [`register`](Self::register) returns, a guest's four-byte write of `value` to `address` signals
/// `event` and does not reach the bus.
pub trait DoorbellRegistry: Debug + Send + Sync {
    /// Signals `event` for each four-byte write of `value` to the guest-physical `address`.
    ///
    /// # Errors
    ///
    /// What the host answers, for example when too many doorbells are registered. The device then
    /// goes on with writes that arrive over the bus.
    fn register(&self, address: u64, value: u32, event: &EventFd) -> io::Result<()>;

    /// Takes back what [`register`](Self::register) did with the same arguments.
    ///
    /// # Errors
    ///
    /// What the host answers; the doorbell may then still be active.
    fn unregister(&self, address: u64, value: u32, event: &EventFd) -> io::Result<()>;
}
