use proptest::prelude::*;

use super::{Interpreter, Left, Run};
use crate::Outcome;
use crate::cpu::bits;
use crate::testing::{CODE, DATA, Ram, TestCpu, word};

const ROOT: u64 = 0x1_0000;
const STACK: u64 = 0xf000;
const RAX: usize = 0;
const RCX: usize = 1;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;

/// A vCPU at level 0 of 64-bit code, whose memory is where it seems to be: the first 4 MiB, in pages of the
/// kernel's.
fn machine() -> (TestCpu, Ram) {
    let (mut cpu, ram) = (TestCpu::new(), Ram::new());
    let put = |place: u64, value: u64| ram.put(place, &value.to_le_bytes());
    put(ROOT, (ROOT + 0x1000) | 7);
    put(ROOT + 0x1000, (ROOT + 0x2000) | 7);
    put(ROOT + 0x2000, 0x83);
    put(ROOT + 0x2008, 0x20_0083);
    put(ROOT + 0x2010, 0x40_0083);
    cpu.system.cr0 |= bits::CR0_PG | bits::CR0_WP;
    cpu.system.cr3 = ROOT;
    cpu.registers.general[RSP] = STACK;
    cpu.registers.general[RSI] = DATA;
    cpu.registers.general[RDI] = DATA + 0x800;
    (cpu, ram)
}

fn run(cpu: &mut TestCpu, ram: &mut Ram, code: &[u8]) -> Run {
    ram.put(cpu.registers.rip, code);
    Interpreter::default().run(cpu, ram, 1000).unwrap()
}

const fn halt(executed: u32) -> Run {
    Run {
        executed,
        left: Left::Halt,
    }
}

const fn instruction(executed: u32) -> Run {
    Run {
        executed,
        left: Left::Instruction,
    }
}

#[test]
fn a_function_is_called_and_returns() {
    let (mut cpu, mut ram) = machine();
    // mov ecx, 5; call 1f; hlt; 1: push rcx; 2: add rax, rcx; dec rcx; jnz 2b; pop rcx; ret
    let code = [
        0xb9, 5, 0, 0, 0, 0xe8, 1, 0, 0, 0, 0xf4, 0x51, 0x48, 0x01, 0xc8, 0x48, 0xff, 0xc9, 0x75,
        0xf8, 0x59, 0xc3,
    ];
    assert_eq!(run(&mut cpu, &mut ram, &code), halt(20));
    assert_eq!(cpu.registers.rip, CODE + 10);
    assert_eq!(cpu.registers.general[RAX], 15);
    assert_eq!(cpu.registers.general[RCX], 5);
    assert_eq!(cpu.registers.general[RSP], STACK);
    assert_eq!(word(&ram, STACK - 8), CODE + 10);
}

#[test]
fn a_run_ends_at_its_limit_and_goes_on_there() {
    let (mut cpu, mut ram) = machine();
    // 1: inc rax; jmp 1b
    ram.put(CODE, &[0x48, 0xff, 0xc0, 0xeb, 0xfb]);
    let mut interpreter = Interpreter::default();
    for count in 1..=3u64 {
        let run = interpreter.run(&mut cpu, &mut ram, 101).unwrap();
        assert_eq!((run.executed, run.left), (101, Left::Limit));
        assert_eq!(cpu.registers.general[RAX], (101 * count).div_ceil(2));
    }
}

#[test]
fn devices_faults_and_what_is_kvms_are_left_as_they_are() {
    for code in [
        // mov rax, [DEVICE]; lock add [DEVICE], eax; rdmsr; wrmsr; invlpg [rax]; mov cr3, rax; lgdt [rax]
        [0x48, 0x8b, 0x04, 0x25, 0, 0, 0x40, 0].as_slice(),
        &[0xf0, 0x01, 0x04, 0x25, 0, 0, 0x40, 0],
        &[0x0f, 0x32],
        &[0x0f, 0x30],
        &[0x0f, 0x01, 0x38],
        &[0x0f, 0x22, 0xd8],
        &[0x0f, 0x01, 0x10],
        // in al, dx; mov ds, eax; div ecx by zero; mov [not mapped], al; push at a place that is not canonical
        &[0xec],
        &[0x8e, 0xd8],
        &[0xf7, 0xf1],
        &[0x88, 0x04, 0x25, 0, 0, 0, 0x40],
        // ud2; int3; xsave [DEVICE]; movups xmm0, [DEVICE]; xgetbv
        &[0x0f, 0x0b],
        &[0xcc],
        &[0x0f, 0xae, 0x24, 0x25, 0, 0, 0x40, 0],
        &[0x0f, 0x10, 0x04, 0x25, 0, 0, 0x40, 0],
        &[0x0f, 0x01, 0xd0],
    ] {
        let (mut cpu, mut ram) = machine();
        cpu.registers.general[RCX] = 0;
        // nop; the instruction
        let code = [&[0x90], code].concat();
        let before = cpu.registers;
        assert_eq!(
            run(&mut cpu, &mut ram, &code),
            instruction(1),
            "{code:02x?}"
        );
        assert_eq!(cpu.registers.general, before.general, "{code:02x?}");
        assert_eq!(cpu.registers.rip, CODE + 1);
        assert!(ram.reads.is_empty() && ram.writes.is_empty());
    }
}

