//! Everything that a kernel finds in memory when it starts, and how it is entered.

use std::ops::Range;

use arch::memory_map::MemoryMap;
use arch::{layout, paging, segments};
use vm_memory::{
    ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
};

use crate::command_line::{self, CommandLineError};
use crate::initrd::{InitrdError, InitrdFile};
use crate::kernel::{KernelError, KernelFile, LoadedKernel, Protocol};
use crate::{GuestMemory, start_info, zero_page};

/// How the boot vCPU enters the kernel; `arch::entry` has the registers for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// By Linux's 64-bit boot protocol: long mode on the page tables at `arch::layout::PAGE_TABLES`, with
    /// the GDT at `arch::layout::GDT`.
    Linux64 {
        /// Guest-physical address of the first instruction.
        entry: u64,
        /// Guest-physical address of the zero page, for RSI.
        zero_page: u64,
    },
    /// By PVH: 32-bit protected mode without paging.
    Pvh {
        /// Guest-physical address of the first instruction.
        entry: u32,
        /// Guest-physical address of the start information, for EBX.
        start_info: u64,
    },
}

/// Why nothing can be started. Guest memory may have been written to in part.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The initrd.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// The command line.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// Guest memory is not laid out as [`MemoryMap`] says for its size: a mistake of the caller.
    #[error(
        "guest memory of {size_bytes} bytes is not laid out as the memory map says: {ranges:x?}"
    )]
    MemoryLayout {
        /// Bytes of all regions.
        size_bytes: u64,
        /// Where memory is, with adjacent regions taken together.
        ranges: Vec<Range<u64>>,
    },
    /// The kernel lies higher than the page tables of its entry reach.
    #[error("{}: {error}", path.display())]
    Paging {
        /// The kernel's file.
        path: std::path::PathBuf,
        /// What the page tables cannot map.
        error: paging::PagingError,
    },
    /// What the boot loader leaves for the kernel could not be written.
    #[error("guest memory cannot be written at {address:#x}: {error}")]
    Memory {
        /// Guest-physical address.
        address: u64,
        /// What vm-memory says.
        error: GuestMemoryError,
    },
}

/// Loads kernel, initrd and command line, and all that the kernel's boot protocol asks for: zero page, page
/// tables and GDT, or PVH's start information. `rsdp` is where the caller puts ACPI's root pointer.
///
/// `memory` is laid out as `arch`'s [`MemoryMap`] for its size, in one or more regions, and fresh: it reads
/// as zeros, as it comes from the host. Pages that are to be zero are not written. Nothing else may write to
/// it meanwhile; the vCPUs have not started.
///
/// Called on the thread that builds the machine. Threads are started for images of more than 8 MiB, and
/// have ended when this returns.
///
/// # Errors
///
/// [`LoadError`], with the file, the place in it and what to do.
pub fn load(
    memory: &GuestMemory,
    kernel: &KernelFile,
    initrd: Option<&InitrdFile>,
    command_line: &str,
    rsdp: Option<GuestAddress>,
) -> Result<Entry, LoadError> {
    let map = memory_map(memory)?;
    let command_line = command_line::terminated(command_line, kernel.command_line_maximum_bytes())?;
    let LoadedKernel {
        protocol,
        extent,
        initrd_address_maximum,
    } = kernel.load(memory, &map)?;
    let initrd = initrd
        .map(|file| {
            let limit = initrd_address_maximum.saturating_add(1);
            let start = file.load(memory, &map, &extent, limit)?.0;
            Ok::<_, InitrdError>(start..start.saturating_add(file.length_bytes()))
        })
        .transpose()?;
    write(memory, layout::COMMAND_LINE.start, &command_line)?;
    match protocol {
        Protocol::Pvh { entry } => {
            let info = start_info::start_info(&map, initrd.as_ref(), rsdp);
            write(memory, layout::PVH_START_INFO.start, &info)?;
            write(
                memory,
                layout::GDT,
                &segments::table_bytes(&segments::GDT_32),
            )?;
            Ok(Entry::Pvh {
                entry,
                start_info: layout::PVH_START_INFO.start,
            })
        }
        Protocol::Linux64 { entry, header } => {
            let page = zero_page::zero_page(&header, &map, initrd.as_ref(), rsdp);
            write(memory, layout::ZERO_PAGE.start, page.as_slice())?;
            let tables = paging::identity_map(extent.end).map_err(|error| LoadError::Paging {
                path: kernel.path().into(),
                error,
            })?;
            write(memory, layout::PAGE_TABLES.start, &tables)?;
            write(
                memory,
                layout::GDT,
                &segments::table_bytes(&segments::GDT_64),
            )?;
            Ok(Entry::Linux64 {
                entry,
                zero_page: layout::ZERO_PAGE.start,
            })
        }
    }
}

fn write(memory: &GuestMemory, address: u64, bytes: &[u8]) -> Result<(), LoadError> {
    memory
        .write_slice(bytes, GuestAddress(address))
        .map_err(|error| LoadError::Memory { address, error })
}

/// The map of as much memory as there is, if it is laid out like that.
fn memory_map(memory: &GuestMemory) -> Result<MemoryMap, LoadError> {
    /// Whether a guest can address all of it is not for us to say.
    const PHYSICAL_ADDRESS_BITS: u8 = 52;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for region in memory.iter() {
        let start = region.start_addr().0;
        let end = start.saturating_add(region.len());
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    let size_bytes = ranges.iter().fold(0u64, |sum, range| {
        sum.saturating_add(range.end.saturating_sub(range.start))
    });
    match MemoryMap::new(size_bytes, PHYSICAL_ADDRESS_BITS) {
        Ok(map) if map.ram() == ranges => Ok(map),
        _ => Err(LoadError::MemoryLayout { size_bytes, ranges }),
    }
}

#[cfg(test)]
mod tests;
