//! The ACPI tables, walked and checked.

use runtime::Machine;
use runtime::acpi::InterruptStructure;
use runtime::mmio::read_memory;
use runtime::port;
use runtime::report::Test;
use runtime::time::{MILLISECONDS, spin};
use runtime::virtio::Device;
use runtime::{ioapic, lapic, println};

pub const TESTS: &[(&str, Test)] = &[
    ("acpi-tables", tables),
    ("acpi-madt", madt),
    ("acpi-fadt", fadt),
    ("acpi-pm-timer", pm_timer),
    ("acpi-pm1", pm1),
    ("acpi-dsdt-virtio", dsdt_lists_virtio),
    ("acpi-dsdt-serial", dsdt_lists_serial),
    ("acpi-scan", scan),
];

/// Every table has a plausible length and the right checksum; the ones that must be there are.
fn tables(machine: &Machine) {
    let acpi = machine.acpi();
    let root = acpi.root();
    assert_eq!(&root.signature, b"XSDT");
    assert!(root.checksum_is_right(), "checksum of the XSDT");
    let mut count = 0;
    for table in acpi.iter().chain(acpi.dsdt()) {
        let name = core::str::from_utf8(&table.signature).unwrap_or("????");
        println!("{name} at {:#x}, {} bytes", table.address, table.length);
        assert!(
            (36..1 << 20).contains(&table.length),
            "{name}: length {}",
            table.length
        );
        assert!(table.checksum_is_right(), "{name}: checksum");
        assert!(table.read_u8(8) >= 1, "{name}: revision");
        count += 1;
    }
    assert!(count >= 3, "{count} tables");
    for signature in [b"FACP", b"APIC"] {
        assert!(acpi.table(signature).is_some(), "no {signature:?}");
    }
    assert_eq!(acpi.dsdt().map(|table| table.signature), Some(*b"DSDT"));
}

/// The RSDP can be found by the scan of the PC as well.
fn scan(machine: &Machine) {
    let found = runtime::acpi::Tables::find(0).expect("an RSDP between 0xe0000 and 0xfffff");
    assert_eq!(found.rsdp, machine.acpi().rsdp);
}

/// The MADT has `cpus` processors with identifiers of their own, this one among them, an I/O APIC that
/// answers at its address, and the override of the timer.
fn madt(machine: &Machine) {
    let acpi = machine.acpi();
    let (mut processors, mut io_apics, mut timer_gsi) = (0, 0, 0);
    let mut seen = [false; 256];
    for structure in acpi.interrupt_structures() {
        match structure {
            InterruptStructure::LocalApic { apic_id, enabled } if enabled => {
                assert!(
                    !seen[usize::from(apic_id)],
                    "APIC identifier {apic_id} twice"
                );
                seen[usize::from(apic_id)] = true;
                processors += 1;
            }
            InterruptStructure::IoApic { first_gsi, .. } => {
                assert_eq!(first_gsi, 0, "first interrupt of the I/O APIC");
                io_apics += 1;
            }
            InterruptStructure::SourceOverride { source: 0, gsi, .. } => timer_gsi = gsi,
            InterruptStructure::SourceOverride {
                source: 9, flags, ..
            } => assert_eq!(flags & 0xc, 0xc, "the SCI is level-triggered"),
            _ => {}
        }
    }
    assert_eq!(processors, machine.number("cpus", 1), "processors");
    assert!(
        seen[usize::from(lapic::identifier())],
        "the boot processor is missing"
    );
    assert_eq!(io_apics, 1, "I/O APICs");
    assert_eq!(timer_gsi, 2, "interrupt of the timer");
    let madt = acpi.table(b"APIC").expect("MADT");
    assert_eq!(madt.read_u32(36), 0xfee0_0000, "address of the local APIC");
    let io_apic = ioapic::IoApic::first(Some(acpi));
    assert_eq!(io_apic.address(), 0xfec0_0000);
    assert_eq!(io_apic.pins(), 24, "pins");
}

