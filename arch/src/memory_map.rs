//! Where RAM of a given size lies, and the map of it that a kernel is told (ACPI 6.5, 15; the zero page's
//! `e820_table` and PVH's `hvm_memmap_table_entry` have the same types).

use std::ops::Range;

use crate::layout;

/// The smallest machine: conventional memory, the hole of the PC, and a megabyte for a kernel.
pub const RAM_MINIMUM_BYTES: u64 = 2 << 20;
/// The window above RAM for registers of PCI functions begins at a multiple of this.
const HIGH_WINDOW_ALIGNMENT_BYTES: u64 = 4 << 30;
/// Size of that window where there are addresses for it.
const HIGH_WINDOW_BYTES: u64 = 64 << 30;
/// Bits of a guest-physical address that every host's nested page tables of four levels can translate,
/// and one less: some guests take the uppermost bit for something else.
const TRANSLATED_BITS: u8 = 46;
/// RAM comes in pages.
pub const RAM_GRANULE_BYTES: u64 = 4096;

/// Why there can be no RAM of the size that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryMapError {
    /// Smaller than [`RAM_MINIMUM_BYTES`].
    #[error("{size_bytes} bytes of memory are too few: a machine has at least {RAM_MINIMUM_BYTES}")]
    TooSmall {
        /// The size that was asked for.
        size_bytes: u64,
    },
    /// Not whole pages.
    #[error("{size_bytes} bytes of memory are not a multiple of {RAM_GRANULE_BYTES}")]
    NotWholePages {
        /// The size that was asked for.
        size_bytes: u64,
    },
    /// RAM would end above what the processor can address.
    #[error(
        "{size_bytes} bytes of memory do not fit into the {physical_address_bits} bits of a physical \
         address on this host: at most {maximum_bytes}"
    )]
    AddressWidth {
        /// The size that was asked for.
        size_bytes: u64,
        /// Width of a guest-physical address.
        physical_address_bits: u8,
        /// The largest size for this width.
        maximum_bytes: u64,
    },
}

/// What a kernel may do with a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Type {
    /// RAM that is free to use.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// One range of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// First guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// What the range is.
    pub kind: E820Type,
}

/// Where the machine's RAM lies: from 0, and from 4 GiB on what did not fit below the hole there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryMap {
    ram: Vec<Range<u64>>,
}

impl MemoryMap {
    /// Places `size_bytes` of RAM. `physical_address_bits` is MAXPHYADDR as the guest will see it
    /// (leaf 0x8000_0008 of CPUID).
    ///
    /// # Errors
    ///
    /// [`MemoryMapError`] when the size is too small, not whole pages or too large for the address width.
    pub fn new(size_bytes: u64, physical_address_bits: u8) -> Result<Self, MemoryMapError> {
        if size_bytes < RAM_MINIMUM_BYTES {
            return Err(MemoryMapError::TooSmall { size_bytes });
        }
        if !size_bytes.is_multiple_of(RAM_GRANULE_BYTES) {
            return Err(MemoryMapError::NotWholePages { size_bytes });
        }
        let address_space = 1u64
            .checked_shl(u32::from(physical_address_bits))
            .unwrap_or(u64::MAX);
        let high_maximum = address_space.saturating_sub(layout::HIGH_RAM_START);
        let low_bytes = size_bytes.min(layout::LOW_RAM_END);
        let high_bytes = size_bytes - low_bytes;
        if high_bytes > high_maximum {
            return Err(MemoryMapError::AddressWidth {
                size_bytes,
                physical_address_bits,
                maximum_bytes: layout::LOW_RAM_END + high_maximum,
            });
        }
        let mut ram = Vec::with_capacity(2);
        ram.push(0..low_bytes);
        if high_bytes > 0 {
            ram.push(layout::HIGH_RAM_START..layout::HIGH_RAM_START + high_bytes);
        }
        Ok(Self { ram })
    }

    /// The one or two ranges of guest-physical addresses that RAM backs, ascending. The hole of the PC
    /// between 640 KiB and 1 MiB is backed too: ACPI tables lie in it.
    pub fn ram(&self) -> &[Range<u64>] {
        &self.ram
    }

    /// End of the RAM below 4 GiB.
    pub fn low_ram_end(&self) -> u64 {
        self.ram.first().map_or(0, |range| range.end)
    }

    /// Size of all RAM in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.ram.iter().map(|range| range.end - range.start).sum()
    }

    /// Addresses above RAM for registers of PCI functions that do not fit below 4 GiB.
    /// `physical_address_bits` is as for [`MemoryMap::new`]. `None` where RAM leaves no room.
    pub fn high_window(&self, physical_address_bits: u8) -> Option<Range<u64>> {
        let bits = physical_address_bits.min(TRANSLATED_BITS);
        let address_space = 1u64 << bits;
        let ram_end = self.ram.last().map_or(0, |range| range.end);
        let start = ram_end
            .max(layout::HIGH_RAM_START)
            .next_multiple_of(HIGH_WINDOW_ALIGNMENT_BYTES);
        let end = (start + HIGH_WINDOW_BYTES).min(address_space);
        (start < end).then_some(start..end)
    }

    /// What a kernel is told, ascending, without overlap.
    pub fn e820(&self) -> Vec<E820Entry> {
        let entry = |range: Range<u64>, kind| E820Entry {
            address: range.start,
            length: range.end - range.start,
            kind,
        };
        let mut entries = vec![
            entry(0..layout::CONVENTIONAL_END, E820Type::Ram),
            entry(layout::CONVENTIONAL_END..0xa_0000, E820Type::Reserved),
            entry(layout::ACPI_TABLES, E820Type::Reserved),
            entry(layout::EXTENDED_START..self.low_ram_end(), E820Type::Ram),
            // Linux uses no configuration space whose addresses are not reserved.
            entry(layout::PCI_ECAM, E820Type::Reserved),
            // KVM's identity map and task state segment on Intel hosts.
            entry(
                layout::KVM_IDENTITY_MAP..layout::KVM_TSS + 0x3000,
                E820Type::Reserved,
            ),
        ];
        entries.extend(
            self.ram
                .iter()
                .skip(1)
                .map(|range| entry(range.clone(), E820Type::Ram)),
        );
        entries
    }
}

#[cfg(test)]
mod tests;
