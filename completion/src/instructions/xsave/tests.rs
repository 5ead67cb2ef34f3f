//! Images beside those that the processor's own instructions write, and the faults of the manual.
#![expect(unsafe_code, reason = "the processor is the reference")]

use std::arch::x86_64::_xgetbv;

use proptest::prelude::*;

use crate::cpu::{bits, msr};
use crate::testing::native::{self, Area};
use crate::testing::{CODE, DATA, Ram, TestCpu, fault, is_unknown, run};
use crate::word::{at, put};

/// The instructions with REX.W on [rsi].
const XSAVE: &[u8] = &[0x48, 0x0f, 0xae, 0x26];
const XSAVEOPT: &[u8] = &[0x48, 0x0f, 0xae, 0x36];
const XSAVEC: &[u8] = &[0x48, 0x0f, 0xc7, 0x26];
const XSAVES: &[u8] = &[0x48, 0x0f, 0xc7, 0x2e];
const XRSTOR: &[u8] = &[0x48, 0x0f, 0xae, 0x2e];
const XRSTORS: &[u8] = &[0x48, 0x0f, 0xc7, 0x1e];
const FXSAVE: &[u8] = &[0x48, 0x0f, 0xae, 0x06];
const FXRSTOR: &[u8] = &[0x48, 0x0f, 0xae, 0x0e];
/// The same without.
const XSAVE_32: &[u8] = &[0x0f, 0xae, 0x26];
const FXSAVE_32: &[u8] = &[0x0f, 0xae, 0x06];

/// The components that are compared: those of vectors.
const COMPONENTS: u64 = 0b1110_0111;

fn vcpu(mask: u64) -> TestCpu {
    let mut cpu = TestCpu::new();
    // SAFETY: the operating system has enabled XSAVE, or no test would come here.
    let enabled = unsafe { enabled() };
    cpu.xcr0 = enabled & COMPONENTS;
    cpu.registers.general[0] = mask;
    cpu.registers.general[6] = DATA;
    cpu
}

/// XCR0.
#[target_feature(enable = "xsave")]
fn enabled() -> u64 {
    // SAFETY: register 0 is there wherever the instruction is.
    unsafe { _xgetbv(0) }
}

/// A state that processors take and give back as it is: x87 without pointers, all else random.
fn state() -> impl Strategy<Value = (Vec<u8>, u64)> {
    let vectors = prop::collection::vec(any::<u64>(), 512).prop_map(|words| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
    });
    (
        vectors,
        any::<u64>(),
        prop::sample::select(vec![0x1f80u32, 0x1fbf, 0x3f80]),
    )
        .prop_map(|(mut area, in_use, mxcsr)| {
            let in_use = in_use & vcpu(0).xcr0;
            area[..32].fill(0);
            area[416..576].fill(0);
            put(&mut area, 0, &[0x7f, 0x02, 0, 0, 0x3c]);
            put(&mut area, 24, &mxcsr.to_le_bytes());
            put(&mut area, 28, &0x2ffffu32.to_le_bytes());
            for register in 0..8 {
                area[32 + 16 * register + 10..32 + 16 * register + 16].fill(0);
            }
            put(&mut area, 512, &in_use.to_le_bytes());
            (area, in_use)
        })
}

/// The state in a buffer for the processor. Where SSE is not in use, MXCSR still is.
fn native_state(area: &[u8]) -> Box<Area> {
    let mut state = Area::new(0);
    put(&mut state.0, 0, area);
    state
}

fn image(ram: &Ram, bytes: usize) -> Vec<u8> {
    let mut image = vec![0; bytes];
    ram.get(DATA, &mut image);
    image
}

type Native = unsafe fn(&Area, u64, &mut Area);

/// What the processor itself saves of the state `area`.
///
/// When the host's kernel switches threads between the load of the state and the instruction, it saves and
/// loads the state as well, by instructions for which a MXCSR of its own puts SSE in use (Intel SDM volume
/// 1, 13.11). That is no longer the state that was asked for, so it is loaded again.
fn native_image(code: &[u8], native: Native, area: &[u8], mask: u64) -> Box<Area> {
    const SSE: u64 = 1 << 1;
    let in_use = u64::from_le_bytes(at(area, 512));
    let with_mxcsr = match code {
        XSAVEC if u32::from_le_bytes(at(area, 24)) != 0x1f80 => SSE,
        _ => 0,
    };
    let others = mask & vcpu(0).xcr0 & !(in_use | with_mxcsr);
    for _ in 0..1000 {
        let mut image = Area::new(0x5a);
        // SAFETY: a valid state; the tests that call this look for the instruction.
        unsafe { native(&native_state(area), mask, &mut image) };
        let saved = u64::from_le_bytes(at(&image.0, 512));
        if code == FXSAVE || saved & others == 0 {
            return image;
        }
    }
    panic!("no state without the components {others:#x} can be loaded");
}