#[test]
fn a_return_to_a_program_is_told_from_others() {
    for (selector, left) in [(0x33, Left::Return), (0x10, Left::Instruction)] {
        let (mut cpu, mut ram) = machine();
        ram.put(STACK + 8, &[selector, 0]);
        // iretq
        let run = run(&mut cpu, &mut ram, &[0x48, 0xcf]);
        assert_eq!((run.executed, run.left), (0, left));
    }
    let (mut cpu, mut ram) = machine();
    // sysretq
    let run = run(&mut cpu, &mut ram, &[0x48, 0x0f, 0x07]);
    assert_eq!(run.left, Left::Return);
}

#[test]
fn nothing_comes_between_sti_and_what_follows() {
    let (mut cpu, mut ram) = machine();
    // nop; sti; hlt: both are KVM's.
    assert_eq!(run(&mut cpu, &mut ram, &[0x90, 0xfb, 0xf4]), instruction(1));
    assert_eq!(cpu.registers.rip, CODE + 1);
    assert_eq!(cpu.registers.rflags & bits::IF, 0);

    let (mut cpu, mut ram) = machine();
    // sti; nop; hlt
    assert_eq!(run(&mut cpu, &mut ram, &[0xfb, 0x90, 0xf4]), halt(2));
    assert_eq!(cpu.registers.rflags & bits::IF, bits::IF);

    // The limit between the two.
    let (mut cpu, mut ram) = machine();
    ram.put(CODE, &[0x90, 0xfb, 0x90]);
    let run = Interpreter::default().run(&mut cpu, &mut ram, 2).unwrap();
    assert_eq!(run, instruction(1));
    assert_eq!(cpu.registers.rip, CODE + 1);
}

#[test]
fn interrupts_are_let_in_where_the_guest_opens_for_a_moment() {
    let (mut cpu, mut ram) = machine();
    // 1: sti; nop; cli; rdmsr; jmp 1b: KVM is never entered with interrupts enabled, but for this.
    ram.put(CODE, &[0xfb, 0x90, 0xfa, 0x0f, 0x32, 0xeb, 0xf9]);
    let mut interpreter = Interpreter::default();
    let mut instructions = 0;
    let opened = (0..10_000).any(|_| {
        let run = interpreter.run(&mut cpu, &mut ram, 1000).unwrap();
        instructions += run.executed;
        if run.left == Left::Instruction {
            // KVM's step.
            cpu.registers.rip += 2;
        }
        run.left == Left::Limit
    });
    assert!(opened && instructions < 2100, "{instructions}");
    assert_eq!(cpu.registers.rip, CODE + 2, "behind what follows STI");
    assert_eq!(cpu.registers.rflags & bits::IF, bits::IF);
    // Then it goes on for as long again.
    let run = interpreter.run(&mut cpu, &mut ram, 1000).unwrap();
    assert_eq!((run.executed, run.left), (1, Left::Instruction));
}

#[test]
fn code_that_changes_is_decoded_again() {
    let (mut cpu, mut ram) = machine();
    let mut interpreter = Interpreter::default();
    // inc eax; hlt, and then: dec eax; hlt
    for (code, result) in [([0xff, 0xc0, 0xf4], 1), ([0xff, 0xc8, 0xf4], 0)] {
        cpu.registers.rip = CODE;
        ram.put(CODE, &code);
        interpreter.run(&mut cpu, &mut ram, 10).unwrap();
        assert_eq!(cpu.registers.general[RAX], result);
    }
    // By itself: mov byte ptr [2f+1], 0xc8; 2: inc eax; hlt
    let target = CODE + 9;
    let mut code = vec![0xc6, 0x04, 0x25];
    code.extend_from_slice(&u32::try_from(target).unwrap().to_le_bytes());
    code.extend_from_slice(&[0xc8, 0xff, 0xc0, 0xf4]);
    cpu.registers.rip = CODE;
    ram.put(CODE, &code);
    interpreter.run(&mut cpu, &mut ram, 10).unwrap();
    assert_eq!(cpu.registers.general[RAX], u64::from(u32::MAX));
}

