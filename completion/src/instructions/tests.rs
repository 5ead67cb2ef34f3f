//! The opcode maps beside the host's processor.

use iced_x86::Mnemonic as M;

use crate::cpu::{SegmentName, bits};
use crate::testing::against_host::{compare, legacy, vex};
use crate::testing::{DATA, Ram, TestCpu, fault, run};
use crate::{Exception, Feature};

/// How many random states each form of an instruction begins with: `COMPLETION_STATES`, or as many as a test
/// run has time for.
fn states() -> u64 {
    let asked = std::env::var("COMPLETION_STATES");
    asked.map_or(1000, |text| text.parse().expect("a number"))
}

#[test]
fn legacy_instructions_are_as_on_the_host() {
    let spaces = legacy();
    let report = compare(&spaces, states(), 1);
    report.print("legacy");
    for mnemonic in [M::Add, M::Cmpxchg, M::Bts, M::Rcl, M::Pxor, M::Movups] {
        assert!(report.has(mnemonic), "{mnemonic:?}");
    }
}

#[test]
fn vex_instructions_are_as_on_the_host() {
    if !std::is_x86_feature_detected!("avx2") {
        println!("this processor has no AVX2: nothing is compared");
        return;
    }
    let report = compare(&vex(), states(), 2);
    report.print("VEX");
    for mnemonic in [M::Vpxor, M::Andn, M::Mulx, M::Vmovdqu] {
        assert!(report.has(mnemonic), "{mnemonic:?}");
    }
}

/// What a row of the table below changes in a vCPU that completes the instruction.
type Change = fn(&mut TestCpu);

/// Exceptions by class of instruction (Intel SDM volume 2, tables 2-14 to 2-34 and 2-43 to 2-62; volume 3,
/// table 12-1): each alone, on a state in which the instruction completes.
#[test]
fn exceptions_are_those_of_the_manual() {
    let emulated: Change = |cpu| cpu.system.cr0 |= bits::CR0_EM;
    let switched: Change = |cpu| cpu.system.cr0 |= bits::CR0_TS;
    let no_fxsr: Change = |cpu| cpu.system.cr4 &= !bits::CR4_OSFXSR;
    let no_xsave: Change = |cpu| cpu.system.cr4 &= !bits::CR4_OSXSAVE;
    let no_avx: Change = |cpu| cpu.xcr0 = 3;
    let no_avx_512: Change = |cpu| cpu.xcr0 = 7;
    let odd: Change = |cpu| cpu.registers.general[6] += 1;
    let not_canonical: Change = |cpu| cpu.registers.general[6] = 1 << 62;
    let without_features: Change = |cpu| cpu.missing = Feature::ALL.to_vec();
    let virtual_8086: Change = |cpu| {
        cpu.registers.rflags |= bits::VM;
        cpu.system.efer = 0;
        for segment in &mut cpu.system.segments {
            segment.long = false;
            segment.default_32_bit = false;
            segment.limit = 0xffff;
        }
    };
    let changes = [
        emulated,
        switched,
        no_fxsr,
        no_xsave,
        no_avx,
        no_avx_512,
        odd,
        not_canonical,
        without_features,
    ];
    // The vectors that these raise; 0 for none.
    let rows: &[(&[u8], [u8; 9])] = &[
        // addps' kin: pxor xmm0, [rsi]; aesenc; movaps; movups
        (&[0x66, 0x0f, 0xef, 0x06], [6, 7, 6, 0, 0, 0, 13, 13, 6]),
        (
            &[0x66, 0x0f, 0x38, 0xdc, 0x06],
            [6, 7, 6, 0, 0, 0, 13, 13, 6],
        ),
        (&[0x0f, 0x28, 0x06], [6, 7, 6, 0, 0, 0, 13, 13, 6]),
        (&[0x0f, 0x10, 0x06], [6, 7, 6, 0, 0, 0, 0, 13, 6]),
        // vpxor ymm0, ymm1, [rsi]; vmovdqa ymm0, [rsi]; vpbroadcastb ymm0, [rsi]
        (&[0xc5, 0xf5, 0xef, 0x06], [0, 7, 0, 6, 6, 0, 0, 13, 6]),
        (&[0xc5, 0xfd, 0x6f, 0x06], [0, 7, 0, 6, 6, 0, 13, 13, 6]),
        (
            &[0xc4, 0xe2, 0x7d, 0x78, 0x06],
            [0, 7, 0, 6, 6, 0, 0, 13, 6],
        ),
        // vpaddd zmm1, zmm2, [rsi]; vmovdqa32 zmm1, [rsi]; kmovw k1, [rsi]
        (
            &[0x62, 0xf1, 0x6d, 0x48, 0xfe, 0x0e],
            [0, 7, 0, 6, 6, 6, 0, 13, 6],
        ),
        (
            &[0x62, 0xf1, 0x7d, 0x48, 0x6f, 0x0e],
            [0, 7, 0, 6, 6, 6, 13, 13, 6],
        ),
        (&[0xc5, 0xf8, 0x90, 0x0e], [0, 7, 0, 6, 6, 6, 0, 13, 6]),
        // movq mm0, [rsi]; fild dword ptr [rsi]; fldcw [rsi]; fxsave [rsi]
        (&[0x0f, 0x6f, 0x06], [6, 7, 0, 0, 0, 0, 0, 13, 6]),
        (&[0xdb, 0x06], [7, 7, 0, 0, 0, 0, 0, 13, 0]),
        (&[0xd9, 0x2e], [7, 7, 0, 0, 0, 0, 0, 13, 0]),
        (&[0x0f, 0xae, 0x06], [7, 7, 0, 0, 0, 0, 13, 13, 6]),
        // xsave64 [rsi]; xsavec64 [rsi]
        (&[0x48, 0x0f, 0xae, 0x26], [0, 7, 0, 6, 0, 0, 13, 13, 6]),
        (&[0x48, 0x0f, 0xc7, 0x26], [0, 7, 0, 6, 0, 0, 13, 13, 6]),
        // andn eax, ecx, [rsi]; popcnt eax, [rsi]; lock xadd [rsi], eax
        (
            &[0xc4, 0xe2, 0x70, 0xf2, 0x06],
            [0, 0, 0, 0, 0, 0, 0, 13, 6],
        ),
        (&[0xf3, 0x0f, 0xb8, 0x06], [0, 0, 0, 0, 0, 0, 0, 13, 6]),
        (&[0xf0, 0x0f, 0xc1, 0x06], [0, 0, 0, 0, 0, 0, 0, 13, 0]),
    ];
    for (code, vectors) in rows {
        for (number, (change, vector)) in changes.iter().zip(vectors).enumerate() {
            let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
            cpu.registers.general[6] = DATA;
            change(&mut cpu);
            match vector {
                0 => {
                    run(&mut cpu, &mut ram, code);
                }
                vector => {
                    let exception = fault(&mut cpu, &mut ram, code);
                    assert_eq!(exception.vector, *vector, "{code:02x?}, change {number}");
                    let has_code = exception.error_code == Some(0);
                    assert_eq!(has_code, *vector == 13, "{code:02x?}, change {number}");
                }
            }
        }
    }
    // VEX is for protected mode.
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    cpu.registers.general[6] = DATA;
    virtual_8086(&mut cpu);
    cpu.system.segment_mut(SegmentName::Cs).limit = u32::MAX;
    let exception = fault(&mut cpu, &mut ram, &[0xc5, 0xf1, 0xef, 0xc1]);
    assert_eq!(exception, Exception::invalid_opcode());
}
