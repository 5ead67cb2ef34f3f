use crate::Feature;
use crate::cpu::bits;
use crate::testing::{CODE, DATA, Ram, TestCpu, fault, is_unknown, run};
use crate::word::{at, put};

/// Where XMM registers, and the upper halves of YMM registers, are in the area.
const XMM: usize = 160;

fn machine() -> (TestCpu, Ram) {
    let (mut cpu, ram) = (TestCpu::new(), Ram::new());
    cpu.xcr0 = cpu.layout.user_components() & 0xe7;
    cpu.registers.general[6] = DATA;
    cpu.registers.general[0] = 0x8877_6655_4433_2211;
    let upper = cpu.layout.component(2).offset_bytes;
    for register in 0..16u8 {
        let index = usize::from(register);
        put(&mut cpu.area, XMM + 16 * index, &[0x10 + register; 16]);
        put(&mut cpu.area, upper + 16 * index, &[0x40 + register; 16]);
    }
    put(&mut cpu.area, 512, &7u64.to_le_bytes());
    let pattern: Vec<u8> = (0x80..0xc0).collect();
    ram.put(DATA, &pattern);
    (cpu, ram)
}

fn low(cpu: &TestCpu, register: usize) -> [u8; 16] {
    at(&cpu.area, XMM + 16 * register)
}

fn high(cpu: &TestCpu, register: usize) -> [u8; 16] {
    at(
        &cpu.area,
        cpu.layout.component(2).offset_bytes + 16 * register,
    )
}

/// Bytes `from` and the `count` after it, in the place `to` of 16 bytes that are `rest`.
fn moved(rest: u8, to: usize, count: usize) -> [u8; 16] {
    let mut bytes = [rest; 16];
    for (index, byte) in (0x80..).take(count).enumerate() {
        bytes[to + index] = byte;
    }
    bytes
}

#[test]
fn loads() {
    // Instruction on XMM1 and [rsi]; where and how many bytes come, what the rest becomes, and whether the
    // upper half stays.
    for (code, to, count, rest, upper_stays) in [
        (&[0x0f, 0x10, 0x0e][..], 0, 16, 0, true),         // movups
        (&[0x66, 0x0f, 0x10, 0x0e], 0, 16, 0, true),       // movupd
        (&[0xf3, 0x0f, 0x6f, 0x0e], 0, 16, 0, true),       // movdqu
        (&[0x0f, 0x28, 0x0e], 0, 16, 0, true),             // movaps
        (&[0x66, 0x0f, 0x6f, 0x0e], 0, 16, 0, true),       // movdqa
        (&[0xf2, 0x0f, 0xf0, 0x0e], 0, 16, 0, true),       // lddqu
        (&[0x66, 0x0f, 0x38, 0x2a, 0x0e], 0, 16, 0, true), // movntdqa
        (&[0xf3, 0x0f, 0x10, 0x0e], 0, 4, 0, true),        // movss
        (&[0xf2, 0x0f, 0x10, 0x0e], 0, 8, 0, true),        // movsd
        (&[0x66, 0x0f, 0x6e, 0x0e], 0, 4, 0, true),        // movd
        (&[0x66, 0x48, 0x0f, 0x6e, 0x0e], 0, 8, 0, true),  // movq
        (&[0xf3, 0x0f, 0x7e, 0x0e], 0, 8, 0, true),        // movq
        (&[0x0f, 0x12, 0x0e], 0, 8, 0x11, true),           // movlps
        (&[0x66, 0x0f, 0x16, 0x0e], 8, 8, 0x11, true),     // movhpd
        (&[0xc5, 0xf8, 0x10, 0x0e], 0, 16, 0, false),      // vmovups
        (&[0xc5, 0xfa, 0x10, 0x0e], 0, 4, 0, false),       // vmovss
        (&[0xc5, 0xf9, 0x6e, 0x0e], 0, 4, 0, false),       // vmovd
        (&[0xc5, 0xe8, 0x16, 0x0e], 8, 8, 0x12, false),    // vmovhps xmm1, xmm2, [rsi]
    ] {
        let (mut cpu, mut ram) = machine();
        run(&mut cpu, &mut ram, code);
        assert_eq!(low(&cpu, 1), moved(rest, to, count), "{code:02x?}");
        let upper = if upper_stays { 0x41 } else { 0 };
        assert_eq!(high(&cpu, 1), [upper; 16], "{code:02x?}");
        assert_eq!(low(&cpu, 2), [0x12; 16]);
    }
}

