//! PCI as a guest finds it, and virtio devices there.

use cuddy_tests::{MachineBuilder, disk};

#[test]
fn functions_and_their_capabilities_are_found() {
    MachineBuilder::suite("pci-scan,pci-ecam").pass();
    MachineBuilder::suite("pci-scan,pci-ecam")
        .option("pci.devices=0")
        .argument("--rng", "off")
        .pass();
}

#[test]
fn many_devices_fit() {
    let directory = tempfile::tempdir().expect("a directory");
    let image = disk::prepare(directory.path(), 64);
    let mut machine = MachineBuilder::suite("pci-scan,pci-ecam,pci-acpi,blk-read")
        .option("pci.devices=31 blk.sectors=64");
    let mut path = std::ffi::OsString::from("readonly=on,lock=off,path=");
    path.push(&image);
    for _ in 0..30 {
        machine = machine.argument("--disk", &path);
    }
    machine.pass();
}

#[test]
fn registers_are_sized_and_moved() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut path = std::ffi::OsString::from("path=");
    path.push(disk::prepare(directory.path(), 64));
    let tests = MachineBuilder::suite("pci-bars,pci-move");
    tests.pass();
    tests.argument("--disk", path).pass();
}

#[test]
fn interrupts_by_pin_and_by_message() {
    for irqchip in ["split", "kernel"] {
        MachineBuilder::suite("pci-intx,pci-msix-mask")
            .argument("--irqchip", irqchip)
            .pass();
    }
}

#[test]
fn functions_and_queues_are_reset() {
    MachineBuilder::suite("pci-flr,pci-queue-reset,pci-bus-master,pci-power,pci-window,rng").pass();
}

#[test]
fn memory_above_4_gib_leaves_a_window() {
    MachineBuilder::suite("pci-scan,pci-ecam,pci-bars,rng")
        .memory("5G")
        .pass();
}

#[test]
fn a_minimal_machine_has_no_pci() {
    MachineBuilder::suite("pci-none")
        .argument("--transport", "mmio")
        .pass();
}
