//! What the host's processor is not asked.

use crate::Feature;
use crate::testing::{DATA, DEVICE, Ram, TestCpu, fault, is_unknown, run};

/// movdir64b rax, [rsi]
const LINE: &[u8] = &[0x66, 0x0f, 0x38, 0xf8, 0x06];

#[test]
fn lines_go_straight_to_memory() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    ram.put(DATA, &[7; 64]);
    cpu.registers.general[6] = DATA;
    cpu.registers.general[0] = DEVICE + 64;
    run(&mut cpu, &mut ram, LINE);
    assert_eq!(ram.writes.len(), 8);
    assert_eq!(ram.writes[7], (DEVICE + 120, vec![7; 8]));
    cpu.registers.general[0] = DATA + 0x20;
    assert_eq!(fault(&mut cpu, &mut ram, LINE).vector, 13);
    cpu.missing = vec![Feature::Movdir64b];
    assert_eq!(fault(&mut cpu, &mut ram, LINE).vector, 6);
}

#[test]
fn there_is_nobody_to_enqueue_to() {
    // enqcmd rax, [rsi]; enqcmds rax, [rsi]
    for code in [
        [0xf2, 0x0f, 0x38, 0xf8, 0x06],
        [0xf3, 0x0f, 0x38, 0xf8, 0x06],
    ] {
        assert_eq!(fault(&mut TestCpu::new(), &mut Ram::new(), &code).vector, 6);
    }
}

#[test]
fn a_move_that_does_not_happen_reads_all_the_same() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.registers.general[0] = u64::MAX;
    cpu.registers.general[6] = DEVICE;
    // cmovz eax, [rsi]
    run(&mut cpu, &mut ram, &[0x0f, 0x44, 0x06]);
    assert_eq!(ram.reads.len(), 1);
    assert_eq!(cpu.registers.general[0], 0xffff_ffff);
    cpu.registers.general[6] = 1 << 62;
    assert_eq!(fault(&mut cpu, &mut ram, &[0x0f, 0x44, 0x06]).vector, 13);
}

#[test]
fn system_registers_are_kvms() {
    // mov rax, cr0; mov ds, ax
    for code in [&[0x0f, 0x20, 0xc0][..], &[0x8e, 0xd8]] {
        assert!(is_unknown(&mut TestCpu::new(), &mut Ram::new(), code));
    }
}
