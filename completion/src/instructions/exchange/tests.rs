use std::thread;

use proptest::prelude::*;

use crate::Feature;
use crate::cpu::bits;
use crate::testing::{DATA, DEVICE, Ram, TestCpu, fault, run, word};

/// lock cmpxchg16b [rsi]
const LOCKED_16: &[u8] = &[0xf0, 0x48, 0x0f, 0xc7, 0x0e];
/// cmpxchg16b [rsi]
const PLAIN_16: &[u8] = &[0x48, 0x0f, 0xc7, 0x0e];
/// lock cmpxchg8b [rsi]
const LOCKED_8: &[u8] = &[0xf0, 0x0f, 0xc7, 0x0e];
/// cmpxchg8b [rsi]
const PLAIN_8: &[u8] = &[0x0f, 0xc7, 0x0e];

fn cpu(a: u64, b: u64, c: u64, d: u64, address: u64) -> TestCpu {
    let mut cpu = TestCpu::new();
    cpu.registers.general[..4].copy_from_slice(&[a, c, d, b]);
    cpu.registers.general[6] = address;
    cpu
}

proptest! {
    #[test]
    fn sixteen_bytes(old: [u64; 2], new: [u64; 2], there: [u64; 2], equal: bool, locked: bool, flags: u64) {
        let there = if equal { old } else { there };
        let mut cpu = cpu(old[0], new[0], new[1], old[1], DATA);
        cpu.registers.rflags = flags & 0x8d5 | 2;
        let mut ram = Ram::new();
        ram.put(DATA, &there[0].to_le_bytes());
        ram.put(DATA + 8, &there[1].to_le_bytes());
        run(&mut cpu, &mut ram, if locked { LOCKED_16 } else { PLAIN_16 });
        let stored = if there == old { new } else { there };
        prop_assert_eq!([word(&ram, DATA), word(&ram, DATA + 8)], stored);
        prop_assert_eq!([cpu.registers.general[0], cpu.registers.general[2]], there);
        let zero = if there == old { bits::ZF } else { 0 };
        prop_assert_eq!(cpu.registers.rflags, flags & 0x8d5 & !bits::ZF | 2 | zero);
    }

    #[test]
    fn eight_bytes_at_any_address(
        old: u64,
        new: u64,
        there: u64,
        equal: bool,
        locked: bool,
        offset in prop_oneof![0..64u64, 0xff0..0x1000u64],
    ) {
        let there = if equal { old } else { there };
        let half = |value: u64| (value & 0xffff_ffff | 0xdead << 32, value >> 32 | 0xbeef << 32);
        let ((a, d), (b, c)) = (half(old), half(new));
        let mut cpu = cpu(a, b, c, d, DATA + offset);
        let mut ram = Ram::new();
        ram.put(DATA + offset - 8, &[0x55; 24]);
        ram.put(DATA + offset, &there.to_le_bytes());
        run(&mut cpu, &mut ram, if locked { LOCKED_8 } else { PLAIN_8 });
        prop_assert_eq!(word(&ram, DATA + offset), if there == old { new } else { there });
        prop_assert_eq!(word(&ram, DATA + offset - 8), 0x5555_5555_5555_5555);
        prop_assert_eq!(word(&ram, DATA + offset + 8), 0x5555_5555_5555_5555);
        let registers = [cpu.registers.general[0], cpu.registers.general[2]];
        if there == old {
            prop_assert_eq!(registers, [a, d], "nothing is loaded");
        } else {
            prop_assert_eq!(registers, [there & 0xffff_ffff, there >> 32]);
        }
    }
}

#[test]
fn sixteen_bytes_are_aligned_and_a_feature() {
    let mut ram = Ram::new();
    let mut cpu = cpu(0, 0, 0, 0, DATA + 8);
    let exception = fault(&mut cpu, &mut ram, LOCKED_16);
    assert_eq!((exception.vector, exception.error_code), (13, Some(0)));
    cpu.registers.general[6] = DATA;
    cpu.missing = vec![Feature::Cmpxchg16b];
    assert_eq!(fault(&mut cpu, &mut ram, LOCKED_16).vector, 6);
}

#[test]
fn a_device_is_read_and_written() {
    let mut ram = Ram::new();
    let mut cpu = cpu(0x0101_0101, 1, 2, 0x0101_0101, DEVICE);
    run(&mut cpu, &mut ram, PLAIN_8);
    assert_eq!(ram.reads, [(DEVICE, 8)]);
    assert_eq!(ram.writes, [(DEVICE, vec![1, 0, 0, 0, 2, 0, 0, 0])]);
}

/// Two vCPUs count in the same place; not one count is lost.
fn count_by_two(code: &'static [u8], address: u64) {
    const ROUNDS: u64 = 2000;
    let ram = Ram::new();
    let count = |mut ram: Ram| {
        let mut cpu = cpu(0, 0, 0, 0, address);
        let mut done = 0;
        while done < ROUNDS {
            let (low, high) = (cpu.registers.general[0], cpu.registers.general[2]);
            cpu.registers.general[3] = low + 1;
            cpu.registers.general[1] = high;
            cpu.registers.rip = crate::testing::CODE;
            run(&mut cpu, &mut ram, code);
            if cpu.registers.rflags & bits::ZF != 0 {
                done += 1;
                cpu.registers.general[0] = low + 1;
            }
        }
        std::mem::forget(ram);
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            let view = ram.share();
            scope.spawn(move || count(view));
        }
    });
    assert_eq!(word(&ram, address) & 0xffff_ffff, 2 * ROUNDS);
}

#[test]
fn two_vcpus_agree_on_sixteen_bytes() {
    count_by_two(LOCKED_16, DATA);
}

#[test]
fn two_vcpus_agree_on_eight_bytes() {
    count_by_two(LOCKED_8, DATA);
}

#[test]
fn two_vcpus_agree_on_eight_bytes_that_are_not_aligned() {
    count_by_two(LOCKED_8, DATA + 4);
}

#[test]
fn two_vcpus_agree_across_a_page() {
    count_by_two(LOCKED_8, DATA + 0xffc);
}
