//! PVH's start information, version 1, with its module list and memory map (Xen,
//! public/arch-x86/hvm/start_info.h). All of it is in one page of guest memory.

use std::mem::offset_of;
use std::ops::Range;

use arch::layout;
use arch::memory_map::MemoryMap;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{ByteValued, GuestAddress};

/// The one that has the memory map.
const VERSION: u32 = 1;
const MAGIC: u32 = linux_loader::start_info::XEN_HVM_START_MAGIC_VALUE;

/// The module list and the memory map follow the structure.
#[repr(C)]
struct Offsets {
    info: hvm_start_info,
    modules: hvm_modlist_entry,
    memory_map: hvm_memmap_table_entry,
}

const MODULES: u64 = layout::PVH_START_INFO.start + offset_of!(Offsets, modules) as u64;
const MEMORY_MAP: u64 = layout::PVH_START_INFO.start + offset_of!(Offsets, memory_map) as u64;

/// The bytes for guest memory from [`layout::PVH_START_INFO`] on. The types of the memory map are those of
/// e820.
pub(crate) fn start_info(
    map: &MemoryMap,
    initrd: Option<&Range<u64>>,
    rsdp: Option<GuestAddress>,
) -> Vec<u8> {
    let entries: Vec<hvm_memmap_table_entry> = map
        .e820()
        .iter()
        .map(|entry| hvm_memmap_table_entry {
            addr: entry.address,
            size: entry.length,
            type_: entry.kind as u32,
            reserved: 0,
        })
        .collect();
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        flags: 0,
        nr_modules: initrd.map_or(0, |_| 1),
        modlist_paddr: initrd.map_or(0, |_| MODULES),
        cmdline_paddr: layout::COMMAND_LINE.start,
        rsdp_paddr: rsdp.map_or(0, |address| address.0),
        memmap_paddr: MEMORY_MAP,
        memmap_entries: u32::try_from(entries.len()).unwrap_or(0),
        reserved: 0,
    };
    let module = initrd.map_or_else(hvm_modlist_entry::default, |range| hvm_modlist_entry {
        paddr: range.start,
        size: range.end.saturating_sub(range.start),
        cmdline_paddr: 0,
        reserved: 0,
    });
    let mut bytes = Vec::new();
    bytes.extend_from_slice(info.as_slice());
    bytes.extend_from_slice(module.as_slice());
    for entry in &entries {
        bytes.extend_from_slice(entry.as_slice());
    }
    bytes
}
