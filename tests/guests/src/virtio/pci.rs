//! The PCI transport (virtio 1.3, 4.1).

use crate::lapic;
use crate::mmio::Registers;
use crate::pci::{Function, capability};

/// Offsets in the common configuration (virtio 1.3, 4.1.4.3).
pub mod register {
    /// Which 32 feature bits.
    pub const DEVICE_FEATURES_SELECT: usize = 0x00;
    /// 32 feature bits.
    pub const DEVICE_FEATURES: usize = 0x04;
    /// Which 32 feature bits of the driver.
    pub const DRIVER_FEATURES_SELECT: usize = 0x08;
    /// 32 feature bits of the driver.
    pub const DRIVER_FEATURES: usize = 0x0c;
    /// Vector of configuration changes, 16 bits.
    pub const CONFIG_VECTOR: usize = 0x10;
    /// Device status, 8 bits.
    pub const STATUS: usize = 0x14;
    /// Changes when the configuration changes, 8 bits.
    pub const CONFIG_GENERATION: usize = 0x15;
    /// Which queue the queue registers mean, 16 bits.
    pub const QUEUE_SELECT: usize = 0x16;
    /// The queue's size, at first the largest, 16 bits.
    pub const QUEUE_SIZE: usize = 0x18;
    /// Vector of the queue, 16 bits.
    pub const QUEUE_VECTOR: usize = 0x1a;
    /// 1 when the queue is in use, 16 bits.
    pub const QUEUE_ENABLE: usize = 0x1c;
    /// The queue's doorbell, 16 bits.
    pub const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
    /// Descriptor area, 64 bits; the driver area and the device area follow.
    pub const QUEUE_DESCRIPTORS: usize = 0x20;
    /// 1 resets the queue, 16 bits.
    pub const QUEUE_RESET: usize = 0x3a;
}

/// No vector.
pub const NO_VECTOR: u16 = 0xffff;
/// Vendor of virtio devices.
const VENDOR_ID: u16 = 0x1af4;
/// Device identifier of a device of type 0.
const FIRST_DEVICE_ID: u16 = 0x1040;

/// A device's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciRegisters {
    /// The function.
    pub function: Function,
    /// Common configuration.
    pub common: Registers,
    /// ISR status.
    pub isr: Registers,
    /// Device-specific configuration.
    pub config: Registers,
    notify: Registers,
    notify_multiplier: u32,
}

impl PciRegisters {
    /// All devices of the machine, with their types, their memory decoded.
    pub(super) fn all() -> impl Iterator<Item = (Self, u32)> {
        Function::all().filter_map(|function| {
            let id = function.read_u16(crate::pci::register::ID + 2);
            let vendor = function.read_u16(crate::pci::register::ID);
            let device_type = id.checked_sub(FIRST_DEVICE_ID)?;
            if vendor != VENDOR_ID {
                return None;
            }
            function.enable();
            Some((Self::of(function), u32::from(device_type)))
        })
    }

    /// The parts of a function, which decodes memory below 4 GiB.
    ///
    /// # Panics
    ///
    /// When it has no virtio capabilities.
    pub fn of(function: Function) -> Self {
        let find = |kind| {
            function
                .capabilities(capability::VENDOR)
                .find(|offset| function.read_u8(offset + 3) == kind)
                .unwrap_or_else(|| panic!("no virtio capability of kind {kind}"))
        };
        let part = |kind| {
            let offset = find(kind);
            let base = function.registers(function.read_u8(offset + 4)).base();
            // SAFETY: the function's registers; no memory of the guest is there.
            unsafe { Registers::at(base + function.read_u32(offset + 8) as usize) }
        };
        Self {
            function,
            common: part(1),
            notify: part(2),
            isr: part(3),
            config: part(4),
            notify_multiplier: function.read_u32(find(2) + 16),
        }
    }

    /// The doorbell of queue `number`.
    pub fn doorbell(self, number: u16) -> usize {
        let offset = if number < self.queues() {
            self.select(number);
            u32::from(self.common.read_u16(register::QUEUE_NOTIFY_OFFSET))
        } else {
            u32::from(number)
        };
        self.notify.base() + (offset * self.notify_multiplier) as usize
    }

    /// Rings it, without asking the device where it is: it is at the queue's number.
    pub(super) fn notify(self, number: u32) {
        let offset = number.wrapping_mul(self.notify_multiplier) as usize;
        if offset < 0x1000 {
            self.notify.write_u16(offset, number as u16);
        }
    }

    fn queues(self) -> u16 {
        self.common.read_u16(0x12)
    }

    pub(super) fn select(self, number: u16) {
        self.common.write_u16(register::QUEUE_SELECT, number);
    }

    /// Turns MSI-X on, and every vector of the table into `vector` of this processor.
    pub(super) fn use_messages(self, vector: u8) {
        let msix = self
            .function
            .capabilities(capability::MSIX)
            .next()
            .expect("MSI-X");
        let control = self.function.read_u16(msix + 2);
        let table = self.function.read_u32(msix + 4);
        let table_offset = (table & !7) as usize;
        let table = self.function.registers((table & 7) as u8);
        for entry in 0..=usize::from(control & 0x7ff) {
            let entry = table_offset + entry * 16;
            let address = 0xfee0_0000 | u32::from(lapic::identifier()) << 12;
            table.write_u32(entry, address);
            table.write_u32(entry + 4, 0);
            table.write_u32(entry + 8, u32::from(vector));
            table.write_u32(entry + 12, 0);
        }
        self.function.write_u16(msix + 2, 1 << 15);
    }
}
