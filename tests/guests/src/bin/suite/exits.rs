//! Loops of exits for measurements: `count` accesses, then the usual end.

use runtime::mmio::Registers;
use runtime::pci::Function;
use runtime::report::Test;
use runtime::time::cycles;
use runtime::{Machine, port, println};

pub const TESTS: &[(&str, Test)] = &[
    ("nothing", |_| {}),
    ("pio-exits", pio),
    ("mmio-exits", mmio),
    ("unclaimed", unclaimed),
];

/// `count` accesses to `port`: reads, or writes of 0 with `write=1`.
fn pio(machine: &Machine) {
    let (number, count) = (
        machine.number("port", 0x80) as u16,
        machine.number("count", 1000),
    );
    let start = cycles();
    if machine.number("write", 0) != 0 {
        for _ in 0..count {
            port::write_u8(number, 0);
        }
    } else {
        for _ in 0..count {
            port::read_u8(number);
        }
    }
    println!("{} cycles for {count} exits", cycles() - start);
}

/// `count` accesses of four bytes to `address`: reads, or writes of 0 with `write=1`. `pci` is the number of
/// a device on PCI whose memory is to be decoded before.
fn mmio(machine: &Machine) {
    if machine.option("pci").is_some() {
        let device = machine.number("pci", 0) as u8;
        Function { bus: 0, device }.enable();
    }
    let (address, count) = (
        machine.number("address", 0xfe00_0000),
        machine.number("count", 1000),
    );
    // SAFETY: the command line's word that a device, or nothing at all, is there.
    let registers = unsafe { Registers::at(address as usize) };
    let start = cycles();
    if machine.number("write", 0) != 0 {
        for _ in 0..count {
            registers.write_u32(0, 0);
        }
    } else {
        for _ in 0..count {
            registers.read_u32(0);
        }
    }
    println!("{} cycles for {count} exits", cycles() - start);
}

/// Ports and addresses that nobody has read as all ones in every width, and take writes.
fn unclaimed(machine: &Machine) {
    let number = machine.number("port", 0x2e0) as u16;
    assert_eq!(port::read_u8(number), 0xff);
    assert_eq!(port::read_u16(number), 0xffff);
    assert_eq!(port::read_u32(number), 0xffff_ffff);
    port::write_u8(number, 1);
    port::write_u16(number, 1);
    port::write_u32(number, 1);
    let mut bytes = [0; 33];
    port::read_string(number, &mut bytes);
    assert_eq!(bytes, [0xff; 33], "string read");
    // SAFETY: an address in the hole below 4 GiB at which the machine has nothing.
    let registers = unsafe { Registers::at(machine.number("address", 0xd000_0000) as usize) };
    assert_eq!(registers.read_u8(1), 0xff);
    assert_eq!(registers.read_u16(2), 0xffff);
    assert_eq!(registers.read_u32(4), 0xffff_ffff);
    assert_eq!(registers.read_u64(8), u64::MAX);
    // Not aligned, and across two pages.
    assert_eq!(registers.read_u64(0xffd), u64::MAX);
    registers.write_u8(1, 1);
    registers.write_u16(2, 1);
    registers.write_u32(4, 1);
    registers.write_u64(8, 1);
}
