//! The multiple APIC description table (ACPI 6.5, 5.2.12): processors, the IOAPIC, and which legacy
//! interrupt arrives where. acpi_tables has neither source overrides nor non-maskable interrupts, nor the
//! flag that there is an 8259 pair, so the entries are made here.

use acpi_tables::sdt::Sdt;
use arch::layout::{self, gsi};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform};

/// Length of the header that all tables have.
const HEADER_BYTES: u32 = 36;
/// The revision of ACPI 6.3, since when nothing has been added that this table has.
const REVISION: u8 = 5;
/// Flags of the table: there is an 8259 pair.
const PCAT_COMPATIBLE: u32 = 1;
/// Flags of a processor: enabled.
const ENABLED: u32 = 1;
/// For a processor's identifier: all of them.
const ALL_PROCESSORS: u8 = 0xff;
/// Polarity and trigger mode (table 5.26): as the bus has it, which for ISA is active high and edge.
const CONFORMS_TO_BUS: u16 = 0;
/// Polarity and trigger mode: active high, level.
const HIGH_LEVEL: u16 = 0b11 << 2 | 0b01;
/// The pin of the local APICs with the non-maskable interrupt.
const NMI_LINT: u8 = 1;

/// Types of entries (table 5.21).
const TYPE_LOCAL_APIC: u8 = 0;
const TYPE_IOAPIC: u8 = 1;
const TYPE_SOURCE_OVERRIDE: u8 = 2;
const TYPE_LOCAL_APIC_NMI: u8 = 4;

/// The table's bytes.
pub(super) fn table(platform: &Platform<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(address(&layout::LOCAL_APIC).to_le_bytes());
    body.extend(PCAT_COMPATIBLE.to_le_bytes());

    for cpu in 0..platform.cpus {
        // The processor's identifier in the DSDT, then that of its APIC.
        entry(
            &mut body,
            TYPE_LOCAL_APIC,
            &[&[cpu, cpu], &ENABLED.to_le_bytes()],
        );
    }
    let first_gsi: u32 = 0;
    entry(
        &mut body,
        TYPE_IOAPIC,
        &[
            &[layout::IOAPIC_ID, 0],
            &address(&layout::IOAPIC).to_le_bytes(),
            &first_gsi.to_le_bytes(),
        ],
    );
    if platform.pit_override {
        source_override(&mut body, gsi::PIT, gsi::PIT_IOAPIC, CONFORMS_TO_BUS);
    }
    source_override(&mut body, gsi::SCI, gsi::SCI, HIGH_LEVEL);
    entry(
        &mut body,
        TYPE_LOCAL_APIC_NMI,
        &[
            &[ALL_PROCESSORS],
            &CONFORMS_TO_BUS.to_le_bytes(),
            &[NMI_LINT],
        ],
    );

    let mut table = Sdt::new(
        *b"APIC",
        HEADER_BYTES,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(&body);
    table.as_slice().to_vec()
}

/// An interrupt of the 8259 pair that is not what the bus has, or not at the pin of the same number.
fn source_override(body: &mut Vec<u8>, isa: u32, gsi: u32, flags: u16) {
    const BUS_ISA: u8 = 0;
    let [source, ..] = isa.to_le_bytes();
    entry(
        body,
        TYPE_SOURCE_OVERRIDE,
        &[&[BUS_ISA, source], &gsi.to_le_bytes(), &flags.to_le_bytes()],
    );
}

/// Appends an entry: its type, its length and its fields.
fn entry(body: &mut Vec<u8>, kind: u8, fields: &[&[u8]]) {
    let fields = fields.concat();
    let length = u8::try_from(fields.len())
        .unwrap_or(u8::MAX)
        .saturating_add(2);
    body.extend([kind, length]);
    body.extend(fields);
}

/// The registers of an interrupt controller: all lie below 4 GiB.
fn address(range: &std::ops::Range<u64>) -> u32 {
    u32::try_from(range.start).unwrap_or(u32::MAX)
}
