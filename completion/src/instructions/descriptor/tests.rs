use crate::cpu::bits;
use crate::testing::{DATA, Ram, TestCpu, fault, run};

/// The instructions on CX, with EAX or RAX as destination.
const LAR: &[u8] = &[0x0f, 0x02, 0xc1];
const LSL: &[u8] = &[0x0f, 0x03, 0xc1];
const VERR: &[u8] = &[0x0f, 0x00, 0xe1];
const VERW: &[u8] = &[0x0f, 0x00, 0xe9];

const TABLE: [u64; 8] = [
    0,
    0x00af_9b00_0000_ffff, // 0x08: code of ring 0
    0x00cf_9300_0000_ffff, // 0x10: data of ring 0
    0x00cf_f200_0000_ffff, // 0x18: data of ring 3
    0x0040_f700_0000_1234, // 0x20: data of ring 3 with a limit in bytes
    0x0000_8900_0000_0067, // 0x28: a task state
    0x00af_9900_0000_ffff, // 0x30: code that is not read
    0x0000_8e00_0000_0000, // 0x38: an interrupt gate
];

fn cpu(selector: u64, level: u8) -> (TestCpu, Ram) {
    let (mut cpu, ram) = (TestCpu::new().at_level(level), Ram::new());
    for (address, descriptor) in (DATA..).step_by(8).zip(TABLE) {
        ram.put(address, &descriptor.to_le_bytes());
    }
    cpu.system.gdt_base = DATA;
    cpu.system.gdt_limit = 63;
    cpu.registers.general[1] = selector;
    cpu.registers.general[0] = 0x55;
    (cpu, ram)
}

#[test]
fn selectors_and_what_they_allow() {
    // Selector, level; then LAR and LSL where they succeed, VERR, VERW.
    for (selector, level, rights, limit, readable, writable) in [
        (0, 0, None, None, false, false),
        (3, 0, None, None, false, false),
        (
            0x08,
            0,
            Some(0x00a0_9b00),
            Some(0xffff_ffffu64),
            true,
            false,
        ),
        (0x10, 0, Some(0x00c0_9300), Some(0xffff_ffff), true, true),
        (0x10, 3, None, None, false, false),
        (0x13, 0, None, None, false, false),
        (0x1b, 3, Some(0x00c0_f200), Some(0xffff_ffff), true, true),
        (0x23, 3, Some(0x0040_f700), Some(0x1234), true, true),
        (0x28, 0, Some(0x0000_8900), Some(0x67), false, false),
        (0x30, 0, Some(0x00a0_9900), Some(0xffff_ffff), false, false),
        (0x38, 0, None, None, false, false),
        (0x40, 0, None, None, false, false),
        (0x0c, 0, None, None, false, false),
    ] {
        let check = |code: &[u8], expected: Option<u64>| {
            let (mut cpu, mut ram) = cpu(selector, level);
            run(&mut cpu, &mut ram, code);
            let zero = cpu.registers.rflags & bits::ZF != 0;
            assert_eq!(
                zero,
                expected.is_some(),
                "{selector:#x} {level} {code:02x?}"
            );
            let result = expected.filter(|_| code.len() == 3 && code[1] > 1);
            assert_eq!(
                cpu.registers.general[0],
                result.unwrap_or(0x55),
                "{selector:#x}"
            );
        };
        check(LAR, rights);
        check(LSL, limit);
        check(VERR, readable.then_some(0));
        check(VERW, writable.then_some(0));
    }
}

#[test]
fn only_in_protected_mode() {
    let (mut cpu, mut ram) = cpu(8, 0);
    cpu.system.cr0 = 0;
    cpu.system.efer = 0;
    for code in [LAR, LSL, VERR, VERW] {
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 6);
    }
}
