//! The MMIO transport (virtio 1.3, 4.2).

use crate::Machine;
use crate::mmio::Registers;

/// Offsets of registers (virtio 1.3, 4.2.2).
pub mod register {
    /// "virt".
    pub const MAGIC: usize = 0x00;
    /// 2.
    pub const VERSION: usize = 0x04;
    /// Device type, 0 where no device is.
    pub const DEVICE_ID: usize = 0x08;
    /// 32 feature bits, chosen by the next one.
    pub const DEVICE_FEATURES: usize = 0x10;
    /// Which 32 feature bits.
    pub const DEVICE_FEATURES_SELECT: usize = 0x14;
    /// 32 feature bits of the driver.
    pub const DRIVER_FEATURES: usize = 0x20;
    /// Which 32 feature bits of the driver.
    pub const DRIVER_FEATURES_SELECT: usize = 0x24;
    /// Which queue the queue registers mean.
    pub const QUEUE_SELECT: usize = 0x30;
    /// The largest size of the queue, 0 where there is none.
    pub const QUEUE_SIZE_MAX: usize = 0x34;
    /// The queue's size.
    pub const QUEUE_SIZE: usize = 0x38;
    /// 1 when the queue is in use.
    pub const QUEUE_READY: usize = 0x44;
    /// Doorbell: the queue's number.
    pub const QUEUE_NOTIFY: usize = 0x50;
    /// Bit 0: used buffers; bit 1: configuration change.
    pub const INTERRUPT_STATUS: usize = 0x60;
    /// Clears bits of the interrupt status.
    pub const INTERRUPT_ACK: usize = 0x64;
    /// Device status.
    pub const STATUS: usize = 0x70;
    /// Descriptor area, low half; the high half follows.
    pub const QUEUE_DESCRIPTORS: usize = 0x80;
    /// Driver area (available ring), low half.
    pub const QUEUE_DRIVER: usize = 0x90;
    /// Device area (used ring), low half.
    pub const QUEUE_DEVICE: usize = 0xa0;
    /// Changes when the configuration changes.
    pub const CONFIG_GENERATION: usize = 0xfc;
    /// Device-specific configuration.
    pub const CONFIG: usize = 0x100;
}

/// Global system interrupts of the devices in the order of their addresses.
const DEFAULT_GSIS: [u32; 15] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 14, 15];

/// A device's page of registers, and its pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioRegisters {
    /// The registers.
    pub registers: Registers,
    /// Its pin of the I/O APIC.
    pub gsi: u32,
}

impl MmioRegisters {
    /// All devices of the machine, with their types. Where they are is for the command line to say:
    /// `virtio.base`, `virtio.stride`, `virtio.count`, `virtio.gsi` (of the first one, the others
    /// following).
    pub(super) fn all(machine: &Machine) -> impl Iterator<Item = (Self, u32)> + use<> {
        let base = machine.number("virtio.base", 0xfe00_0000) as usize;
        let stride = machine.number("virtio.stride", 0x1000) as usize;
        let count = machine.number("virtio.count", DEFAULT_GSIS.len() as u64) as usize;
        let first_gsi = machine
            .option("virtio.gsi")
            .map(|_| machine.number("virtio.gsi", 0) as u32);
        (0..count).filter_map(move |slot| {
            // SAFETY: the machine's window for such devices; nothing else is there.
            let registers = unsafe { Registers::at(base + slot * stride) };
            let id = (registers.read_u32(register::MAGIC) == u32::from_le_bytes(*b"virt"))
                .then(|| registers.read_u32(register::DEVICE_ID))?;
            let gsi = first_gsi.map_or_else(|| DEFAULT_GSIS[slot], |first| first + slot as u32);
            (id != 0).then_some((Self { registers, gsi }, id))
        })
    }
}