#[test]
fn modes_that_are_not_for_runs() {
    type Change = fn(&mut TestCpu);
    let changes: [Change; 5] = [
        |cpu| cpu.system.cr0 &= !bits::CR0_PG,
        |cpu| cpu.system.segments[1].long = false,
        |cpu| cpu.system.segments[2].dpl = 3,
        |cpu| cpu.registers.rflags |= bits::TF,
        |cpu| cpu.system.cr4 |= bits::CR4_PKS,
    ];
    for change in changes {
        let (mut cpu, mut ram) = machine();
        change(&mut cpu);
        let run = run(&mut cpu, &mut ram, &[0x90, 0xf4]);
        assert_eq!((run.executed, run.left), (0, Left::Mode));
    }
    // popfq that sets TF is the last.
    let (mut cpu, mut ram) = machine();
    ram.put(STACK, &0x102u64.to_le_bytes());
    let run = run(&mut cpu, &mut ram, &[0x9d, 0x90]);
    assert_eq!((run.executed, run.left), (1, Left::Mode));
}

#[test]
fn the_time_is_read_without_an_end() {
    let (mut cpu, mut ram) = machine();
    // rdtsc; hlt
    assert_eq!(run(&mut cpu, &mut ram, &[0x0f, 0x31, 0xf4]), halt(1));
    assert_eq!(cpu.registers.general[RAX], 2);
}

#[test]
fn flags_go_to_the_stack_and_back() {
    let (mut cpu, mut ram) = machine();
    // stc; std; pushfq; pop rax; push 0x202; popfq; hlt
    let code = [0xf9, 0xfd, 0x9c, 0x58, 0x68, 2, 2, 0, 0, 0x9d, 0xf4];
    assert_eq!(run(&mut cpu, &mut ram, &code), halt(6));
    assert_eq!(cpu.registers.general[RAX], 2 | bits::CF | bits::DF);
    assert_eq!(cpu.registers.rflags, 0x202);
}

#[test]
fn strings_are_moved_stored_and_compared() {
    let (mut cpu, mut ram) = machine();
    let text: Vec<u8> = (0..200).collect();
    ram.put(DATA, &text);
    // mov ecx, 200; rep movsb; hlt
    let code = [0xb9, 200, 0, 0, 0, 0xf3, 0xa4, 0xf4];
    assert_eq!(run(&mut cpu, &mut ram, &code), halt(2));
    let mut moved = vec![0; 200];
    ram.get(DATA + 0x800, &mut moved);
    assert_eq!(moved, text);
    assert_eq!(cpu.registers.general[RCX], 0);
    assert_eq!(cpu.registers.general[RSI], DATA + 200);
    assert_eq!(cpu.registers.general[RDI], DATA + 0x800 + 200);

    // Forward into itself: the first byte is repeated. lea rdi, [rsi+1]
    let (mut cpu, mut ram) = machine();
    ram.put(DATA, &[7, 0, 0, 0]);
    run(
        &mut cpu,
        &mut ram,
        &[0x48, 0x8d, 0x7e, 1, 0xb9, 3, 0, 0, 0, 0xf3, 0xa4, 0xf4],
    );
    assert_eq!(word(&ram, DATA) & 0xffff_ffff, 0x0707_0707);

    // repne scasb finds; repe cmpsb differs.
    let (mut cpu, mut ram) = machine();
    ram.put(DATA + 0x800, b"abcd\0");
    run(
        &mut cpu,
        &mut ram,
        &[0x31, 0xc0, 0x48, 0x83, 0xc9, 0xff, 0xf2, 0xae, 0xf4],
    );
    assert_eq!(cpu.registers.general[RDI], DATA + 0x805);
    assert_eq!(cpu.registers.general[RCX], u64::MAX - 5);
    let (mut cpu, mut ram) = machine();
    ram.put(DATA, b"abX");
    ram.put(DATA + 0x800, b"abY");
    run(&mut cpu, &mut ram, &[0xb9, 9, 0, 0, 0, 0xf3, 0xa6, 0xf4]);
    assert_eq!(cpu.registers.general[RCX], 6);
    assert_eq!(cpu.registers.rflags & (bits::ZF | bits::CF), bits::CF);
}

