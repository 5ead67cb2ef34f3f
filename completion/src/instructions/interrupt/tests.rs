//! INT n against the gates of an interrupt descriptor table (Intel SDM volume 3, 7.12.1.1 and 7.13).

use crate::cpu::bits;
use crate::testing::{CODE, Ram, TestCpu, fault, is_unknown};
use crate::{Exception, vector};

const TABLE: u64 = 0x8000;

/// Gates 0x20 (for level 0), 0x80 (for level 3) and 0x81 (which is none) in a table that ends with 0x90.
fn machine(level: u8) -> (TestCpu, Ram) {
    let (mut cpu, ram) = (TestCpu::new().at_level(level), Ram::new());
    cpu.interrupt_table = Some((TABLE, 16 * 0x91 - 1));
    for (number, attributes) in [
        (3u64, 0xee00u64),
        (0x20, 0x8e00),
        (0x80, 0xef00),
        (0x81, 0xec00),
    ] {
        ram.put(TABLE + 16 * number, &(attributes << 32).to_le_bytes());
    }
    (cpu, ram)
}

fn refused(number: u32) -> Exception {
    Exception::with_code(vector::GENERAL_PROTECTION, number * 8 + 2)
}

#[test]
fn gates_are_for_levels() {
    for (level, number, allowed) in [
        (0, 0x20, true),
        (3, 0x20, false),
        (0, 0x80, true),
        (3, 0x80, true),
        (0, 0x81, false),
        (3, 3, true),
        // An empty gate, and those at and behind the end of the table.
        (0, 0x90, false),
        (0, 0x91, false),
        (0, 0xff, false),
    ] {
        let (mut cpu, mut ram) = machine(level);
        let exception = fault(&mut cpu, &mut ram, &[0xcd, number]);
        if allowed {
            assert_eq!(exception, Exception::software_interrupt(number));
            assert!(exception.software);
            assert_eq!(cpu.registers.rip, CODE + 2, "behind the instruction");
        } else {
            assert_eq!(
                exception,
                refused(number.into()),
                "INT {number:#x} at {level}"
            );
            assert_eq!(cpu.registers.rip, CODE, "at the instruction");
        }
    }
}

#[test]
fn gates_are_present() {
    let (mut cpu, mut ram) = machine(0);
    ram.put(TABLE + 16 * 0x20, &(0x0e00u64 << 32).to_le_bytes());
    let exception = fault(&mut cpu, &mut ram, &[0xcd, 0x20]);
    let absent = Exception::with_code(vector::SEGMENT_NOT_PRESENT, 0x20 * 8 + 2);
    assert_eq!(exception, absent);
    cpu = cpu.at_level(3);
    assert_eq!(
        fault(&mut cpu, &mut ram, &[0xcd, 0x20]),
        refused(0x20),
        "rights first"
    );
}

#[test]
fn breakpoints_have_gates_too() {
    let (mut cpu, mut ram) = machine(3);
    assert_eq!(fault(&mut cpu, &mut ram, &[0xcc]), Exception::new(3));
    ram.put(TABLE + 16 * 3, &(0x8e00u64 << 32).to_le_bytes());
    assert_eq!(fault(&mut cpu, &mut ram, &[0xcc]), refused(3));
}

#[test]
fn narrow_tables_have_narrow_gates() {
    let (mut cpu, mut ram) = machine(3);
    cpu.system.efer = 0;
    for segment in &mut cpu.system.segments {
        segment.default_32_bit = true;
        segment.long = false;
    }
    ram.put(TABLE + 8 * 0x21, &(0xe500u64 << 32).to_le_bytes());
    cpu.interrupt_table = Some((TABLE, 8 * 0x22 - 1));
    let task = fault(&mut cpu, &mut ram, &[0xcd, 0x21]);
    assert_eq!(task, Exception::software_interrupt(0x21));
    assert_eq!(fault(&mut cpu, &mut ram, &[0xcd, 0x22]), refused(0x22));
    // INTO, whose gate is empty.
    cpu.registers.rflags |= bits::OF;
    assert_eq!(fault(&mut cpu, &mut ram, &[0xce]), refused(4));
}

#[test]
fn who_cannot_inject_does_not_know_it() {
    let (mut cpu, mut ram) = machine(0);
    cpu.interrupt_table = None;
    assert!(is_unknown(&mut cpu, &mut ram, &[0xcd, 0x80]));
}
