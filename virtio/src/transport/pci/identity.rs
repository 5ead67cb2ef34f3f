//! What a virtio function says it is (virtio 1.3, 4.1.2; PCI Code and ID Assignment Specification 1.11, 1).

use pci::Identity;

use crate::VirtioDevice;

/// The vendor of virtio devices.
const VENDOR_ID: u16 = 0x1af4;
/// The device identifier is this and the device type.
const FIRST_DEVICE_ID: u16 = 0x1040;
/// Modern devices have a revision of at least 1.
const REVISION_ID: u8 = 1;

/// The identity of `device`. Its subsystem is the device again, as modern devices have no transitional one
/// there.
pub(super) fn of(device: &dyn VirtioDevice) -> Identity {
    let device_type = device.device_type();
    let device_id = u16::try_from(device_type)
        .unwrap_or(u16::MAX)
        .saturating_add(FIRST_DEVICE_ID);
    Identity {
        vendor_id: VENDOR_ID,
        device_id,
        revision_id: REVISION_ID,
        class: class(device_type),
        subsystem_vendor_id: VENDOR_ID,
        subsystem_id: device_id,
    }
}

/// Base class, sub-class, programming interface, for a device type (virtio 1.3, 5).
const fn class(device_type: u32) -> [u8; 3] {
    match device_type {
        // Network controller, Ethernet.
        1 => [0x02, 0x00, 0x00],
        // Mass storage controller, none of those that have a number: block devices, SCSI.
        2 | 8 => [0x01, 0x80, 0x00],
        // Communication controller, other: consoles.
        3 => [0x07, 0x80, 0x00],
        // None of the classes.
        _ => [0xff, 0x00, 0x00],
    }
}