fn compare_save(code: &[u8], native: Native, area: &[u8], mask: u64) {
    let expected = native_image(code, native, area, mask);
    let (mut cpu, mut ram) = (vcpu(mask), Ram::new());
    cpu.area = area.to_vec();
    ram.put(DATA, &[0x5a; 4096]);
    run(&mut cpu, &mut ram, code);
    assert_eq!(cpu.area, area, "saving changes nothing");
    let found = image(&ram, 4096);
    for (offset, (found, expected)) in found.iter().zip(&expected.0).enumerate() {
        assert_eq!(
            found, expected,
            "byte {offset} of {code:02x?} with {mask:#x}"
        );
    }
}

proptest! {
    #[test]
    fn images_are_the_processors((area, _) in state(), mask in 0..0x100u64) {
        if !std::is_x86_feature_detected!("xsavec") || !std::is_x86_feature_detected!("xsaveopt") {
            return Ok(());
        }
        compare_save(XSAVE, native::xsave, &area, mask);
        compare_save(XSAVEOPT, native::xsaveopt, &area, mask);
        compare_save(XSAVEC, native::xsavec, &area, mask);
        compare_save(FXSAVE, native::fxsave, &area, mask);
    }

    /// What one instruction saves, another restores: requested components are the saved ones, others stay.
    #[test]
    fn what_is_saved_is_restored(
        (saved, _) in state(),
        (there, _) in state(),
        save_mask in 0..0x100u64,
        mask in 0..0x100u64,
        form in prop::sample::select(vec![(XSAVE, XRSTOR), (XSAVEC, XRSTOR), (XSAVES, XRSTORS)]),
    ) {
        let (save, restore) = form;
        let (mut cpu, mut ram) = (vcpu(save_mask), Ram::new());
        cpu.area = saved.clone();
        run(&mut cpu, &mut ram, save);
        cpu.area = there.clone();
        cpu.registers.rip = CODE;
        cpu.registers.general[0] = mask;
        run(&mut cpu, &mut ram, restore);

        let requested = mask & cpu.xcr0;
        let header = |area: &[u8]| u64::from_le_bytes(at(area, 512));
        let image = image(&ram, 576);
        let loaded = header(&image) & requested;
        let compacted = save != XSAVE;
        let mxcsr = |area: &[u8]| u32::from_le_bytes(at(area, 24));
        let expected_mxcsr = match compacted {
            true if requested & 2 == 0 => mxcsr(&there),
            true if loaded & 2 == 0 => 0x1f80,
            false if requested & 6 == 0 => mxcsr(&there),
            _ => mxcsr(&image),
        };
        prop_assert_eq!(mxcsr(&cpu.area), expected_mxcsr);
        // A MXCSR of its own keeps SSE in use.
        let kept = header(&there) & !requested | loaded;
        prop_assert_eq!(header(&cpu.area) & !2, kept & !2);
        prop_assert!(header(&cpu.area) & 2 >= kept & 2);
        let ranges = [(0, 0..24), (0, 32..160), (1, 160..416)].into_iter().chain(
            [2, 5, 6, 7].map(|number| {
                let component = cpu.layout.component(number);
                (number, component.offset_bytes..component.offset_bytes + component.size_bytes)
            }),
        );
        for (number, range) in ranges {
            if header(&cpu.area) & 1 << number == 0 {
                continue;
            }
            let source = if loaded & 1 << number != 0 { &saved } else { &there };
            let from_there = requested & 1 << number == 0 && header(&there) & 1 << number != 0;
            if loaded & 1 << number != 0 && header(&saved) & 1 << number != 0 || from_there {
                prop_assert_eq!(&cpu.area[range.clone()], &source[range], "component {}", number);
            }
        }
    }

    #[test]
    fn fxrstor_restores_what_fxsave_saved((saved, _) in state(), (there, _) in state()) {
        let (mut cpu, mut ram) = (vcpu(0), Ram::new());
        cpu.area = saved.clone();
        put(&mut cpu.area, 512, &7u64.to_le_bytes());
        run(&mut cpu, &mut ram, FXSAVE);
        let expected = cpu.area.clone();
        cpu.area = there.clone();
        cpu.registers.rip = CODE;
        run(&mut cpu, &mut ram, FXRSTOR);
        prop_assert_eq!(&cpu.area[..416], &expected[..416]);
        prop_assert_eq!(&cpu.area[576..], &there[576..]);
        prop_assert_eq!(u64::from_le_bytes(at(&cpu.area, 512)) & 3, 3);
    }
}

#[test]
fn areas_are_aligned_and_enabled() {
    for code in [XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS] {
        let mut ram = Ram::new();
        let mut cpu = vcpu(7);
        cpu.registers.general[6] = DATA + 32;
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 13, "{code:02x?}");
        let mut cpu = vcpu(7);
        cpu.system.cr0 |= bits::CR0_TS;
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 7, "{code:02x?}");
        cpu.system.cr4 &= !bits::CR4_OSXSAVE;
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 6, "{code:02x?}");
        let supervisor = [XSAVES, XRSTORS].contains(&code);
        let mut cpu = vcpu(0).at_level(3);
        if supervisor {
            assert_eq!(fault(&mut cpu, &mut ram, code).vector, 13, "{code:02x?}");
        } else {
            run(&mut cpu, &mut ram, code);
        }
    }
    for code in [FXSAVE, FXRSTOR] {
        let mut ram = Ram::new();
        let mut cpu = vcpu(0);
        cpu.registers.general[6] = DATA + 8;
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 13);
        cpu.system.cr0 |= bits::CR0_EM;
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 7);
    }
}

