//! What the boot loader tells: PVH start info (Xen, `arch-x86/hvm/start_info.h`) or the Linux zero page
//! (Linux, Documentation/arch/x86/zero-page.rst). Copied once at the start, because the originals lie in
//! memory that the guest may use.

use crate::mmio::{read_memory, read_memory_u32, read_memory_u64};

/// The longest command line that is kept.
const COMMAND_LINE_MAX: usize = 4096;
/// The most memory map entries that are kept: what a zero page has room for.
const REGIONS_MAX: usize = 128;
/// Type of a memory map entry: memory free for use.
pub const RAM: u32 = 1;

/// How the guest was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PVH: 32-bit protected mode, start info.
    Pvh,
    /// The 64-bit Linux boot protocol: long mode, zero page.
    Linux64,
}

/// One entry of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Region {
    /// First guest-physical address.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Type as in e820: [`RAM`], 2 for reserved, and so on.
    pub kind: u32,
}

/// What the boot loader told.
#[derive(Debug)]
pub struct BootInfo {
    /// How the guest was entered.
    pub protocol: Protocol,
    /// Address of the RSDP, 0 when the loader did not say.
    pub rsdp: u64,
    /// Address and length in bytes of the initial RAM disk; the length is 0 without one.
    pub initrd: (u64, u64),
    command_line: [u8; COMMAND_LINE_MAX],
    command_line_length: usize,
    regions: [Region; REGIONS_MAX],
    region_count: usize,
}

impl BootInfo {
    /// Reads the start info or the zero page at `address`.
    ///
    /// # Panics
    ///
    /// When the start info's magic number is wrong.
    pub fn read(protocol: Protocol, address: u64) -> Self {
        let mut info = Self {
            protocol,
            rsdp: 0,
            initrd: (0, 0),
            command_line: [0; COMMAND_LINE_MAX],
            command_line_length: 0,
            regions: [Region::default(); REGIONS_MAX],
            region_count: 0,
        };
        match protocol {
            Protocol::Pvh => info.read_start_info(address),
            Protocol::Linux64 => info.read_zero_page(address),
        }
        info
    }

    /// The command line.
    ///
    /// # Panics
    ///
    /// When it is not UTF-8.
    pub fn command_line(&self) -> &str {
        core::str::from_utf8(&self.command_line[..self.command_line_length])
            .expect("a command line in UTF-8")
    }

    /// The memory map, as it came.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.region_count]
    }

    fn read_start_info(&mut self, address: u64) {
        assert_eq!(read_memory_u32(address), 0x336e_c578, "start info magic");
        assert!(read_memory_u32(address + 4) >= 1, "start info version");
        if read_memory_u32(address + 12) > 0 {
            let module = read_memory_u64(address + 16);
            self.initrd = (read_memory_u64(module), read_memory_u64(module + 8));
        }
        self.read_command_line(read_memory_u64(address + 24));
        self.rsdp = read_memory_u64(address + 32);
        let table = read_memory_u64(address + 40);
        for entry in 0..u64::from(read_memory_u32(address + 48)) {
            let entry = table + entry * 24;
            self.add_region(
                read_memory_u64(entry),
                read_memory_u64(entry + 8),
                read_memory_u32(entry + 16),
            );
        }
    }

    fn read_zero_page(&mut self, address: u64) {
        self.initrd = (
            u64::from(read_memory_u32(address + 0x218))
                | u64::from(read_memory_u32(address + 0xc0)) << 32,
            u64::from(read_memory_u32(address + 0x21c))
                | u64::from(read_memory_u32(address + 0xc4)) << 32,
        );
        self.read_command_line(
            u64::from(read_memory_u32(address + 0x228))
                | u64::from(read_memory_u32(address + 0xc8)) << 32,
        );
        self.rsdp = read_memory_u64(address + 0x70);
        let mut count = [0];
        read_memory(address + 0x1e8, &mut count);
        for entry in 0..u64::from(count[0]) {
            let entry = address + 0x2d0 + entry * 20;
            self.add_region(
                read_memory_u64(entry),
                read_memory_u64(entry + 8),
                read_memory_u32(entry + 16),
            );
        }
    }

    fn read_command_line(&mut self, address: u64) {
        if address == 0 {
            return;
        }
        while self.command_line_length < COMMAND_LINE_MAX {
            let mut byte = [0];
            read_memory(address + self.command_line_length as u64, &mut byte);
            if byte[0] == 0 {
                break;
            }
            self.command_line[self.command_line_length] = byte[0];
            self.command_line_length += 1;
        }
    }

    fn add_region(&mut self, start: u64, length: u64, kind: u32) {
        self.regions[self.region_count] = Region {
            start,
            length,
            kind,
        };
        self.region_count += 1;
    }
}
