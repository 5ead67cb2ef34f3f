//! The ACPI tables as a guest finds them, and the real-time clock.

use std::time::{SystemTime, UNIX_EPOCH};

use cuddy_tests::{MachineBuilder, disk};

#[test]
fn tables_have_right_checksums_and_can_be_found() {
    let finished = MachineBuilder::suite("acpi-tables,acpi-scan,acpi-fadt").pass();
    for signature in ["FACP", "APIC", "MCFG", "DSDT"] {
        finished.after(&format!("{signature} at "));
    }
}

#[test]
fn madt_lists_the_processors() {
    for processors in ["1", "2", "7"] {
        MachineBuilder::suite("acpi-madt")
            .option(&format!("cpus={processors}"))
            .argument("--cpus", processors)
            .pass();
    }
}

#[test]
fn tables_are_the_same_with_the_kernels_interrupt_controllers() {
    MachineBuilder::suite("acpi-tables,acpi-madt,acpi-fadt,acpi-pm1")
        .argument("--irqchip", "kernel")
        .pass();
}

#[test]
fn power_management_registers_work() {
    MachineBuilder::suite("acpi-pm1,acpi-pm-timer").pass();
}

#[test]
fn dsdt_lists_the_devices() {
    let directory = tempfile::tempdir().expect("a directory");
    let image = disk::prepare(directory.path(), 64);
    let mut path = std::ffi::OsString::from("path=");
    path.push(&image);
    MachineBuilder::suite("acpi-dsdt-virtio,acpi-dsdt-serial")
        .argument("--disk", path)
        .argument("--transport", "mmio")
        .pass();
    MachineBuilder::suite("acpi-dsdt-virtio")
        .argument("--rng", "off")
        .argument("--transport", "mmio")
        .pass();
    MachineBuilder::suite("pci-acpi,acpi-dsdt-serial").pass();
}

#[test]
fn clock_has_the_hosts_time() {
    let finished = MachineBuilder::suite("rtc").pass();
    let guest: u64 = finished.after("RTC ").parse().expect("a number");
    let host = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970")
        .as_secs();
    assert!(host.abs_diff(guest) < 120, "guest {guest}, host {host}");
}

#[test]
fn clock_has_update_flags_and_memory() {
    MachineBuilder::suite("rtc-flags,rtc-memory").pass();
}
