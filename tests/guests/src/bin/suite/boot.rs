//! What the boot loader left: memory map, command line, initial RAM disk; and the processor itself.

use runtime::boot_info::{Protocol, RAM};
use runtime::interrupts::{catch_invalid_opcode, catch_read, count};
use runtime::mmio::read_memory;
use runtime::report::Test;
use runtime::time::{SECONDS, cycles, wait_until};
use runtime::{Machine, lapic, println, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("boot-info", boot_info),
    ("command-line", command_line),
    ("initrd", initrd),
    ("exceptions", exceptions),
    ("cpu", cpu),
    ("halt", halt),
];

/// The memory map is sorted, without overlaps, has the RAM that `memory` (MiB) says, all of which can be
/// written, and holds the image and the tables where it should.
fn boot_info(machine: &Machine) {
    let regions = machine.boot.regions();
    if let Some(name) = machine.option("protocol") {
        let protocol = machine.boot.protocol;
        assert_eq!(
            name,
            match protocol {
                Protocol::Pvh => "pvh",
                Protocol::Linux64 => "linux64",
            }
        );
    }
    let mut end = 0;
    let mut ram_bytes = 0;
    for region in regions {
        assert!(region.length > 0, "empty {region:x?}");
        assert!(
            region.start >= end,
            "{region:x?} overlaps or is out of order"
        );
        end = region.start + region.length;
        if region.kind == RAM {
            ram_bytes += region.length;
            assert!(
                end <= 0xa_0000 || region.start >= 0x10_0000,
                "RAM in the hole of the PC: {region:x?}"
            );
            if end <= 1 << 32 {
                write_and_read(region.start.next_multiple_of(0x1000).max(0x1000));
                write_and_read(end - 8);
            }
        }
    }
    let memory = machine.number("memory", 0) << 20;
    // A PC gives up to 384 KiB below 1 MiB to its hole; firmware keeps more for tables.
    assert!(
        memory == 0 || ram_bytes <= memory && ram_bytes + (1 << 20) >= memory,
        "{ram_bytes:#x} bytes of RAM of {memory:#x}"
    );
    for region in regions.iter().filter(|region| region.kind == RAM) {
        let tables = machine.boot.rsdp;
        assert!(
            tables == 0 || !(region.start..region.start + region.length).contains(&tables),
            "the RSDP is in free RAM"
        );
    }
    assert!(regions.iter().any(|region| region.kind == RAM
        && (region.start..region.start + region.length).contains(&0x10_0000)));
}

/// Writes and reads a word of memory that is free, and leaves it as it was.
fn write_and_read(address: u64) {
    if (0x10_0000..0x100_0000).contains(&address) {
        return;
    }
    let place = address as *mut u64;
    // SAFETY: free RAM outside of the image, by the boot loader's word; the value is put back.
    let (before, after) = unsafe {
        let before = place.read_volatile();
        place.write_volatile(!before);
        let after = place.read_volatile();
        place.write_volatile(before);
        (before, after)
    };
    assert_eq!(after, !before, "memory at {address:#x}");
}

/// Prints the command line between brackets.
fn command_line(machine: &Machine) {
    println!("[{}]", machine.boot.command_line());
}

/// The initial RAM disk has `initrd` bytes with the value of their offset times 7, cut to a byte.
fn initrd(machine: &Machine) {
    let (address, length) = machine.boot.initrd;
    assert_eq!(
        length,
        machine.number("initrd", 0),
        "bytes of the initial RAM disk"
    );
    let mut page = [0; 4096];
    for offset in (0..length).step_by(page.len()) {
        let bytes = page.len().min((length - offset) as usize);
        read_memory(address + offset, &mut page[..bytes]);
        for (index, byte) in page[..bytes].iter().enumerate() {
            let expected = (offset + index as u64).wrapping_mul(7) as u8;
            assert_eq!(*byte, expected, "offset {:#x}", offset + index as u64);
        }
    }
}

