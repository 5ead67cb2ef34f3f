//! The ACPI tables (ACPI 6.5, chapter 5): found, walked, and read as bytes.

use crate::mmio::{read_memory, read_memory_u16, read_memory_u32, read_memory_u64};

/// Bytes of the header that all tables but the RSDP have (ACPI 6.5, 5.2.6).
pub const HEADER_BYTES: u64 = 36;

/// The tables, by the address of their root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// Address of the RSDP.
    pub rsdp: u64,
    root: u64,
    entry_bytes: u64,
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Address of its header.
    pub address: u64,
    /// Its signature.
    pub signature: [u8; 4],
    /// Its length in bytes, header included.
    pub length: u64,
}

/// A structure of the MADT (ACPI 6.5, 5.2.12), of those that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptStructure {
    /// Processor local APIC.
    LocalApic {
        /// The APIC's identifier.
        apic_id: u8,
        /// Whether the processor can be used.
        enabled: bool,
    },
    /// I/O APIC.
    IoApic {
        /// Guest-physical address of its registers.
        address: u32,
        /// First global system interrupt of its pins.
        first_gsi: u32,
    },
    /// Interrupt source override.
    SourceOverride {
        /// ISA interrupt.
        source: u8,
        /// Where it goes.
        gsi: u32,
        /// MPS INTI flags: polarity and trigger mode.
        flags: u16,
    },
    /// Any other, by its type.
    Other(u8),
}

impl Tables {
    /// The tables whose RSDP is at `rsdp`, or at a 16-byte boundary of 0xe0000 to 0xfffff when `rsdp` is 0
    /// (ACPI 6.5, 5.2.5.1). `None` without a valid one.
    pub fn find(rsdp: u64) -> Option<Self> {
        if rsdp != 0 {
            return Self::at(rsdp);
        }
        (0xe_0000..0x10_0000).step_by(16).find_map(Self::at)
    }

    fn at(rsdp: u64) -> Option<Self> {
        let mut signature = [0; 8];
        read_memory(rsdp, &mut signature);
        if signature != *b"RSD PTR " || sum(rsdp, 20) != 0 {
            return None;
        }
        let mut revision = [0];
        read_memory(rsdp + 15, &mut revision);
        if revision[0] < 2 {
            let root = u64::from(read_memory_u32(rsdp + 16));
            return Some(Self {
                rsdp,
                root,
                entry_bytes: 4,
            });
        }
        let length = u64::from(read_memory_u32(rsdp + 20));
        (sum(rsdp, length) == 0).then(|| Self {
            rsdp,
            root: read_memory_u64(rsdp + 24),
            entry_bytes: 8,
        })
    }

    /// The XSDT, or the RSDT of a machine that has no XSDT.
    pub fn root(&self) -> Table {
        Table::at(self.root)
    }

    /// The tables that the root lists.
    pub fn iter(&self) -> impl Iterator<Item = Table> + use<> {
        let (root, entry_bytes) = (self.root(), self.entry_bytes);
        (HEADER_BYTES..root.length)
            .step_by(if entry_bytes == 8 { 8 } else { 4 })
            .map(move |offset| {
                Table::at(if entry_bytes == 8 {
                    root.read_u64(offset)
                } else {
                    u64::from(root.read_u32(offset))
                })
            })
    }

    /// The table with that signature.
    pub fn table(&self, signature: &[u8; 4]) -> Option<Table> {
        self.iter().find(|table| table.signature == *signature)
    }

    /// The DSDT: X_DSDT of the FADT, or DSDT where that is 0.
    pub fn dsdt(&self) -> Option<Table> {
        let fadt = self.table(b"FACP")?;
        let extended = if fadt.length >= 148 {
            fadt.read_u64(140)
        } else {
            0
        };
        let address = if extended != 0 {
            extended
        } else {
            u64::from(fadt.read_u32(40))
        };
        (address != 0).then(|| Table::at(address))
    }

    /// Port of the PM1a control block and the sleep type of `_S5`, when there are both.
    pub fn power_off(&self) -> Option<(u16, u8)> {
        let port = u16::try_from(self.table(b"FACP")?.read_u32(64)).ok()?;
        (port != 0).then_some((port, self.dsdt()?.sleep_type_s5()?))
    }

