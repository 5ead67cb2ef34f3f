//! Where everything is: guest-physical addresses, I/O ports and global system interrupts.
//!
//! ```text
//! 0x0_0000_0000  RAM up to 640 KiB (zero page, command line, tables of the boot loader)
//! 0x0_000a_0000  hole of the PC: video memory, option ROMs; ACPI tables at 0xe_0000, reserved
//! 0x0_0010_0000  RAM, at most up to 3 GiB: kernel from 1 MiB, initrd as high as it may be
//! 0x0_c000_0000  hole below 4 GiB: registers of PCI functions
//! 0x0_e000_0000  configuration spaces of PCI functions
//! 0x0_fe00_0000  virtio-mmio, then IOAPIC, local APIC, KVM's own pages
//! 0x1_0000_0000  the rest of RAM, then registers of PCI functions that are too large for the hole
//! ```

use std::ops::Range;

/// RAM ends here and goes on at [`HIGH_RAM_START`] when there is more than 3 GiB of it.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// The first address above the hole.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;
/// What the boot loader (that is us) leaves in conventional memory for the kernel, from low to high:
/// the global descriptor table, see [`crate::segments`].
pub const GDT: u64 = 0x500;
/// Start information of the PVH protocol (`hvm_start_info`), with its module list and memory map after it.
pub const PVH_START_INFO: Range<u64> = 0x6000..0x7000;
/// The zero page of Linux's boot protocol (`boot_params`), one page.
pub const ZERO_PAGE: Range<u64> = 0x7000..0x8000;
/// The root of the page tables for the 64-bit entry; the other tables follow it, see [`crate::paging`].
pub const PAGE_TABLES: Range<u64> = 0x9000..0xf000;
/// The kernel's command line with its terminating zero. As long as the biggest that a Linux takes
/// (`COMMAND_LINE_SIZE`, 64 KiB at the most) may be.
pub const COMMAND_LINE: Range<u64> = 0x2_0000..0x3_0000;
/// End of conventional memory: RAM that a PC's boot loader may use below the hole at 640 KiB. The
/// kilobyte above it, up to 640 KiB, is where a PC keeps its extended BIOS data area.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// End of the hole of the PC between conventional and extended memory, where kernels may be loaded.
pub const EXTENDED_START: u64 = 0x10_0000;
/// ACPI tables, RSDP first, so that a guest that scans 0xe0000..0x100000 finds it (ACPI 6.5, 5.2.5.1).
pub const ACPI_TABLES: Range<u64> = 0xe_0000..0x10_0000;

/// Where PCI functions have their registers below 4 GiB.
pub const PCI_WINDOW: Range<u64> = LOW_RAM_END..0xe000_0000;
/// Configuration spaces of PCI segment 0 (PCI Express Base Specification 5.0, 7.2.2): a megabyte for each
/// of 256 buses.
pub const PCI_ECAM: Range<u64> = 0xe000_0000..0xf000_0000;
/// Bytes of configuration spaces for each bus.
pub const PCI_ECAM_BUS_BYTES: u64 = 1 << 20;
/// Window of the virtio-mmio devices: one page each.
pub const VIRTIO_MMIO: Range<u64> = 0xfe00_0000..0xfe10_0000;
/// Distance between two virtio-mmio devices, in bytes.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Bytes of registers of one virtio-mmio device: 0x100 of registers, then its configuration space.
pub const VIRTIO_MMIO_LENGTH: u64 = 0x200;
/// Registers of the IOAPIC.
pub const IOAPIC: Range<u64> = 0xfec0_0000..0xfec0_1000;
/// Registers of each CPU's local APIC.
pub const LOCAL_APIC: Range<u64> = 0xfee0_0000..0xfee0_1000;
/// The page that KVM wants for its identity map on Intel hosts (KVM API, 4.40).
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// The three pages that KVM wants for a task state segment on Intel hosts (KVM API, 4.36).
pub const KVM_TSS: u64 = 0xfffb_d000;

/// Ports of the machine.
pub mod port {
    use std::ops::Range;

