//! From linear to guest-physical addresses: the walk through page tables (Intel SDM volume 3, chapter 5).
//!
//! All four ways of paging: 32-bit, PAE, 4-level and 5-level. A walk checks rights and sets accessed
//! bits; dirty bits are set by a second walk, when the whole of a write is known to be allowed. Shadow stacks
//! are not known.

use crate::cpu::{SystemRegisters, bits};
use crate::exception::Exception;
use crate::memory::{GuestMemory, read_entry, set_entry_bits};

/// Bytes of the smallest page.
pub const PAGE_BYTES: u64 = 4096;

/// What memory is accessed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A read of data.
    Read,
    /// A write of data.
    Write,
    /// A fetch of instructions.
    Fetch,
}

/// Bits of a page-table entry (tables 5-15 to 5-20).
mod entry {
    pub const PRESENT: u64 = 1;
    pub const WRITABLE: u64 = 1 << 1;
    pub const USER: u64 = 1 << 2;
    pub const ACCESSED: u64 = 1 << 5;
    pub const DIRTY: u64 = 1 << 6;
    pub const LARGE: u64 = 1 << 7;
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// The address in an entry of 8 bytes.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// Bits of a page fault's error code (figure 5-12).
mod code {
    pub const PROTECTION: u32 = 1;
    pub const WRITE: u32 = 1 << 1;
    pub const USER: u32 = 1 << 2;
    pub const RESERVED: u32 = 1 << 3;
    pub const FETCH: u32 = 1 << 4;
    pub const KEY: u32 = 1 << 5;
}

/// How often a walk begins anew because somebody else changes the tables.
const RETRIES: usize = 64;

/// The most levels there are.
const LEVELS_MAX: usize = 5;

/// What a walk depends on, beside the tables.
#[derive(Debug, Clone, Copy)]
pub struct Paging {
    /// Control registers.
    pub system: SystemRegisters,
    /// Flags, for AC.
    pub rflags: u64,
    /// Whether the access counts as one of user mode: level 3, unless it is implicitly a supervisor's.
    pub user: bool,
    /// Protection-key rights; 0 when CR4.PKE is clear.
    pub pkru: u32,
    /// The same for supervisor pages; 0 when CR4.PKS is clear.
    pub pkrs: u32,
    /// Width of physical addresses.
    pub physical_bits: u32,
}

/// One entry on the way.
#[derive(Debug, Clone, Copy, Default)]
struct Visited {
    address: u64,
    value: u64,
}

/// How tables are laid out.
#[derive(Debug, Clone, Copy)]
struct Format {
    levels: u32,
    entry_bytes: usize,
    /// Bits of the address that choose an entry in a table.
    index_bits: u32,
    root: u64,
}

/// Why one attempt at a walk ended early.
enum Early {
    Fault(Exception),
    Changed,
}

impl Paging {
    /// Translates the linear `address`. With `dirty`, sets the dirty bit of the page.
    ///
    /// # Errors
    ///
    /// The page fault.
    pub fn translate(
        &self,
        memory: &dyn GuestMemory,
        address: u64,
        access: Access,
        dirty: bool,
    ) -> Result<u64, Exception> {
        if self.system.cr0 & bits::CR0_PG == 0 {
            return Ok(address & 0xffff_ffff);
        }
        for _ in 0..RETRIES {
            match self.walk(memory, address, access, dirty) {
                Ok(physical) => return Ok(physical),
                Err(Early::Fault(exception)) => return Err(exception),
                Err(Early::Changed) => {}
            }
        }
        // Somebody changes the tables without pause; the guest may try again.
        Err(self.fault(address, access, 0))
    }

