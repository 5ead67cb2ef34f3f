//! The I/O APIC (Intel 82093AA).

use crate::acpi::{InterruptStructure, Tables};
use crate::mmio::Registers;

/// Bit of a redirection entry: masked.
pub const MASKED: u64 = 1 << 16;
/// Bit of a redirection entry: level-triggered.
pub const LEVEL: u64 = 1 << 15;
/// Bit of a redirection entry: the level interrupt waits for its end.
pub const REMOTE_IRR: u64 = 1 << 14;
/// Bit of a redirection entry: active low.
pub const ACTIVE_LOW: u64 = 1 << 13;

/// One I/O APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoApic {
    registers: Registers,
}

impl IoApic {
    /// The first one of the MADT; the one at 0xfec00000 on a machine without tables.
    pub fn first(tables: Option<&Tables>) -> Self {
        let address = tables.and_then(|tables| {
            tables
                .interrupt_structures()
                .find_map(|structure| match structure {
                    InterruptStructure::IoApic {
                        address,
                        first_gsi: 0,
                    } => Some(address as usize),
                    _ => None,
                })
        });
        // SAFETY: the machine's own word for where the registers are, or the PC's custom.
        let registers = unsafe { Registers::at(address.unwrap_or(0xfec0_0000)) };
        Self { registers }
    }

    /// Guest-physical address of its registers.
    pub fn address(self) -> usize {
        self.registers.base()
    }

    /// Reads a register by the index and data window.
    pub fn read(self, index: u32) -> u32 {
        self.registers.write_u32(0, index);
        self.registers.read_u32(0x10)
    }

    /// Writes a register by the index and data window.
    pub fn write(self, index: u32, value: u32) {
        self.registers.write_u32(0, index);
        self.registers.write_u32(0x10, value);
    }

    /// How many pins it has.
    pub fn pins(self) -> u32 {
        (self.read(1) >> 16 & 0xff) + 1
    }

    /// The redirection entry of `pin`.
    pub fn entry(self, pin: u32) -> u64 {
        u64::from(self.read(0x10 + pin * 2)) | u64::from(self.read(0x11 + pin * 2)) << 32
    }

    /// Sets the redirection entry of `pin`, the half with the mask last.
    pub fn set_entry(self, pin: u32, entry: u64) {
        self.write(0x10 + pin * 2, MASKED as u32);
        self.write(0x11 + pin * 2, (entry >> 32) as u32);
        self.write(0x10 + pin * 2, entry as u32);
    }

    /// Sends `pin`'s edges to this processor as `vector`.
    pub fn route_edge(self, pin: u32, vector: u8) {
        let destination = u64::from(crate::lapic::identifier()) << 56;
        self.set_entry(pin, destination | u64::from(vector));
    }

    /// Sends `pin`, which is level-triggered, to this processor as `vector`.
    pub fn route_level(self, pin: u32, vector: u8) {
        const LEVEL: u64 = 1 << 15;
        let destination = u64::from(crate::lapic::identifier()) << 56;
        self.set_entry(pin, destination | LEVEL | u64::from(vector));
    }

    /// Masks `pin`.
    pub fn mask(self, pin: u32) {
        self.write(0x10 + pin * 2, MASKED as u32);
    }
}

/// The pin of ISA interrupt `source`, overrides of the MADT considered.
pub fn pin_of_isa(tables: Option<&Tables>, source: u8) -> u32 {
    tables
        .and_then(|tables| {
            tables
                .interrupt_structures()
                .find_map(|structure| match structure {
                    InterruptStructure::SourceOverride {
                        source: overridden,
                        gsi,
                        ..
                    } if overridden == source => Some(gsi),
                    _ => None,
                })
        })
        .unwrap_or(u32::from(source))
}