#[test]
fn vectors_are_written_back_once_and_not_half() {
    let (mut cpu, mut ram) = machine();
    ram.put(DATA, &[0x11; 16]);
    // movups xmm1, [rsi]; paddb xmm1, xmm1; movups [rsi+16], xmm1; movups xmm1, [not mapped]; hlt
    let code = [
        0x0f, 0x10, 0x0e, 0x66, 0x0f, 0xfc, 0xc9, 0x0f, 0x11, 0x4e, 0x10, 0x0f, 0x10, 0x0c, 0x25,
        0, 0, 0, 0x40, 0xf4,
    ];
    assert_eq!(run(&mut cpu, &mut ram, &code), instruction(3));
    assert_eq!(cpu.vector(1)[..16], [0x22; 16]);
    assert_eq!(word(&ram, DATA + 16), 0x2222_2222_2222_2222);
    assert_eq!(cpu.registers.rip, CODE + 11);
}

#[test]
fn a_long_string_is_interrupted_and_one_that_faults_says_where() {
    let (mut cpu, mut ram) = machine();
    // rep stosq of 600 words, and of none; hlt
    cpu.registers.general[RAX] = 0x0101_0101_0101_0101;
    cpu.registers.general[RCX] = 1500;
    cpu.registers.general[RDI] = DATA;
    ram.put(CODE, &[0xf3, 0xab, 0xf4]);
    let mut interpreter = Interpreter::default();
    let first = interpreter.run(&mut cpu, &mut ram, 1).unwrap();
    assert_eq!((first.executed, first.left), (1, Left::Limit));
    assert_eq!(cpu.registers.rip, CODE);
    let left = cpu.registers.general[RCX];
    assert!(left > 0 && left < 1500);
    assert_eq!(cpu.registers.general[RDI], DATA + 4 * (1500 - left));
    let rest = interpreter.run(&mut cpu, &mut ram, 100).unwrap();
    assert_eq!(rest.left, Left::Halt);
    assert_eq!(cpu.registers.general[RCX], 0);
    assert_eq!(cpu.registers.rip, CODE + 2);

    // Across the end of RAM: the elements before it are stored.
    let (mut cpu, mut ram) = machine();
    let end = u64::try_from(crate::testing::RAM_BYTES).unwrap();
    cpu.registers.general[RCX] = 8;
    cpu.registers.general[RDI] = end - 16;
    let run = run(&mut cpu, &mut ram, &[0xf3, 0x48, 0xab, 0xf4]);
    assert_eq!((run.executed, run.left), (1, Left::Instruction));
    assert_eq!(cpu.registers.general[RCX], 6);
    assert_eq!(cpu.registers.rip, CODE);
}

#[test]
fn translations_are_those_of_the_moment() {
    let (mut cpu, mut ram) = machine();
    // A second place for the data, at 0x20_0000 + DATA, which is elsewhere in the next run.
    let table = ROOT + 0x3000;
    ram.put(ROOT + 0x2008, &(table | 7).to_le_bytes());
    ram.put(DATA, &1u64.to_le_bytes());
    ram.put(DATA + 0x1000, &2u64.to_le_bytes());
    // mov rax, [0x204000]; hlt
    ram.put(CODE, &[0x48, 0x8b, 0x04, 0x25, 0, 0x40, 0x20, 0, 0xf4]);
    let mut interpreter = Interpreter::default();
    for (page, expected) in [(DATA, 1), (DATA + 0x1000, 2)] {
        ram.put(table + 8 * 4, &(page | 3).to_le_bytes());
        cpu.registers.rip = CODE;
        interpreter.run(&mut cpu, &mut ram, 10).unwrap();
        assert_eq!(cpu.registers.general[RAX], expected);
    }
    // Read only, for a write; a program's, without and with AC.
    cpu.system.cr4 |= bits::CR4_SMAP;
    // mov [0x204000], rax; hlt
    for (entry, flags, executed) in [(1, 0, 0), (3, 0, 1), (7, 0, 0), (7, bits::AC, 1)] {
        ram.put(table + 8 * 4, &(DATA | entry).to_le_bytes());
        cpu.registers.rip = CODE;
        cpu.registers.rflags = 2 | flags;
        ram.put(CODE, &[0x48, 0x89, 0x04, 0x25, 0, 0x40, 0x20, 0, 0xf4]);
        let run = interpreter.run(&mut cpu, &mut ram, 10).unwrap();
        assert_eq!(run.executed, executed, "{entry} {flags:#x}");
    }
    // A write has set the dirty bit.
    assert_eq!(word(&ram, table + 8 * 4) & 0x60, 0x60);
}

