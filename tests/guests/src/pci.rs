//! PCI functions (PCI Local Bus Specification 3.0, 3.2.2.3.2 and 6), found by the configuration ports.

use crate::mmio::Registers;
use crate::port;

/// CONFIG_ADDRESS.
const ADDRESS: u16 = 0xcf8;
/// CONFIG_DATA.
const DATA: u16 = 0xcfc;
/// Devices of a bus.
const DEVICES: u8 = 32;

/// Offsets in the configuration space.
pub mod register {
    /// Vendor identifier; the device identifier follows.
    pub const ID: u8 = 0x00;
    /// Command; the status follows.
    pub const COMMAND: u8 = 0x04;
    /// First base address register.
    pub const BAR_0: u8 = 0x10;
    /// Offset of the first capability.
    pub const CAPABILITIES: u8 = 0x34;
    /// Interrupt line; the pin follows.
    pub const INTERRUPT: u8 = 0x3c;
}

/// Bits of the command.
pub mod command {
    /// Memory is decoded.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may access memory.
    pub const BUS_MASTER: u16 = 1 << 2;
}

/// Capability identifiers.
pub mod capability {
    /// Power states.
    pub const POWER: u8 = 0x01;
    /// A message.
    pub const MSI: u8 = 0x05;
    /// The vendor's.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
}

/// Function 0 of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// Bus number.
    pub bus: u8,
    /// Device number.
    pub device: u8,
}

impl Function {
    /// All of bus 0; none in a machine without PCI.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..DEVICES)
            .map(|device| Self { bus: 0, device })
            .filter(|function| function.is_there())
    }

    /// Whether there is a function.
    pub fn is_there(self) -> bool {
        self.read_u16(register::ID) != 0xffff
    }

    fn select(self, offset: u8) -> u16 {
        let function = u32::from(self.bus) << 16 | u32::from(self.device) << 11;
        let address = 1 << 31 | function | u32::from(offset & !3);
        port::write_u32(ADDRESS, address);
        DATA + u16::from(offset & 3)
    }

    /// Reads a byte.
    pub fn read_u8(self, offset: u8) -> u8 {
        port::read_u8(self.select(offset))
    }

    /// Reads 16 bits.
    pub fn read_u16(self, offset: u8) -> u16 {
        port::read_u16(self.select(offset))
    }

    /// Reads 32 bits.
    pub fn read_u32(self, offset: u8) -> u32 {
        port::read_u32(self.select(offset))
    }

    /// Writes a byte.
    pub fn write_u8(self, offset: u8, value: u8) {
        port::write_u8(self.select(offset), value);
    }

    /// Writes 16 bits.
    pub fn write_u16(self, offset: u8, value: u16) {
        port::write_u16(self.select(offset), value);
    }

    /// Writes 32 bits.
    pub fn write_u32(self, offset: u8, value: u32) {
        port::write_u32(self.select(offset), value);
    }

    /// Offsets of its capabilities with that identifier.
    pub fn capabilities(self, id: u8) -> impl Iterator<Item = u8> {
        let mut next = self.read_u8(register::CAPABILITIES);
        core::iter::from_fn(move || {
            while next != 0 {
                let offset = next;
                next = self.read_u8(offset + 1);
                if self.read_u8(offset) == id {
                    return Some(offset);
                }
            }
            None
        })
    }

    /// Address in base address register `index`, of 32 or 64 bits.
    pub fn bar(self, index: u8) -> u64 {
        let offset = register::BAR_0 + index * 4;
        let low = self.read_u32(offset);
        let high = if low & 0x6 == 0x4 {
            self.read_u32(offset + 4)
        } else {
            0
        };
        u64::from(high) << 32 | u64::from(low & !0xf)
    }

    /// The registers at base address register `index`.
    ///
    /// # Panics
    ///
    /// When they are not below 4 GiB.
    pub fn registers(self, index: u8) -> Registers {
        let address = self.bar(index);
        assert!(
            (0x8000_0000..1 << 32).contains(&address),
            "base address register {index} at {address:#x}"
        );
        // SAFETY: the function's registers; no memory of the guest is there.
        unsafe { Registers::at(address as usize) }
    }

    /// Has it decode memory and access memory.
    pub fn enable(self) {
        self.write_u16(register::COMMAND, command::MEMORY | command::BUS_MASTER);
    }
}
