//! Segments and the global descriptor table with which a kernel starts (Intel SDM volume 3, 3.4 and 3.5).
//!
//! The tables are for [`crate::layout::GDT`]. Selectors 0x10 and 0x18 are what Linux's 64-bit boot
//! protocol calls `__BOOT_CS` and `__BOOT_DS`.

use crate::layout;

/// Selector of the code segment.
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment.
pub const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment. In long mode its descriptor takes two slots.
pub const TSS_SELECTOR: u16 = 0x20;

/// Type of a code segment: execute, read, accessed.
const TYPE_CODE: u8 = 0xb;
/// Type of a data segment: read, write, accessed.
const TYPE_DATA: u8 = 0x3;
/// Type of a busy task state segment of 32 or 64 bits.
const TYPE_TSS_BUSY: u8 = 0xb;
/// Type of a local descriptor table.
const TYPE_LDT: u8 = 0x2;

/// One segment register with the hidden part that a load from the table would fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Linear address of the first byte.
    pub base: u64,
    /// Last offset in bytes, as the processor keeps it once the granularity is applied.
    pub limit: u32,
    /// Offset in the descriptor table, with the requested privilege level in bits 0 and 1.
    pub selector: u16,
    /// Type, four bits.
    pub kind: u8,
    /// Usable: a segment that is not present faults when it is used.
    pub present: bool,
    /// Descriptor privilege level, 0 to 3.
    pub privilege_level: u8,
    /// D/B: 32-bit default size. Clear for 64-bit code.
    pub default_32_bit: bool,
    /// S: a code or data segment, not a system segment.
    pub code_or_data: bool,
    /// L: 64-bit code.
    pub long: bool,
    /// G: the limit in the table counts pages of 4 KiB.
    pub granularity_4k: bool,
}

impl Segment {
    /// Code of 64 bits, flat.
    pub const CODE_64: Self = Self {
        kind: TYPE_CODE,
        selector: CODE_SELECTOR,
        default_32_bit: false,
        long: true,
        ..Self::DATA
    };
    /// Code of 32 bits, flat.
    pub const CODE_32: Self = Self {
        kind: TYPE_CODE,
        selector: CODE_SELECTOR,
        ..Self::DATA
    };
    /// Data and stack, flat.
    pub const DATA: Self = Self {
        base: 0,
        limit: u32::MAX,
        selector: DATA_SELECTOR,
        kind: TYPE_DATA,
        present: true,
        privilege_level: 0,
        default_32_bit: true,
        code_or_data: true,
        long: false,
        granularity_4k: true,
    };
    /// A task state segment of 104 bytes at address zero, which nothing uses: a processor cannot run in
    /// protected mode under VMX without one.
    pub const TSS: Self = Self {
        base: 0,
        limit: 0x67,
        selector: TSS_SELECTOR,
        kind: TYPE_TSS_BUSY,
        present: true,
        privilege_level: 0,
        default_32_bit: false,
        code_or_data: false,
        long: false,
        granularity_4k: false,
    };
    /// No local descriptor table.
    pub const NO_LDT: Self = Self {
        base: 0,
        limit: 0,
        selector: 0,
        kind: TYPE_LDT,
        present: false,
        privilege_level: 0,
        default_32_bit: false,
        code_or_data: false,
        long: false,
        granularity_4k: false,
    };

    /// The low eight bytes of this segment's descriptor (Intel SDM volume 3, figure 3-8).
    pub const fn descriptor(&self) -> u64 {
        let limit = if self.granularity_4k {
            (self.limit >> 12) as u64
        } else {
            (self.limit & 0xf_ffff) as u64
        };
        (limit & 0xffff)
            | (self.base & 0xff_ffff) << 16
            | ((self.kind & 0xf) as u64) << 40
            | (self.code_or_data as u64) << 44
            | ((self.privilege_level & 3) as u64) << 45
            | (self.present as u64) << 47
            | (limit >> 16) << 48
            | (self.long as u64) << 53
            | (self.default_32_bit as u64) << 54
            | (self.granularity_4k as u64) << 55
            | ((self.base >> 24) & 0xff) << 56
    }
}

/// A descriptor table register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DescriptorTable {
    /// Linear address of the first descriptor.
    pub base: u64,
    /// Last offset of the table in bytes.
    pub limit: u16,
}

/// Descriptors in either table: null, unused, code, data, and two for the task state segment.
const DESCRIPTORS: usize = 6;

/// The GDT register for either table.
pub const GDT_REGISTER: DescriptorTable = DescriptorTable {
    base: layout::GDT,
    limit: 8 * 6 - 1,
};

/// Descriptors for the 64-bit entry; the bytes in memory are little endian.
pub const GDT_64: [u64; DESCRIPTORS] = table(Segment::CODE_64);

/// Descriptors for the 32-bit entry of PVH. That protocol does not ask for a table in memory; with one, a
/// guest that reloads a segment register before it has made its own table lives on.
pub const GDT_32: [u64; DESCRIPTORS] = table(Segment::CODE_32);

const fn table(code: Segment) -> [u64; DESCRIPTORS] {
    [
        0,
        0,
        code.descriptor(),
        Segment::DATA.descriptor(),
        Segment::TSS.descriptor(),
        // Bits 32 to 63 of the base in long mode.
        0,
    ]
}

/// The bytes of a descriptor table, for guest memory.
pub fn table_bytes(table: &[u64; DESCRIPTORS]) -> [u8; 8 * DESCRIPTORS] {
    let mut bytes = [0; 8 * DESCRIPTORS];
    for (slot, descriptor) in bytes.chunks_exact_mut(8).zip(table) {
        slot.copy_from_slice(&descriptor.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests;
