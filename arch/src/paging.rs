//! The identity-mapping page tables of the 64-bit entry (Intel SDM volume 3, 4.5).
//!
//! Linux asks for the kernel, the zero page and the command line to be mapped (Documentation/arch/x86/
//! boot.rst, "64-bit Boot Protocol"); whatever else it wants it maps by itself. So the first gigabyte is
//! mapped, and more only for a kernel that ends above it. Pages are of 2 MiB, which every 64-bit processor
//! has: one page directory covers a gigabyte, and three pages of guest memory are touched.

use crate::layout;

/// Bytes of one table.
pub const TABLE_BYTES: usize = 4096;
/// The mapping never reaches further than this, whatever is asked for.
pub const MAPPED_MAXIMUM: u64 = 4 * GIB;

const GIB: u64 = 1 << 30;
const ENTRIES: usize = 512;
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// In a page directory's entry: it maps a page of 2 MiB.
const PAGE_SIZE: u64 = 1 << 7;
const LARGE_PAGE_SHIFT: u32 = 21;

/// The kernel ends above what the tables can map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{end:#x} is above the first 4 GiB, which is what is mapped when a kernel starts")]
pub struct PagingError {
    /// The end that was asked for.
    pub end: u64,
}

/// Tables that map the guest-physical addresses from 0 up to at least `end` onto themselves, readable,
/// writable and executable. At least one gigabyte is mapped, at most [`MAPPED_MAXIMUM`].
///
/// The bytes belong at [`layout::PAGE_TABLES`]`.start`, which is then the value of CR3: the PML4, the page
/// directory pointer table and one page directory for each gigabyte.
///
/// # Errors
///
/// [`PagingError`] when `end` is above 4 GiB.
pub fn identity_map(end: u64) -> Result<Vec<u8>, PagingError> {
    if end > MAPPED_MAXIMUM {
        return Err(PagingError { end });
    }
    let directories = usize::try_from(end.div_ceil(GIB).max(1)).map_err(|_| PagingError { end })?;
    let mut entries = vec![0u64; (2 + directories) * ENTRIES];
    let table_address = |table: u64| layout::PAGE_TABLES.start + table * TABLE_BYTES as u64;

    let (upper, pages) = entries.split_at_mut(2 * ENTRIES);
    let (pml4, pdpt) = upper.split_at_mut(ENTRIES);
    pml4[0] = table_address(1) | PRESENT | WRITABLE;
    for (directory, entry) in (2..).zip(pdpt.iter_mut().take(directories)) {
        *entry = table_address(directory) | PRESENT | WRITABLE;
    }
    for (page, entry) in (0u64..).zip(pages) {
        *entry = page << LARGE_PAGE_SHIFT | PRESENT | WRITABLE | PAGE_SIZE;
    }
    Ok(entries
        .iter()
        .flat_map(|entry| entry.to_le_bytes())
        .collect())
}

#[cfg(test)]
mod tests;
