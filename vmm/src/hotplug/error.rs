//! Why a device was not attached or detached.

use super::DeviceId;
use crate::config::Problems;
use crate::error::VmmError;

/// Why a device was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    /// What the device's configuration says or names.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// There is no free slot.
    #[error(
        "none of the machine's {slots} hot-plug slots is free: give it more with 'hotplug-slots'"
    )]
    NoSlot {
        /// How many there are.
        slots: usize,
    },
    /// No device has this identifier, or no longer.
    #[error("no attached device has the identifier {0}")]
    NotAttached(DeviceId),
    /// Somebody else is waiting for the guest to give the device up.
    #[error("device {0} is being detached already")]
    BeingDetached(DeviceId),
    /// The guest did not give the device up in time.
    #[error("the guest has not given device {0} up; it stays")]
    NotReleased(DeviceId),
    /// The machine has ended.
    #[error("the machine has ended")]
    Ended,
    /// The machine could not take the device.
    #[error(transparent)]
    Machine(#[from] VmmError),
}
