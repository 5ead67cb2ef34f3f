//! The fixed ACPI description table (ACPI 6.5, 5.2.9): where the power management registers are.
//!
//! Hardware is not "reduced": the fixed registers give power-off, the power button and a timer with the
//! least of code on both sides. The keyboard controller is not announced, because no keyboard is behind it
//! and it is there for the reset line alone: a kernel that believes in one spends seconds asking it.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use arch::layout::{gsi, port};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

/// Bits of IAPC_BOOT_ARCH (5.2.9.3).
const LEGACY_DEVICES: u16 = 1 << 0;
const VGA_NOT_PRESENT: u16 = 1 << 2;
const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;
/// Index in CMOS memory of the byte with the century, as every PC has it.
const CENTURY_INDEX: u8 = 0x32;
/// A latency in microseconds that says that the state C2, or C3, is not supported (5.2.9).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

/// A block of registers in the I/O space, as the old and as the new fields tell of it.
struct Block {
    port: u16,
    bytes: u8,
    access: AccessSize,
}

impl Block {
    fn address(&self) -> GAS {
        register(self.port, self.bytes, self.access)
    }
}

const EVENT: Block = Block {
    port: port::ACPI_PM.start + port::ACPI_PM1_EVENT_OFFSET,
    bytes: 4,
    access: AccessSize::WordAccess,
};
const CONTROL: Block = Block {
    port: port::ACPI_PM.start + port::ACPI_PM1_CONTROL_OFFSET,
    bytes: 2,
    access: AccessSize::WordAccess,
};
const TIMER: Block = Block {
    port: port::ACPI_PM.start + port::ACPI_PM_TIMER_OFFSET,
    bytes: 4,
    access: AccessSize::DwordAccess,
};

fn register(port: u16, bytes: u8, access: AccessSize) -> GAS {
    let bits = bytes.saturating_mul(8);
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port))
}

/// The table, with the addresses of the two that it points to.
///
/// Flags that are not set say something too: the power button is a fixed one. The timer has 32 bits.
pub(super) fn table(facs: u32, dsdt: u32, rtc: bool) -> FADT {
    let mut boot_architecture = LEGACY_DEVICES | VGA_NOT_PRESENT;
    let century = if rtc { CENTURY_INDEX } else { 0 };
    if !rtc {
        boot_architecture |= CMOS_RTC_NOT_PRESENT;
    }
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // There is no sleep button, and the clock wakes nobody.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        // Both forms of an address, for kernels that read but one.
        .dsdt_64(u64::from(dsdt))
        .firmware_ctrl_32(facs);
    table.dsdt = dsdt.into();
    table.sci_int = SCI.into();
    table.pm1a_evt_blk = u32::from(EVENT.port).into();
    table.pm1_evt_len = EVENT.bytes;
    table.x_pm1a_evt_blk = EVENT.address();
    table.pm1a_cnt_blk = u32::from(CONTROL.port).into();
    table.pm1_cnt_len = CONTROL.bytes;
    table.x_pm1a_cnt_blk = CONTROL.address();
    table.pm_tmr_blk = u32::from(TIMER.port).into();
    table.pm_tmr_len = TIMER.bytes;
    table.x_pm_tmr_blk = TIMER.address();
    table.p_lvl2_lat = NO_C2.into();
    table.p_lvl3_lat = NO_C3.into();
    table.century = century;
    table.iapc_boot_arch = boot_architecture.into();
    table.reset_reg = register(port::RESET, 1, AccessSize::ByteAccess);
    table.reset_value = port::RESET_VALUE;
    table.finalize()
}

/// The interrupt of the power management registers.
const SCI: u16 = 9;
const _: () = assert!(SCI as u32 == gsi::SCI);