/// Exceptions of ring 3 reach their handlers with the right vector, error code and address.
fn exceptions(_: &Machine) {
    let before = count(6);
    let fault = catch_invalid_opcode();
    assert_eq!((fault.vector, fault.error_code), (6, 0));
    assert_eq!(count(6), before + 1);

    let unmapped = 0x1_2345_6000;
    let fault = catch_read(unmapped).expect("a page fault");
    assert_eq!((fault.vector, fault.address), (14, unmapped));
    assert_eq!(
        fault.error_code, 4,
        "a read by ring 3 of a page that is not there"
    );
    assert!(
        catch_read(0x10_0000).is_none(),
        "memory that is there faults"
    );

    let non_canonical = catch_read(1 << 63).expect("a protection fault");
    assert_eq!(non_canonical.vector, 13);
}

/// CPUID, MSRs and the time stamp counter.
fn cpu(machine: &Machine) {
    let [leaf_max, ..] = privileged::cpuid(0, 0);
    assert!(leaf_max >= 0xb, "highest CPUID leaf {leaf_max:#x}");
    let [_, ebx, ecx, edx] = privileged::cpuid(1, 0);
    assert_ne!(ecx & 1 << 31, 0, "hypervisor bit");
    assert_ne!(edx & 1 << 26, 0, "SSE2");
    assert_eq!(
        (ebx >> 24) as u8,
        lapic::identifier(),
        "APIC identifier in leaf 1"
    );
    let [_, _, _, x2apic] = privileged::cpuid(0xb, 0);
    assert_eq!(
        x2apic,
        u32::from(lapic::identifier()),
        "APIC identifier in leaf 0xb"
    );
    let [_, signature @ ..] = privileged::cpuid(0x4000_0000, 0);
    if let Some(name) = machine.option("hypervisor") {
        let mut bytes = [0; 12];
        for (part, register) in bytes.chunks_mut(4).zip(signature) {
            part.copy_from_slice(&register.to_le_bytes());
        }
        assert!(bytes.starts_with(name.as_bytes()), "hypervisor {bytes:x?}");
    }

    const APIC_BASE: u32 = 0x1b;
    const EFER: u32 = 0xc000_0080;
    const MISC_ENABLE: u32 = 0x1a0;
    let apic_base = privileged::read_msr(APIC_BASE);
    assert_eq!(
        apic_base & 0xf_ffff_f000,
        0xfee0_0000,
        "APIC base {apic_base:#x}"
    );
    assert_ne!(apic_base & 1 << 11, 0, "APIC is enabled");
    assert_ne!(apic_base & 1 << 8, 0, "this is the boot processor");
    assert_eq!(privileged::read_msr(EFER) & 0x500, 0x500, "long mode");
    let _ = privileged::read_msr(MISC_ENABLE);
    const KERNEL_GS_BASE: u32 = 0xc000_0102;
    privileged::write_msr(KERNEL_GS_BASE, 0x1234_5678_9abc);
    assert_eq!(privileged::read_msr(KERNEL_GS_BASE), 0x1234_5678_9abc);
    assert_eq!(
        privileged::read_cr4() & 0x20,
        0x20,
        "physical address extension"
    );

    let first = cycles();
    assert!(cycles() >= first, "the time stamp counter goes backwards");
}

/// A halted processor wakes for an interrupt, here of its local APIC's timer.
fn halt(_: &Machine) {
    const VECTOR: u8 = 0x40;
    lapic::enable();
    for _ in 0..5 {
        let before = count(VECTOR);
        lapic::start_timer(VECTOR, 1_000_000, false);
        privileged::halt();
        assert!(wait_until(SECONDS, || count(VECTOR) == before + 1));
    }
    // Through the interrupt flag of ring 3 as well.
    let before = count(VECTOR);
    privileged::interrupts_on();
    lapic::start_timer(VECTOR, 100_000, true);
    let ticks = wait_until(5 * SECONDS, || count(VECTOR) >= before + 5);
    privileged::interrupts_off();
    lapic::stop_timer();
    assert!(ticks, "{} ticks of the local timer", count(VECTOR) - before);
}