/// The FADT's registers are where the machine has them.
fn fadt(machine: &Machine) {
    let fadt = machine.acpi().table(b"FACP").expect("FADT");
    assert_eq!(fadt.read_u16(46), 9, "SCI_INT");
    assert_eq!(fadt.read_u8(88), 4, "PM1_EVT_LEN");
    assert_eq!(fadt.read_u8(89), 2, "PM1_CNT_LEN");
    assert_eq!(fadt.read_u8(91), 4, "PM_TMR_LEN");
    let flags = fadt.read_u32(112);
    assert_ne!(flags & 1, 0, "WBINVD");
    assert_eq!(flags & 1 << 20, 0, "HW_REDUCED_ACPI");
    println!(
        "PM1a event {:#x}, control {:#x}, timer {:#x}, flags {flags:#x}, reset {:x?}, power off {:x?}",
        fadt.read_u32(56),
        fadt.read_u32(64),
        fadt.read_u32(76),
        machine.acpi().reset_register(),
        machine.acpi().power_off(),
    );
    assert!(
        machine.acpi().reset_register().is_some(),
        "no reset register"
    );
    assert!(machine.acpi().power_off().is_some(), "no _S5");
    // The FACS, when there is one, is at a 64-byte boundary.
    let facs = fadt.read_u32(36);
    if facs != 0 {
        let mut signature = [0; 4];
        read_memory(u64::from(facs), &mut signature);
        assert_eq!(&signature, b"FACS");
        assert!(facs.is_multiple_of(64), "FACS at {facs:#x}");
    }
}

/// The PM timer counts up at 3.58 MHz, 24 or 32 bits wide.
fn pm_timer(machine: &Machine) {
    let fadt = machine.acpi().table(b"FACP").expect("FADT");
    let port = fadt.read_u32(76) as u16;
    let mask = if fadt.read_u32(112) & 1 << 8 != 0 {
        u32::MAX
    } else {
        0xff_ffff
    };
    let first = port::read_u32(port);
    spin(10 * MILLISECONDS);
    let elapsed = port::read_u32(port).wrapping_sub(first) & mask;
    // 10 ms at least, and no more than two seconds on the busiest host.
    assert!(
        (10_000..7_200_000).contains(&elapsed),
        "{elapsed} ticks of the PM timer"
    );
}

/// PM1: enable bits can be written and read, status bits are cleared by writing 1, SCI_EN is set.
fn pm1(machine: &Machine) {
    let fadt = machine.acpi().table(b"FACP").expect("FADT");
    let (event, control) = (fadt.read_u32(56) as u16, fadt.read_u32(64) as u16);
    let command_port = fadt.read_u32(48) as u16;
    if command_port != 0 && port::read_u16(control) & 1 == 0 {
        port::write_u8(command_port, fadt.read_u8(52));
    }
    assert_eq!(port::read_u16(control) & 1, 1, "SCI_EN");
    const POWER_BUTTON: u16 = 1 << 8;
    port::write_u16(event + 2, POWER_BUTTON);
    assert_eq!(port::read_u16(event + 2), POWER_BUTTON, "PM1 enable");
    port::write_u16(event + 2, 0);
    assert_eq!(port::read_u16(event + 2), 0, "PM1 enable");
    port::write_u16(event, u16::MAX);
    assert_eq!(port::read_u16(event) & POWER_BUTTON, 0, "PM1 status");
    // SLP_EN without a known sleep type must not turn the machine off, and reads as 0.
    port::write_u16(control, 1 << 13 | 3 << 10 | 1);
    assert_eq!(port::read_u16(control) & 1 << 13, 0, "SLP_EN");
}

/// The DSDT lists as many virtio-mmio devices as there are.
fn dsdt_lists_virtio(machine: &Machine) {
    let devices = Device::all(machine).count();
    let listed = machine
        .acpi()
        .dsdt()
        .expect("DSDT")
        .occurrences(b"LNRO0005")
        .count();
    assert_eq!(listed, devices, "virtio devices in the DSDT");
    for device in Device::all(machine) {
        let address = (device.page().base() as u32).to_le_bytes();
        let dsdt = machine.acpi().dsdt().expect("DSDT");
        let found =
            (0..dsdt.length - 3).any(|offset| dsdt.read_u32(offset) == u32::from_le_bytes(address));
        assert!(found, "{:#x} is not in the DSDT", device.page().base());
    }
}

/// The DSDT has the serial port: `_HID` EISAID("PNP0501").
fn dsdt_lists_serial(machine: &Machine) {
    let dsdt = machine.acpi().dsdt().expect("DSDT");
    assert_eq!(
        dsdt.occurrences(&[0x41, 0xd0, 0x05, 0x01]).count(),
        1,
        "PNP0501"
    );
}
