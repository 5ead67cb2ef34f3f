//! What a kernel finds when it is entered.

use std::fs;

use cuddy_tests::{MachineBuilder, guests};

#[test]
fn pvh_start_info_has_memory_map_and_command_line() {
    for memory in [64, 129, 1024] {
        let finished = MachineBuilder::suite("boot-info,command-line")
            .option(&format!("protocol=pvh memory={memory} some=words"))
            .memory(&format!("{memory}M"))
            .pass();
        let line = format!("[test=boot-info,command-line protocol=pvh memory={memory} some=words]");
        assert!(finished.has_line(&line), "{finished}");
    }
}

#[test]
fn zero_page_has_memory_map_and_command_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let kernel = guests::without_pvh_note(guests::SUITE, directory.path());
    MachineBuilder::suite("boot-info,command-line,acpi-tables")
        .kernel(kernel)
        .option("protocol=linux64 memory=64")
        .pass();
}

#[test]
fn memory_above_4_gib_is_in_the_map() {
    // Anonymous memory that the guest does not touch costs nothing.
    MachineBuilder::suite("boot-info")
        .option("memory=6144")
        .memory("6G")
        .pass();
}

#[test]
fn initrd_is_where_both_protocols_say() {
    let directory = tempfile::tempdir().expect("a directory");
    let initrd = directory.path().join("initrd");
    let stripped = guests::without_pvh_note(guests::SUITE, directory.path());
    for bytes in [1, 4096, 1_000_003] {
        let content: Vec<u8> = (0..bytes)
            .map(|offset: u32| (offset * 7).to_le_bytes()[0])
            .collect();
        fs::write(&initrd, content).expect("the file is written");
        for kernel in [guests::path(guests::SUITE), stripped.clone()] {
            MachineBuilder::suite("initrd,boot-info")
                .kernel(kernel)
                .option(&format!("initrd={bytes}"))
                .argument("--initrd", &initrd)
                .pass();
        }
    }
}

#[test]
fn processor_is_as_announced() {
    for irqchip in ["split", "kernel"] {
        MachineBuilder::suite("cpu,exceptions,halt")
            .argument("--irqchip", irqchip)
            .pass();
    }
}

#[test]
fn unclaimed_addresses_read_as_ones() {
    MachineBuilder::suite("unclaimed").pass();
}

#[test]
fn shortest_guest_prints_its_byte() {
    let finished = MachineBuilder::suite("")
        .kernel(guests::path(guests::FIRST))
        .start()
        .finish();
    assert_eq!(finished.output, b"!", "{finished}");
    assert_eq!(finished.code(), Some(0), "{finished}");
}
