use iced_x86::Mnemonic;
use proptest::prelude::*;

use crate::cpu::{SegmentName, bits};
use crate::testing::{CODE, DATA, DEVICE, Ram, TestCpu, fault, is_unknown, run};
use crate::{Exception, Hint, Outcome, complete};

/// popcnt rax, [rsi]
const POPCNT: &[u8] = &[0xf3, 0x48, 0x0f, 0xb8, 0x06];

#[test]
fn bytes_come_from_memory_when_kvm_has_none_or_too_few() {
    for given in [&[][..], &POPCNT[..2], POPCNT] {
        let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
        ram.put(CODE, POPCNT);
        ram.put(DATA, &[0xff; 8]);
        cpu.registers.general[6] = DATA;
        let outcome = complete(&mut cpu, &mut ram, given).expect("a state");
        assert!(matches!(outcome, Outcome::Completed(done) if done.mnemonic == Mnemonic::Popcnt));
        assert_eq!(cpu.registers.general[0], 64);
        assert_eq!(cpu.registers.rip, CODE + 5);
    }
}

#[test]
fn an_instruction_may_lie_across_two_pages() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.registers.rip = CODE + 0xffd;
    cpu.registers.general[6] = DATA;
    ram.put(cpu.registers.rip, POPCNT);
    complete(&mut cpu, &mut ram, &[]).expect("a state");
    assert_eq!(cpu.registers.rip, CODE + 0x1002);
}

#[test]
fn the_trap_flag_asks_for_a_debug_exception_behind() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.registers.general[6] = DATA;
    assert!(!run(&mut cpu, &mut ram, POPCNT).single_step);
    cpu.registers.rflags |= bits::TF | bits::RF;
    assert!(run(&mut cpu, &mut ram, POPCNT).single_step);
    assert_eq!(cpu.registers.rflags & bits::RF, 0);
}

#[test]
fn breakpoints_are_behind_faults_are_at() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    assert_eq!(fault(&mut cpu, &mut ram, &[0xcc]), Exception::new(3));
    assert_eq!(cpu.registers.rip, CODE + 1);
    for code in [
        &[0x0f, 0x0b][..],
        &[0x0f, 0xb9, 0xc0],
        &[0x0f, 0xff, 0xc0],
        &[0x0f, 0x04],
    ] {
        assert_eq!(fault(&mut cpu, &mut ram, code), Exception::new(6));
        assert_eq!(cpu.registers.rip, CODE + 1);
    }
}

#[test]
fn into_is_for_narrow_code() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    assert_eq!(fault(&mut cpu, &mut ram, &[0xce]).vector, 6);
    cpu.system.segment_mut(SegmentName::Cs).long = false;
    cpu.system.segment_mut(SegmentName::Cs).default_32_bit = true;
    run(&mut cpu, &mut ram, &[0xce]);
    cpu.registers.rflags |= bits::OF;
    let before = cpu.registers.rip;
    assert_eq!(fault(&mut cpu, &mut ram, &[0xce]), Exception::new(4));
    assert_eq!(cpu.registers.rip, before + 1);
}

#[test]
fn what_is_unknown_is_shown() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    // fsin
    match complete(&mut cpu, &mut ram, &[0xd9, 0xfe]).expect("a state") {
        Outcome::Unknown(unknown) => {
            assert_eq!(unknown.to_string(), "fsin at 0x1000 (d9 fe)");
        }
        other => panic!("{other:?}"),
    }
    assert!(is_unknown(&mut cpu, &mut ram, &[0xcd, 0x80]));
}