    fn format(&self) -> Format {
        let cr3 = self.system.cr3;
        if self.system.efer & bits::EFER_LMA != 0 {
            return Format {
                levels: if self.system.cr4 & bits::CR4_LA57 != 0 {
                    5
                } else {
                    4
                },
                entry_bytes: 8,
                index_bits: 9,
                root: cr3 & entry::ADDRESS,
            };
        }
        if self.system.cr4 & bits::CR4_PAE != 0 {
            return Format {
                levels: 3,
                entry_bytes: 8,
                index_bits: 9,
                root: cr3 & 0xffff_ffe0,
            };
        }
        Format {
            levels: 2,
            entry_bytes: 4,
            index_bits: 10,
            root: cr3 & 0xffff_f000,
        }
    }

    fn walk(
        &self,
        memory: &dyn GuestMemory,
        address: u64,
        access: Access,
        dirty: bool,
    ) -> Result<u64, Early> {
        let fault = |code| Early::Fault(self.fault(address, access, code));
        let format = self.format();
        let long = self.system.efer & bits::EFER_LMA != 0;
        let mut table = format.root;
        let mut rights = entry::WRITABLE | entry::USER;
        let mut no_execute = false;
        let mut visited = [Visited::default(); LEVELS_MAX];
        let mut level = format.levels;
        let (leaf, page_bits) = loop {
            let shift = format
                .index_bits
                .wrapping_mul(level.wrapping_sub(1))
                .wrapping_add(12);
            // The four pointers of PAE have bits 31:30 of an address that has 32.
            let index = address.wrapping_shr(shift)
                & (1u64.wrapping_shl(format.index_bits)).wrapping_sub(1);
            let place =
                table.wrapping_add(index.wrapping_mul(crate::word::length(format.entry_bytes)));
            // Where there is no memory, the bus reads as ones.
            let value = read_entry(memory, place, format.entry_bytes).unwrap_or(u64::MAX);
            if value & entry::PRESENT == 0 {
                return Err(fault(0));
            }
            let is_pae_pointer = !long && format.levels == 3 && level == 3;
            let is_leaf =
                level == 1 || value & entry::LARGE != 0 && self.can_be_large(&format, level);
            if self.has_reserved(&format, value, level, is_leaf, is_pae_pointer) {
                return Err(fault(code::PROTECTION | code::RESERVED));
            }
            if !is_pae_pointer {
                rights &= value;
                if let Some(visited) =
                    visited.get_mut(crate::word::index(u64::from(level)).wrapping_sub(1))
                {
                    *visited = Visited {
                        address: place,
                        value,
                    };
                }
            }
            no_execute |= format.entry_bytes == 8
                && self.system.efer & bits::EFER_NXE != 0
                && value & entry::NO_EXECUTE != 0;
            if is_leaf {
                break (value, shift);
            }
            table = value & address_mask(&format);
            level = level.wrapping_sub(1);
        };
        if let Some(code) = self.violation(rights, no_execute, leaf, long, access) {
            return Err(fault(code::PROTECTION | code));
        }
        for (number, visited) in visited.iter().enumerate() {
            if visited.address == 0 && visited.value == 0 {
                continue;
            }
            let is_leaf = number == crate::word::index(u64::from(level)).wrapping_sub(1);
            let mut wanted = entry::ACCESSED;
            if is_leaf && dirty {
                wanted |= entry::DIRTY;
            }
            if visited.value & wanted != wanted
                && !set_entry_bits(
                    memory,
                    visited.address,
                    format.entry_bytes,
                    visited.value,
                    wanted,
                )
            {
                return Err(Early::Changed);
            }
        }
        let in_page = 1u64.wrapping_shl(page_bits).wrapping_sub(1);
        let mut base = leaf & address_mask(&format) & !in_page;
        if format.entry_bytes == 4 && page_bits == 22 {
            // PSE-36: bits 39:32 of the address are bits 20:13 of the entry.
            base |= (leaf >> 13 & 0xff) << 32;
        }
        Ok(base | address & in_page)
    }

    /// Whether an entry of `level` with bit 7 maps a page.
    const fn can_be_large(&self, format: &Format, level: u32) -> bool {
        match (format.levels, level) {
            (2, 2) => self.system.cr4 & bits::CR4_PSE != 0,
            (2.., 2) | (4.., 3) => true,
            _ => false,
        }
    }