#[test]
fn wide_loads_and_stores() {
    let (mut cpu, mut ram) = machine();
    // vmovdqa ymm9, [rsi]
    run(&mut cpu, &mut ram, &[0xc5, 0x7d, 0x6f, 0x0e]);
    assert_eq!(low(&cpu, 9), moved(0, 0, 16));
    assert_eq!(high(&cpu, 9)[0], 0x90);
    // vmovups [rsi + 32], ymm3
    run(&mut cpu, &mut ram, &[0xc5, 0xfc, 0x11, 0x5e, 0x20]);
    let mut bytes = [0; 33];
    ram.get(DATA + 31, &mut bytes);
    assert_eq!(
        (bytes[0], bytes[1], bytes[16], bytes[17], bytes[32]),
        (0x9f, 0x13, 0x13, 0x43, 0x43)
    );
    // vzeroupper, vzeroall
    run(&mut cpu, &mut ram, &[0xc5, 0xf8, 0x77]);
    assert_eq!((low(&cpu, 3), high(&cpu, 3)), ([0x13; 16], [0; 16]));
    run(&mut cpu, &mut ram, &[0xc5, 0xfc, 0x77]);
    assert_eq!(low(&cpu, 3), [0; 16]);
}

#[test]
fn stores() {
    // Instruction on [rsi + 16] and XMM1, or RAX; how many bytes of what.
    for (code, count) in [
        (&[0x0f, 0x11, 0x4e, 0x10][..], 16),   // movups
        (&[0x66, 0x0f, 0x7f, 0x4e, 0x10], 16), // movdqa
        (&[0x0f, 0x2b, 0x4e, 0x10], 16),       // movntps
        (&[0x66, 0x0f, 0xe7, 0x4e, 0x10], 16), // movntdq
        (&[0xf3, 0x0f, 0x11, 0x4e, 0x10], 4),  // movss
        (&[0xf2, 0x0f, 0x11, 0x4e, 0x10], 8),  // movsd
        (&[0x66, 0x0f, 0x7e, 0x4e, 0x10], 4),  // movd
        (&[0x66, 0x0f, 0xd6, 0x4e, 0x10], 8),  // movq
        (&[0x0f, 0x13, 0x4e, 0x10], 8),        // movlps
        (&[0x0f, 0x17, 0x4e, 0x10], 8),        // movhps
        (&[0xc5, 0xf8, 0x29, 0x4e, 0x10], 16), // vmovaps
        (&[0xc5, 0xfa, 0x11, 0x4e, 0x10], 4),  // vmovss
    ] {
        let (mut cpu, mut ram) = machine();
        let before = cpu.area.clone();
        run(&mut cpu, &mut ram, code);
        let mut bytes = [0; 32];
        ram.get(DATA + 8, &mut bytes);
        assert_eq!(bytes[..8], (0x88..0x90).collect::<Vec<u8>>());
        assert_eq!(bytes[8..8 + count], [0x11; 16][..count], "{code:02x?}");
        assert_eq!(usize::from(bytes[8 + count]), 0x90 + count, "{code:02x?}");
        assert_eq!(cpu.area, before);
    }
    let (mut cpu, mut ram) = machine();
    // movnti [rsi], rax
    run(&mut cpu, &mut ram, &[0x48, 0x0f, 0xc3, 0x06]);
    assert_eq!(crate::testing::word(&ram, DATA), 0x8877_6655_4433_2211);
}

#[test]
fn between_registers() {
    let (mut cpu, mut ram) = machine();
    // movq xmm1, rax; movd ecx, xmm1; movss xmm2, xmm1; vmovsd xmm3, xmm4, xmm5; movdqa xmm6, xmm7
    run(&mut cpu, &mut ram, &[0x66, 0x48, 0x0f, 0x6e, 0xc8]);
    run(&mut cpu, &mut ram, &[0x66, 0x0f, 0x7e, 0xc9]);
    assert_eq!(cpu.registers.general[1], 0x4433_2211);
    run(&mut cpu, &mut ram, &[0xf3, 0x0f, 0x10, 0xd1]);
    assert_eq!(low(&cpu, 2)[..5], [0x11, 0x22, 0x33, 0x44, 0x12]);
    run(&mut cpu, &mut ram, &[0xc5, 0xdb, 0x10, 0xdd]);
    assert_eq!(
        (low(&cpu, 3)[7], low(&cpu, 3)[8], high(&cpu, 3)),
        (0x15, 0x14, [0; 16])
    );
    run(&mut cpu, &mut ram, &[0x66, 0x0f, 0x6f, 0xf7]);
    assert_eq!((low(&cpu, 6), high(&cpu, 6)), ([0x17; 16], [0x46; 16]));
}