#[test]
fn segments_have_bases_and_limits() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    ram.put(DATA, &[0xff; 8]);
    // popcnt rax, gs:[rsi]
    let on_gs: &[u8] = &[0x65, 0xf3, 0x48, 0x0f, 0xb8, 0x06];
    cpu.system.segment_mut(SegmentName::Gs).base = DATA - 0x10;
    cpu.registers.general[6] = 0x10;
    run(&mut cpu, &mut ram, on_gs);
    assert_eq!(cpu.registers.general[0], 64);
    // Not canonical: #GP, or #SS on the stack.
    cpu.registers.general[6] = 1 << 63;
    assert_eq!(
        fault(&mut cpu, &mut ram, POPCNT),
        Exception::general_protection()
    );
    // popcnt rax, [rsp]
    cpu.registers.general[4] = 1 << 63;
    let on_stack: &[u8] = &[0xf3, 0x48, 0x0f, 0xb8, 0x04, 0x24];
    assert_eq!(
        fault(&mut cpu, &mut ram, on_stack),
        Exception::stack_fault()
    );
    // popcnt eax, [esi] in 32-bit code, at the limit and beyond.
    let narrow: &[u8] = &[0xf3, 0x0f, 0xb8, 0x06];
    for segment in &mut cpu.system.segments {
        segment.long = false;
        segment.default_32_bit = true;
    }
    cpu.system.segment_mut(SegmentName::Ds).limit = 0x4003;
    cpu.registers.general[6] = DATA;
    run(&mut cpu, &mut ram, narrow);
    cpu.registers.general[6] = DATA + 1;
    assert_eq!(
        fault(&mut cpu, &mut ram, narrow),
        Exception::general_protection()
    );
}

/// A page of data, and behind it one that is not there.
fn paged() -> (TestCpu, Ram) {
    let (mut cpu, ram) = (TestCpu::new(), Ram::new());
    let root = 0x1_0000u64;
    for (table, entry) in [(0, 0x1_1003u64), (1, 0x1_2003), (2, 0x1_3003)] {
        ram.put(root + 0x1000 * table, &entry.to_le_bytes());
    }
    ram.put(root + 0x3000 + 8 * 4, &(DATA | 3).to_le_bytes());
    ram.put(root + 0x3000 + 8 * 6, &(DATA | 1).to_le_bytes());
    cpu.system.cr0 |= bits::CR0_PG | bits::CR0_WP;
    cpu.system.cr3 = root;
    (cpu, ram)
}

#[test]
fn nothing_is_written_when_the_second_page_faults() {
    let (mut cpu, mut ram) = paged();
    cpu.registers.general[6] = DATA + 0xffc;
    // movbe [rsi], rax; movups [rsi], xmm0; cmpxchg8b [rsi]
    for code in [
        &[0x48, 0x0f, 0x38, 0xf1, 0x06][..],
        &[0x0f, 0x11, 0x06],
        &[0x0f, 0xc7, 0x0e],
    ] {
        ram.put(DATA + 0xff0, &[0x77; 16]);
        assert_eq!(
            fault(&mut cpu, &mut ram, code),
            Exception::page_fault(DATA + 0x1000, 2)
        );
        let mut bytes = [0; 16];
        ram.get(DATA + 0xff0, &mut bytes);
        assert_eq!(bytes, [0x77; 16]);
        assert_eq!(crate::testing::word(&ram, 0x1_3020) & 0x40, 0, "not dirty");
    }
    // A comparison that fails writes too.
    cpu.registers.general[6] = 0x6000;
    cpu.registers.general[0] = 1;
    assert_eq!(
        fault(&mut cpu, &mut ram, &[0xf0, 0x48, 0x0f, 0xc7, 0x0e]),
        Exception::page_fault(0x6000, 3)
    );
}

#[test]
fn devices_get_what_a_bus_can_take() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.registers.general[6] = DEVICE + 4;
    run(&mut cpu, &mut ram, POPCNT);
    assert_eq!(ram.reads, [(DEVICE + 4, 8)]);
    // vmovdqu [rsi], ymm0
    run(&mut cpu, &mut ram, &[0xc5, 0xfe, 0x7f, 0x06]);
    let written: Vec<_> = ram
        .writes
        .iter()
        .map(|(at, data)| (at - DEVICE, data.len()))
        .collect();
    assert_eq!(written, [(4, 8), (12, 8), (20, 8), (28, 8)]);
}