    /// Whether a present entry has bits that must be clear (tables 5-15 to 5-20).
    const fn has_reserved(
        &self,
        format: &Format,
        value: u64,
        level: u32,
        is_leaf: bool,
        is_pae_pointer: bool,
    ) -> bool {
        if format.entry_bytes == 4 {
            // Bit 21 of a page of 4 MiB; bits 20:13 are the address's, as far as it goes.
            return is_leaf && level == 2 && value & 1 << 21 != 0;
        }
        let above = match self.physical_bits {
            bits @ 12..=51 => entry::ADDRESS & !(1u64.wrapping_shl(bits).wrapping_sub(1)),
            _ => 0,
        };
        let mut reserved = above;
        if self.system.efer & bits::EFER_NXE == 0 || is_pae_pointer {
            reserved |= entry::NO_EXECUTE;
        }
        if format.levels == 3 {
            // PAE has nothing above the address but the execute-disable bit.
            reserved |= 0x7ff0_0000_0000_0000;
        }
        if is_pae_pointer {
            reserved |= 0x1e6;
        } else if level > 1 && is_leaf {
            // Below the address of a large page, all but the PAT bit.
            let page = 9u32.wrapping_mul(level.wrapping_sub(1)).wrapping_add(12);
            reserved |= 1u64.wrapping_shl(page).wrapping_sub(1) & !0x1fff;
        } else if level > 3 {
            reserved |= entry::LARGE;
        }
        value & reserved != 0
    }

    /// The bits of the error code that say why an access with these rights is not allowed.
    const fn violation(
        &self,
        rights: u64,
        no_execute: bool,
        leaf: u64,
        long: bool,
        access: Access,
    ) -> Option<u32> {
        let system = &self.system;
        let user_page = rights & entry::USER != 0;
        let writable = rights & entry::WRITABLE != 0;
        let protects_writes = self.user || system.cr0 & bits::CR0_WP != 0;
        if self.user && !user_page {
            return Some(0);
        }
        match access {
            Access::Fetch => {
                let prevented = !self.user && user_page && system.cr4 & bits::CR4_SMEP != 0;
                return if no_execute || prevented {
                    Some(0)
                } else {
                    None
                };
            }
            Access::Write if !writable && protects_writes => return Some(0),
            Access::Read | Access::Write => {}
        }
        if !self.user
            && user_page
            && system.cr4 & bits::CR4_SMAP != 0
            && self.rflags & bits::AC == 0
        {
            return Some(0);
        }
        let (keyed, rights) = if user_page {
            (bits::CR4_PKE, self.pkru)
        } else {
            (bits::CR4_PKS, self.pkrs)
        };
        if long && system.cr4 & keyed != 0 {
            let key = leaf >> 59 & 0xf;
            let rights = (rights as u64) >> (key.wrapping_mul(2));
            let is_write = matches!(access, Access::Write);
            if rights & 1 != 0 || is_write && rights & 2 != 0 && protects_writes {
                return Some(code::KEY);
            }
        }
        None
    }

    /// The page fault at `address` (5.7).
    const fn fault(&self, address: u64, access: Access, code: u32) -> Exception {
        let mut code = code;
        if self.user {
            code |= code::USER;
        }
        match access {
            Access::Read => {}
            Access::Write => code |= code::WRITE,
            Access::Fetch => {
                let pae = self.system.cr4 & bits::CR4_PAE != 0;
                let no_execute = pae && self.system.efer & bits::EFER_NXE != 0;
                if no_execute || self.system.cr4 & bits::CR4_SMEP != 0 {
                    code |= code::FETCH;
                }
            }
        }
        Exception::page_fault(address, code)
    }
}

const fn address_mask(format: &Format) -> u64 {
    if format.entry_bytes == 4 {
        0xffff_f000
    } else {
        entry::ADDRESS
    }
}

#[cfg(test)]
mod tests;