    /// Port and value of the FADT's reset register, when it is a port (ACPI 6.5, 4.8.3.6).
    pub fn reset_register(&self) -> Option<(u16, u8)> {
        const RESET_REG_SUP: u32 = 1 << 10;
        const SYSTEM_IO: u8 = 1;
        let fadt = self.table(b"FACP")?;
        (fadt.read_u32(112) & RESET_REG_SUP != 0 && fadt.read_u8(116) == SYSTEM_IO)
            .then(|| (fadt.read_u16(120), fadt.read_u8(128)))
    }

    /// Guest-physical address of the configuration spaces of PCI segment 0 and the number of its last bus
    /// (PCI Firmware Specification 3.3, 4.1.2).
    pub fn configuration_spaces(&self) -> Option<(u64, u8)> {
        let mcfg = self.table(b"MCFG")?;
        Some((mcfg.read_u64(44), mcfg.read_u8(55)))
    }

    /// The MADT's structures.
    pub fn interrupt_structures(&self) -> impl Iterator<Item = InterruptStructure> + use<> {
        let madt = self.table(b"APIC");
        let mut offset = 44;
        core::iter::from_fn(move || {
            let madt = madt?;
            if offset + 2 > madt.length {
                return None;
            }
            let (start, kind) = (offset, madt.read_u8(offset));
            let length = u64::from(madt.read_u8(offset + 1));
            assert!(
                length >= 2 && start + length <= madt.length,
                "MADT structure of type {kind} has {length} bytes"
            );
            offset += length;
            Some(match kind {
                0 => InterruptStructure::LocalApic {
                    apic_id: madt.read_u8(start + 3),
                    enabled: madt.read_u32(start + 4) & 1 != 0,
                },
                1 => InterruptStructure::IoApic {
                    address: madt.read_u32(start + 4),
                    first_gsi: madt.read_u32(start + 8),
                },
                2 => InterruptStructure::SourceOverride {
                    source: madt.read_u8(start + 3),
                    gsi: madt.read_u32(start + 4),
                    flags: madt.read_u16(start + 8),
                },
                _ => InterruptStructure::Other(kind),
            })
        })
    }
}

impl Table {
    /// The table whose header is at `address`.
    pub fn at(address: u64) -> Self {
        let mut signature = [0; 4];
        read_memory(address, &mut signature);
        Self {
            address,
            signature,
            length: u64::from(read_memory_u32(address + 4)),
        }
    }

    /// Whether all its bytes add up to 0, as they should.
    pub fn checksum_is_right(&self) -> bool {
        sum(self.address, self.length) == 0
    }

    /// The byte at `offset`.
    pub fn read_u8(&self, offset: u64) -> u8 {
        let mut byte = [0];
        read_memory(self.address + offset, &mut byte);
        byte[0]
    }

    /// The 16-bit number at `offset`.
    pub fn read_u16(&self, offset: u64) -> u16 {
        read_memory_u16(self.address + offset)
    }

    /// The 32-bit number at `offset`.
    pub fn read_u32(&self, offset: u64) -> u32 {
        read_memory_u32(self.address + offset)
    }

    /// The 64-bit number at `offset`.
    pub fn read_u64(&self, offset: u64) -> u64 {
        read_memory_u64(self.address + offset)
    }

    /// Offsets at which `pattern` occurs.
    pub fn occurrences(&self, pattern: &'static [u8]) -> impl Iterator<Item = u64> + use<> {
        let table = *self;
        let last = (table.length + 1).saturating_sub(pattern.len() as u64);
        (0..last).filter(move |start| {
            pattern
                .iter()
                .zip(*start..)
                .all(|(byte, offset)| table.read_u8(offset) == *byte)
        })
    }

    /// First element of the package that the object `_S5_` is (ACPI 6.5, 7.4.2.6 and 20.2.5.4).
    pub fn sleep_type_s5(&self) -> Option<u8> {
        const PACKAGE_OP: u8 = 0x12;
        const BYTE_PREFIX: u8 = 0x0a;
        let package = self.occurrences(b"_S5_").next()? + 4;
        if self.read_u8(package) != PACKAGE_OP {
            return None;
        }
        let length_bytes = u64::from(self.read_u8(package + 1) >> 6) + 1;
        let element = package + 1 + length_bytes + 1;
        Some(match self.read_u8(element) {
            BYTE_PREFIX => self.read_u8(element + 1),
            constant => constant,
        })
    }
}

fn sum(address: u64, length: u64) -> u8 {
    (0..length).fold(0u8, |sum, offset| {
        let mut byte = [0];
        read_memory(address + offset, &mut byte);
        sum.wrapping_add(byte[0])
    })
}