#[test]
fn a_component_out_of_use_reads_as_zeros_and_comes_into_use() {
    let (mut cpu, mut ram) = machine();
    put(&mut cpu.area, 512, &1u64.to_le_bytes());
    // movups [rsi], xmm1; movups xmm2, [rsi + 32]
    run(&mut cpu, &mut ram, &[0x0f, 0x11, 0x0e]);
    assert_eq!(crate::testing::word(&ram, DATA), 0);
    run(&mut cpu, &mut ram, &[0x0f, 0x10, 0x56, 0x20]);
    assert_eq!(cpu.area[512], 3);
    assert_eq!(low(&cpu, 2)[0], 0xa0);
    assert_eq!(low(&cpu, 1), [0; 16], "others have their initial values");
}

#[test]
fn alignment() {
    for (code, strict) in [
        (&[0x0f, 0x28, 0x0e][..], true),    // movaps
        (&[0x66, 0x0f, 0x6f, 0x0e], true),  // movdqa
        (&[0x0f, 0x2b, 0x0e], true),        // movntps
        (&[0xc5, 0xfd, 0x6f, 0x0e], true),  // vmovdqa ymm
        (&[0x0f, 0x10, 0x0e], false),       // movups
        (&[0xc5, 0xfe, 0x6f, 0x0e], false), // vmovdqu ymm
        (&[0xf2, 0x0f, 0x10, 0x0e], false), // movsd
    ] {
        let (mut cpu, mut ram) = machine();
        cpu.registers.general[6] += 8;
        if strict {
            assert_eq!(fault(&mut cpu, &mut ram, code).vector, 13, "{code:02x?}");
        } else {
            run(&mut cpu, &mut ram, code);
        }
    }
}

#[test]
fn what_must_be_enabled() {
    const MOVUPS: &[u8] = &[0x0f, 0x10, 0x0e];
    const VMOVUPS: &[u8] = &[0xc5, 0xf8, 0x10, 0x0e];
    type Change = fn(&mut TestCpu);
    let cases: [(&[u8], Change, u8); 9] = [
        (MOVUPS, |cpu| cpu.system.cr0 |= bits::CR0_TS, 7),
        (
            MOVUPS,
            |cpu| cpu.system.cr0 |= bits::CR0_EM | bits::CR0_TS,
            6,
        ),
        (MOVUPS, |cpu| cpu.system.cr4 &= !bits::CR4_OSFXSR, 6),
        (MOVUPS, |cpu| cpu.missing = vec![Feature::Sse], 6),
        (VMOVUPS, |cpu| cpu.system.cr0 |= bits::CR0_TS, 7),
        (VMOVUPS, |cpu| cpu.system.cr4 &= !bits::CR4_OSXSAVE, 6),
        (VMOVUPS, |cpu| cpu.xcr0 = 3, 6),
        (VMOVUPS, |cpu| cpu.missing = vec![Feature::Avx], 6),
        // vmovups zmm1, [rsi]
        (&[0x62, 0xf1, 0x7c, 0x48, 0x10, 0x0e], |cpu| cpu.xcr0 = 7, 6),
    ];
    for (number, (code, change, vector)) in cases.into_iter().enumerate() {
        let (mut cpu, mut ram) = machine();
        change(&mut cpu);
        assert_eq!(
            fault(&mut cpu, &mut ram, code).vector,
            vector,
            "case {number}"
        );
        assert_eq!(cpu.registers.rip, CODE);
    }
}

#[test]
fn floating_point_is_unknown() {
    let (mut cpu, mut ram) = machine();
    // addps xmm0, xmm1; vaddpd ymm0, ymm1, ymm2
    assert!(is_unknown(&mut cpu, &mut ram, &[0x0f, 0x58, 0xc1]));
    assert!(is_unknown(&mut cpu, &mut ram, &[0xc5, 0xf5, 0x58, 0xc2]));
}
