//! Base address registers: what a function has behind addresses that its guest chooses (PCI Local Bus
//! Specification 3.0, 6.2.5.1; PCI Express Base Specification 5.0, 7.5.1.2.1).

/// Base address registers of a type 0 header.
pub const BARS: usize = 6;

/// The smallest memory range (PCI 3.0, 6.2.5.1).
pub(crate) const SIZE_MIN_BYTES: u64 = 16;

/// How wide the addresses are that a guest may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarWidth {
    /// Below 4 GiB.
    Bits32,
    /// Anywhere. The register takes the place of two.
    Bits64,
}

/// A range of memory-mapped registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Length in bytes: a power of two, at least 16.
    pub size_bytes: u64,
    /// Width of its address.
    pub width: BarWidth,
    /// Reads have no side effects, and writes may be merged.
    pub prefetchable: bool,
}

impl Bar {
    /// The bits below the address: memory, its width, whether it is prefetchable.
    pub(crate) const fn flags(self) -> u8 {
        let width = match self.width {
            BarWidth::Bits32 => 0,
            BarWidth::Bits64 => 2 << 1,
        };
        width | (self.prefetchable as u8) << 3
    }

    /// The bits of the address that a guest may choose. By the others it learns the size.
    pub(crate) fn address_mask(self) -> u64 {
        let mask = !self.size_bytes.saturating_sub(1);
        match self.width {
            BarWidth::Bits32 => mask & 0xffff_ffff,
            BarWidth::Bits64 => mask,
        }
    }

    /// Whether a function may have this.
    pub(crate) fn is_valid(self) -> bool {
        self.size_bytes.is_power_of_two()
            && self.size_bytes >= SIZE_MIN_BYTES
            && (self.width == BarWidth::Bits64 || self.size_bytes <= 1 << 31)
    }
}
