//! The zero page, `struct boot_params`: what Linux's 64-bit boot protocol hands to the kernel (Linux,
//! Documentation/arch/x86/zero-page.rst and boot.rst).

use std::ops::Range;

use arch::layout;
use arch::memory_map::MemoryMap;
use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::GuestAddress;

/// A boot loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_SECTOR_MAGIC: u16 = 0xaa55;
/// "HdrS"
const HEADER_MAGIC: u32 = 0x5372_6448;
/// The newest protocol when this was written; for kernels without a header of their own.
const PROTOCOL_VERSION: u16 = 0x20f;
const LOADED_HIGH: u8 = 1 << 0;
/// What Linux on x86-64 says in its header: its early page tables reach that far.
pub(crate) const LINUX_INITRD_ADDRESS_MAXIMUM: u32 = 0x7fff_ffff;

/// The header of a kernel that has none because it comes as a plain ELF image.
pub(crate) fn header_of_vmlinux() -> setup_header {
    setup_header {
        boot_flag: BOOT_SECTOR_MAGIC,
        header: HEADER_MAGIC,
        version: PROTOCOL_VERSION,
        loadflags: LOADED_HIGH,
        initrd_addr_max: LINUX_INITRD_ADDRESS_MAXIMUM,
        kernel_alignment: 0x20_0000,
        cmdline_size: 2047,
        ..setup_header::default()
    }
}

/// Fills a zero page. `initrd` and the command line have addresses below 4 GiB.
pub(crate) fn zero_page(
    header: &setup_header,
    map: &MemoryMap,
    initrd: Option<&Range<u64>>,
    rsdp: Option<GuestAddress>,
) -> boot_params {
    let mut page = boot_params {
        hdr: *header,
        ..boot_params::default()
    };
    page.hdr.type_of_loader = LOADER_UNDEFINED;
    (page.hdr.cmd_line_ptr, page.ext_cmd_line_ptr) = halves(layout::COMMAND_LINE.start);
    (page.hdr.ramdisk_image, page.ext_ramdisk_image) = (0, 0);
    (page.hdr.ramdisk_size, page.ext_ramdisk_size) = (0, 0);
    if let Some(initrd) = initrd {
        let length = initrd.end.saturating_sub(initrd.start);
        (page.hdr.ramdisk_image, page.ext_ramdisk_image) = halves(initrd.start);
        (page.hdr.ramdisk_size, page.ext_ramdisk_size) = halves(length);
    }
    // The chain of set-up data is the boot loader's, and there is none.
    page.hdr.setup_data = 0;
    page.acpi_rsdp_addr = rsdp.map_or(0, |address| address.0);
    let mut table = page.e820_table;
    for (slot, entry) in table.iter_mut().zip(map.e820()) {
        *slot = boot_e820_entry {
            addr: entry.address,
            size: entry.length,
            r#type: entry.kind as u32,
        };
        page.e820_entries = page.e820_entries.saturating_add(1);
    }
    page.e820_table = table;
    page
}

/// The lower and the upper 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    (half(value), half(value >> 32))
}