/// Instructions on registers and on memory at RSI; each may be any number of times in a program.
const FORMS: &[&[u8]] = &[
    &[0x48, 0x01, 0xd8],             // add rax, rbx
    &[0x11, 0x4e, 0x10],             // adc [rsi+0x10], ecx
    &[0x66, 0x2b, 0x46, 0x13],       // sub ax, [rsi+0x13]
    &[0x18, 0x66, 0x21],             // sbb [rsi+0x21], ah
    &[0xf0, 0x48, 0x0f, 0xc1, 0x16], // lock xadd [rsi], rdx
    &[0x48, 0x87, 0x5e, 0x08],       // xchg [rsi+8], rbx
    &[0x0f, 0xb1, 0x4e, 0x10],       // cmpxchg [rsi+0x10], ecx
    &[0xf0, 0x0f, 0xba, 0x6e, 4, 9], // lock bts dword ptr [rsi+4], 9
    &[0x48, 0xd3, 0xe2],             // shl rdx, cl
    &[0xc0, 0x5e, 3, 3],             // rcr byte ptr [rsi+3], 3
    &[0x48, 0x0f, 0xac, 0xd0, 7],    // shrd rax, rdx, 7
    &[0x48, 0xf7, 0xe3],             // mul rbx
    &[0x66, 0xf7, 0x6e, 0x30],       // imul word ptr [rsi+0x30]
    &[0x48, 0x63, 0xd1],             // movsxd rdx, ecx
    &[0x0f, 0xb6, 0x5e, 0x11],       // movzx ebx, byte ptr [rsi+0x11]
    &[0x88, 0x6e, 0x12],             // mov [rsi+0x12], ch
    &[0x66, 0x89, 0x46, 0x1f],       // mov [rsi+0x1f], ax
    &[0x48, 0x8d, 0x54, 0x9e, 0x7f], // lea rdx, [rsi+rbx*4+0x7f]
    &[0x0f, 0x4c, 0xc1],             // cmovl eax, ecx
    &[0x0f, 0x97, 0x46, 0x05],       // seta [rsi+5]
    &[0x48, 0x98],                   // cdqe
    &[0x48, 0x99],                   // cqo
    &[0x48, 0x0f, 0xc8],             // bswap rax
    &[0x9f],                         // lahf
    &[0xf7, 0x5e, 0x40],             // neg dword ptr [rsi+0x40]
    &[0x48, 0xff, 0x46, 0x39],       // inc qword ptr [rsi+0x39]
    &[0x48, 0x0f, 0xbc, 0xc3],       // bsf rax, rbx
    &[0x84, 0xc9],                   // test cl, cl
];

proptest! {
    /// A program in one run does what its instructions do one by one.
    #[test]
    fn runs_do_what_instructions_do(
        program in prop::collection::vec(0..FORMS.len(), 1..60),
        general in any::<[u64; 4]>(),
        memory in any::<[u64; 16]>(),
        flags in any::<u64>(),
    ) {
        let code: Vec<u8> = program.iter().flat_map(|form| FORMS[*form]).copied().collect();
        let prepare = || {
            let (mut cpu, ram) = machine();
            cpu.registers.general[..4].copy_from_slice(&general);
            cpu.registers.rflags = 2 | flags & 0x8d5;
            for (number, value) in (0..).zip(memory) {
                ram.put(DATA + 8 * number, &value.to_le_bytes());
            }
            ram.put(CODE, &code);
            ram.put(CODE + u64::try_from(code.len()).unwrap(), &[0xf4]);
            (cpu, ram)
        };
        let (mut once, mut once_ram) = prepare();
        let all = Interpreter::default().run(&mut once, &mut once_ram, 1000).unwrap();
        prop_assert_eq!(usize::try_from(all.executed).unwrap(), program.len());

        let (mut each, mut each_ram) = prepare();
        for _ in &program {
            let outcome = crate::complete(&mut each, &mut each_ram, &[]).unwrap();
            prop_assert!(matches!(outcome, Outcome::Completed(_)));
        }
        prop_assert_eq!(once.registers, each.registers);
        for number in 0..16 {
            let place = DATA + 8 * number;
            prop_assert_eq!(word(&once_ram, place), word(&each_ram, place), "{}", number);
        }
    }
}