    /// Primary 8259 interrupt controller.
    pub const PIC_PRIMARY: Range<u16> = 0x20..0x22;
    /// 8254 interval timer.
    pub const PIT: Range<u16> = 0x40..0x44;
    /// Keyboard controller, data. Port 0x61 beside it belongs to the timer and the speaker.
    pub const I8042_DATA: u16 = 0x60;
    /// System control port B: gate and output of the timer's channel 2.
    pub const PIT_CONTROL: u16 = 0x61;
    /// Keyboard controller, command and status.
    pub const I8042_COMMAND: u16 = 0x64;
    /// CMOS memory and real-time clock: index and data.
    pub const CMOS_RTC: Range<u16> = 0x70..0x72;
    /// The port that takes the codes of a power-on self-test.
    pub const DEBUG: u16 = 0x80;
    /// System control port A: fast A20 gate and reset.
    pub const SYSTEM_CONTROL_A: u16 = 0x92;
    /// Secondary 8259 interrupt controller.
    pub const PIC_SECONDARY: Range<u16> = 0xa0..0xa2;
    /// First serial port.
    pub const COM1: Range<u16> = 0x3f8..0x400;
    /// Edge and level control of the two 8259.
    pub const PIC_ELCR: Range<u16> = 0x4d0..0x4d2;
    /// pvpanic's one register.
    pub const PVPANIC: u16 = 0x505;
    /// ACPI: PM1a event block (status, enable), then PM1a control block, then the PM timer.
    pub const ACPI_PM: Range<u16> = 0x600..0x60c;
    /// ACPI: PM1a event block, four bytes, offset in [`ACPI_PM`].
    pub const ACPI_PM1_EVENT_OFFSET: u16 = 0;
    /// ACPI: PM1a control block, two bytes, offset in [`ACPI_PM`].
    pub const ACPI_PM1_CONTROL_OFFSET: u16 = 4;
    /// ACPI: power management timer, four bytes, offset in [`ACPI_PM`].
    pub const ACPI_PM_TIMER_OFFSET: u16 = 8;
    /// PCI's CONFIG_ADDRESS and CONFIG_DATA. The reset register is in the middle of the first.
    pub const PCI_CONFIGURATION: Range<u16> = 0xcf8..0xd00;
    /// Reset register of the FADT: a write of [`RESET_VALUE`] resets the machine, as port 0xcf9 of a PC.
    pub const RESET: u16 = 0xcf9;
    /// What the FADT tells a guest to write to [`RESET`].
    pub const RESET_VALUE: u8 = 0x6;
}

/// Global system interrupts (ACPI 6.5, 5.2.13): pins of the one IOAPIC. The first 16 are wired to the
/// 8259 pair as well.
pub mod gsi {
    /// The IOAPIC's pins, and so the number of global system interrupts.
    pub const PINS: u32 = 24;
    /// The timer: pin 0 of the 8259, pin 2 of the IOAPIC, as the MADT's interrupt source override says.
    pub const PIT: u32 = 0;
    /// Keyboard controller.
    pub const KEYBOARD: u32 = 1;
    /// The IOAPIC's pin for the timer.
    pub const PIT_IOAPIC: u32 = 2;
    /// First serial port.
    pub const COM1: u32 = 4;
    /// Real-time clock.
    pub const RTC: u32 = 8;
    /// ACPI's system control interrupt, level-triggered and active high.
    pub const SCI: u32 = 9;
    /// What the four wires of the PCI root bus end on, level-triggered.
    pub const PCI: [u32; 4] = [16, 17, 18, 19];
    /// What virtio-mmio devices get, in this order, edge-triggered and active high.
    pub const VIRTIO_MMIO: [u32; 15] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 14, 15];
}

/// The PM timer's frequency in hertz (ACPI 6.5, 4.8.2.1).
pub const PM_TIMER_HZ: u64 = 3_579_545;
/// SLP_TYP value that `_S5` gives and PM1 control takes.
pub const SLEEP_TYPE_S5: u8 = 5;
/// APIC identifier of the IOAPIC.
pub const IOAPIC_ID: u8 = 0;
