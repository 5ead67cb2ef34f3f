//! Bits of the device status (virtio 1.3, 2.1).

/// The guest has noticed the device.
pub const ACKNOWLEDGE: u32 = 1;
/// The guest has a driver for it.
pub const DRIVER: u32 = 2;
/// The driver is set up.
pub const DRIVER_OK: u32 = 4;
/// The features are agreed upon.
pub const FEATURES_OK: u32 = 8;
/// The device can only be reset.
pub const DEVICE_NEEDS_RESET: u32 = 64;
/// The guest has given up on the device.
pub const FAILED: u32 = 128;