#[test]
fn headers_that_do_not_exist() {
    const COMPACTED: u64 = 1 << 63;
    // XSTATE_BV, XCOMP_BV, a byte of the rest; then whether XRSTOR and XRSTORS fault.
    for (saved, format, rest, standard, supervisor) in [
        (0, 0, None, false, true),
        (1 << 62, 0, None, true, true),
        (0, 1, None, true, true),
        (0, 0, Some(530), true, true),
        (0, 0, Some(540), false, true),
        (3, COMPACTED | 3, None, false, false),
        (3, COMPACTED | 1, None, true, true),
        (0, COMPACTED | 1 << 40, None, true, true),
        (0, COMPACTED | 3, Some(540), true, true),
    ] {
        for (code, faults) in [(XRSTOR, standard), (XRSTORS, supervisor)] {
            let mut ram = Ram::new();
            ram.put(DATA + 24, &0x1f80u32.to_le_bytes());
            ram.put(DATA + 512, &u64::to_le_bytes(saved));
            ram.put(DATA + 520, &u64::to_le_bytes(format));
            if let Some(offset) = rest {
                ram.put(DATA + offset, &[1]);
            }
            let mut cpu = vcpu(7);
            if faults {
                let exception = fault(&mut cpu, &mut ram, code);
                assert_eq!(exception.vector, 13, "{saved:x} {format:x} {rest:?}");
            } else {
                run(&mut cpu, &mut ram, code);
            }
        }
    }
}

#[test]
fn mxcsr_has_reserved_bits() {
    let mut ram = Ram::new();
    ram.put(DATA + 24, &0x0004_0000u32.to_le_bytes());
    assert_eq!(fault(&mut vcpu(2), &mut ram, XRSTOR).vector, 13);
    assert_eq!(fault(&mut vcpu(0), &mut ram, FXRSTOR).vector, 13);
    // Not loaded, not looked at.
    run(&mut vcpu(1), &mut ram, XRSTOR);
}

#[test]
fn a_supervisors_components_are_registers() {
    const BOTH: u64 = 3 << 11;
    let mut ram = Ram::new();
    let mut cpu = vcpu(BOTH | 3);
    cpu.xss = BOTH;
    // The first component has its initial values.
    cpu.msrs.insert(msr::PL1_SSP, 0x1000);
    run(&mut cpu, &mut ram, XSAVES);
    let header = image(&ram, 640);
    assert_eq!(u64::from_le_bytes(at(&header, 512)) & BOTH, 1 << 12);
    assert_eq!(u64::from_le_bytes(at(&header, 520)), 1 << 63 | BOTH | 3);
    assert_eq!(u64::from_le_bytes(at(&header, 576 + 16 + 8)), 0x1000);
    cpu.msrs.insert(msr::U_CET, 5);
    cpu.msrs.insert(msr::PL1_SSP, 0x2000);
    cpu.registers.general[0] = 1 << 11;
    run(&mut cpu, &mut ram, XRSTORS);
    assert_eq!(
        (cpu.msrs[&msr::U_CET], cpu.msrs[&msr::PL1_SSP]),
        (0, 0x2000)
    );
    cpu.registers.general[0] = BOTH;
    run(&mut cpu, &mut ram, XRSTORS);
    assert_eq!(cpu.msrs[&msr::PL1_SSP], 0x1000);
    // An address that is none; then components that are not enabled.
    ram.put(DATA + 600, &(1u64 << 62).to_le_bytes());
    assert_eq!(fault(&mut cpu, &mut ram, XRSTORS).vector, 13);
    cpu.xss = 0;
    assert_eq!(fault(&mut cpu, &mut ram, XRSTORS).vector, 13);
    // XRSTOR does not know of supervisors.
    assert_eq!(fault(&mut cpu, &mut ram, XRSTOR).vector, 13);
}

#[test]
fn other_components_of_supervisors_are_unknown() {
    let mut cpu = vcpu(u64::from(u32::MAX));
    cpu.xss = 1 << 8;
    assert!(is_unknown(&mut cpu, &mut Ram::new(), XSAVES));
}

#[test]
fn narrow_forms_have_narrow_pointers() {
    for code in [XSAVE_32, FXSAVE_32] {
        let (mut cpu, mut ram) = (vcpu(1), Ram::new());
        put(&mut cpu.area, 8, &[0x11; 16]);
        put(&mut cpu.area, 512, &1u64.to_le_bytes());
        run(&mut cpu, &mut ram, code);
        let image = image(&ram, 32);
        assert_eq!(image[8..12], [0x11; 4]);
        assert_eq!(image[12..16], [0; 4]);
        assert_eq!(image[16..20], [0x11; 4]);
        assert_eq!(image[20..24], [0; 4]);
    }
}