#[test]
fn waiting_is_a_hint() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    // monitor; mwait; pause
    assert_eq!(run(&mut cpu, &mut ram, &[0x0f, 0x01, 0xc8]).hint, None);
    assert_eq!(
        run(&mut cpu, &mut ram, &[0x0f, 0x01, 0xc9]).hint,
        Some(Hint::Wait)
    );
    assert_eq!(
        run(&mut cpu, &mut ram, &[0xf3, 0x90]).hint,
        Some(Hint::Wait)
    );
}

/// Beginnings that the decoder takes for something this crate knows.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![
        vec![],
        vec![0xf0],
        vec![0xf3],
        vec![0xf2],
        vec![0x66],
        vec![0x48],
        vec![0x66, 0x4f],
        vec![0xf3, 0x4c],
        vec![0x67],
        vec![0xc5],
        vec![0xc4],
        vec![0x62],
        vec![0x65],
        vec![0x62, 0xf1, 0x7d, 0x49],
        vec![0x62, 0xf2, 0xed, 0xc9],
        vec![0x62, 0xf3, 0x6d, 0x59],
    ]);
    let opcode = prop::sample::select(vec![
        vec![],
        vec![0x0f],
        vec![0x0f, 0x01],
        vec![0x0f, 0xae],
        vec![0x0f, 0xc7],
        vec![0x0f, 0x38],
        vec![0x0f, 0x00],
        vec![0x0f, 0xb8],
    ]);
    (prefix, opcode, prop::collection::vec(any::<u8>(), 0..15))
        .prop_map(|(prefix, opcode, rest)| [prefix, opcode, rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever a guest executes in whatever state, this ends without a panic and moves by an instruction.
    #[test]
    fn anything_goes(
        code in code(),
        general: [u64; 16],
        small: [bool; 16],
        flags: u64,
        controls: [u64; 5],
        kinds: [u8; 6],
        header: [u64; 4],
        long: bool,
        level in 0..4u8,
        wide: bool,
        interrupts: bool,
    ) {
        let cpu = if wide { TestCpu::with_avx512() } else { TestCpu::new() };
        let (mut cpu, mut ram) = (cpu.at_level(level), Ram::new());
        cpu.interrupt_table = interrupts.then_some((DATA, 0x7ff));
        for (number, register) in general.iter().enumerate() {
            let value = if small[number] { DATA + (register & 0x3f0) } else { *register };
            cpu.registers.general[number] = value;
        }
        cpu.registers.rflags = flags;
        cpu.system.cr0 = controls[0];
        cpu.system.cr4 = controls[1];
        cpu.system.cr3 = controls[2];
        cpu.xcr0 = controls[3] & cpu.layout.user_components();
        cpu.xss = controls[4] & 0x1800;
        if long {
            cpu.system.cr0 = cpu.system.cr0 & 0x4000_0008 | bits::CR0_PE;
            cpu.system.cr4 |= bits::CR4_OSFXSR | bits::CR4_OSXSAVE;
        } else {
            cpu.system.efer = controls[4];
            for (segment, kind) in cpu.system.segments.iter_mut().zip(kinds) {
                segment.kind = kind & 0xf;
                segment.long = kind & 16 != 0;
                segment.default_32_bit = kind & 32 != 0;
            }
        }
        ram.put(CODE, &code);
        for (number, word) in (0..).zip(header) {
            ram.put(DATA + 512 + 8 * number, &word.to_le_bytes());
        }
        let before = cpu.registers;
        let outcome = complete(&mut cpu, &mut ram, &code).expect("a state");
        let moved = cpu.registers.rip.wrapping_sub(before.rip);
        match outcome {
            Outcome::Completed(_) => prop_assert!((1..=15).contains(&moved)),
            Outcome::Exception { exception, .. } => {
                prop_assert!(exception.software || exception.vector < 32);
                prop_assert!(moved <= 15);
                prop_assert_eq!(cpu.registers.general, before.general);
            }
            Outcome::Unknown(unknown) => {
                prop_assert_eq!(cpu.registers, before);
                prop_assert!(!unknown.disassembly.is_empty());
            }
        }
    }
}
