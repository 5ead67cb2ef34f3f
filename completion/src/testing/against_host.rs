//! Every instruction that the crate completes, beside the processor that runs the tests.
//!
//! The opcode maps are searched for instructions: all prefixes, opcodes and group members, with registers and
//! with memory. What the decoder knows and the crate carries out is then executed here and there, from random
//! states, and registers, flags, memory, vectors and faults are compared. So an instruction that is added to
//! the crate is compared without a word here; what cannot be, [`is_comparable`] lists with the reason.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use iced_x86::{
    Code, Decoder, DecoderOptions, FastFormatter, Instruction, Mnemonic as M, OpKind, Register,
};

use super::TestCpu;
use super::host::{Ended, Host, MEMORY_BYTES};
use super::native::Area;
use crate::cpu::bits;
use crate::word::{at, put};
use crate::{CpuidRegister, Feature, Outcome, Registers, complete};

/// Where in the memory RSI points to: a whole page behind and before it.
const MIDDLE: u64 = 4096;

/// Numbers that are random enough, and the same in every run.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// xorshift64*.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub const fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// A number in which something is at an edge more often than by chance.
    pub const fn operand(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX >> self.below(64),
            2 => 1 << self.below(64),
            3 => self.below(256),
            4 => self.next() & 0x8000_8000_8080_8080,
            _ => self.next(),
        }
    }
}

/// Whether the processor here has `feature`.
pub fn host_has(feature: Feature) -> bool {
    let location = feature.location();
    let last = std::arch::x86_64::__cpuid_count(location.leaf & 0x8000_0000, 0).eax;
    if location.leaf > last {
        return false;
    }
    let answer = std::arch::x86_64::__cpuid_count(location.leaf, location.subleaf);
    let register = match location.register {
        CpuidRegister::Eax => answer.eax,
        CpuidRegister::Ebx => answer.ebx,
        CpuidRegister::Ecx => answer.ecx,
        CpuidRegister::Edx => answer.edx,
    };
    register & 1 << location.bit != 0
}

/// Whether user code can execute the instruction here to an end that can be foreseen.
fn is_comparable(instruction: &Instruction) -> bool {
    let uses_stack_pointer = (0..instruction.op_count()).any(|number| {
        instruction.op_kind(number) == OpKind::Register
            && instruction.op_register(number).full_register() == Register::RSP
    });
    let elsewhere = matches!(
        instruction.mnemonic(),
        // Control flow, and the host's kernel.
        M::Int | M::Int1 | M::Int3 | M::Into | M::Ud0 | M::Ud1 | M::Ud2 | M::Syscall
        // Time, chance, and the host's own state.
        | M::Rdtsc | M::Rdtscp | M::Rdpid | M::Rdrand | M::Rdseed | M::Xgetbv | M::Xsetbv | M::Rdpkru | M::Wrpkru
        | M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase | M::Swapgs | M::Lar | M::Lsl | M::Verr
        | M::Verw | M::Monitor | M::Mwait | M::Monitorx | M::Mwaitx | M::Umonitor | M::Umwait | M::Tpause
        | M::Clzero | M::Invpcid | M::Invlpg
        // Whole states have tests of their own.
        | M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 | M::Xsave | M::Xsave64 | M::Xsaveopt
        | M::Xsaveopt64 | M::Xsavec | M::Xsavec64 | M::Xsaves | M::Xsaves64 | M::Xrstor | M::Xrstor64
        | M::Xrstors | M::Xrstors64
        // A second address in a register.
        | M::Movdir64b | M::Enqcmd | M::Enqcmds
        // Intel's processors keep TOP, AMD's clear it.
        | M::Emms
        // Privileged.
        | M::Clac | M::Stac | M::Wbinvd | M::Wbnoinvd | M::Invd
    );
    // 0F 0D with a register does nothing on Intel's processors, and does not exist on AMD's.
    let is_reserved = matches!(instruction.mnemonic(), M::Nop | M::Reservednop)
        && instruction.op_count() > 0
        && instruction.op_kind(0) == OpKind::Register;
    !uses_stack_pointer && !elsewhere && !is_reserved
}

/// Bits of flags that are as the manual says, and not as the processor happens to leave them.
fn defined_flags(instruction: &Instruction) -> u64 {
    let mut undefined = instruction.rflags_undefined();
    let mut mask = super::native::FLAGS;
    for (bit, flag) in [
        (iced_x86::RflagsBits::OF, bits::OF),
        (iced_x86::RflagsBits::SF, bits::SF),
        (iced_x86::RflagsBits::ZF, bits::ZF),
        (iced_x86::RflagsBits::AF, bits::AF),
        (iced_x86::RflagsBits::CF, bits::CF),
        (iced_x86::RflagsBits::PF, bits::PF),
    ] {
        if undefined & bit != 0 {
            mask &= !flag;
            undefined &= !bit;
        }
    }
    // The decoder's tables do not look at the count.
    if matches!(
        instruction.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    ) {
        mask &= !(bits::AF | bits::OF);
    }
    mask
}

/// A way to write instructions: what stands before the opcode, and how the opcode's byte is followed.
#[derive(Debug, Clone)]
pub struct Space {
    before: Vec<u8>,
    immediate: bool,
}

/// The legacy maps, with every mandatory prefix and both operand sizes.
pub fn legacy() -> Vec<Space> {
    let mut spaces = Vec::new();
    let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
    for map in maps {
        for prefix in [&[][..], &[0x66], &[0xf3], &[0xf2], &[0xf0], &[0xf0, 0x66]] {
            for rex in [&[][..], &[0x48], &[0x44], &[0x4d]] {
                // Without an escape a REX prefix alone is enough.
                spaces.push(Space {
                    before: [prefix, rex, map].concat(),
                    immediate: true,
                });
            }
        }
    }
    spaces
}

/// The three maps of VEX, of both lengths and widths.
pub fn vex() -> Vec<Space> {
    let mut spaces = Vec::new();
    for map in 1..=3u8 {
        for low in 0..16u8 {
            let wide = low & 1 << 3 != 0;
            let (length_and_prefix, width) = (low & 7, u8::from(wide) << 7);
            for source in [0b1111u8, 0b1110, 0b1000, 0b0010] {
                spaces.push(Space {
                    before: vec![0xc4, 0xe0 | map, width | source << 3 | length_and_prefix],
                    immediate: true,
                });
            }
        }
    }
    spaces
}

/// Whether the byte begins something else than an opcode of this space: prefixes and escapes.
fn is_prefix(space: &Space, opcode: u8) -> bool {
    match space.before.last() {
        Some(0x0f) => matches!(opcode, 0x38 | 0x3a | 0x0f),
        Some(0x38 | 0x3a) if space.before.contains(&0x0f) => false,
        _ if space.before.first() == Some(&0xc4) => false,
        _ => matches!(
            opcode,
            0x0f | 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x62 | 0x64..=0x67 | 0xc4 | 0xc5 | 0xf0
                | 0xf2 | 0xf3
        ),
    }
}

/// One instruction of a space.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    instruction: Instruction,
}

/// The instructions in `space` whose opcode is `opcode`, one for each member of a group and kind of operand.
fn templates(space: &Space, opcode: u8, random: &mut Random) -> Vec<Template> {
    let mut found = Vec::new();
    if is_prefix(space, opcode) {
        return found;
    }
    for choice in 0..32u8 {
        let memory = choice & 1 == 0;
        let middle = choice >> 1 & 7;
        // [rsi], or a register other than RSP and RSI.
        let last = match memory {
            true => 6,
            false => [0, 1, 2, 3, 5, 7][usize::try_from(random.below(6)).expect("small")],
        };
        let mode = match (memory, choice >> 4) {
            (true, 0) => 0x00,
            (true, _) => 0x40,
            (false, _) => 0xc0,
        };
        let mut bytes = space.before.clone();
        bytes.extend([opcode, mode | middle << 3 | last]);
        let displacement = u8::from(random.below(4) == 0) << 4;
        if mode == 0x40 {
            bytes.push(displacement);
        }
        if space.immediate {
            bytes.extend(random.operand().to_le_bytes());
        }
        bytes.truncate(15);
        let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() || !is_comparable(&instruction) {
            continue;
        }
        bytes.truncate(instruction.len());
        let operands = 0..instruction.op_count();
        let in_memory = operands
            .clone()
            .any(|number| instruction.op_kind(number) == OpKind::Memory);
        let from_rsi = matches!(
            (instruction.memory_base(), instruction.memory_index()),
            (Register::RSI, Register::None) | (Register::RBX, Register::AL)
        ) && instruction.memory_displacement64() < 256;
        let elsewhere = operands.clone().any(|number| {
            !matches!(
                instruction.op_kind(number),
                OpKind::Register | OpKind::Memory
            ) && instruction.try_immediate(number).is_err()
                && instruction.op_kind(number) != OpKind::MemorySegRDI
        });
        if !elsewhere && (from_rsi || !in_memory) {
            found.push(Template { bytes, instruction });
        }
    }
    found
}

/// What became of a search.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases by mnemonic: completed, and faulted alike.
    pub compared: BTreeMap<M, [u64; 2]>,
    /// Mnemonics that the processor here does not have.
    pub lacking: BTreeMap<M, u64>,
}

impl Report {
    /// Says what was compared and what could not be.
    pub fn print(&self, name: &str) {
        let cases: u64 = self.compared.values().flatten().sum();
        let count = self.compared.len();
        println!("{name}: {cases} cases of {count} instructions are as on this processor");
        if !self.lacking.is_empty() {
            let names: Vec<_> = self
                .lacking
                .keys()
                .map(|name| format!("{name:?}"))
                .collect();
            println!(
                "{name}: this processor lacks {}",
                names.join(", ").to_lowercase()
            );
        }
    }

    /// Whether instructions of this name completed alike.
    pub fn has(&self, mnemonic: M) -> bool {
        self.compared
            .get(&mnemonic)
            .is_some_and(|[done, _]| *done > 0)
    }
}

/// A processor as the host's, in user mode.
fn user() -> TestCpu {
    let mut cpu = TestCpu::new().at_level(3);
    cpu.missing = Feature::ALL
        .iter()
        .copied()
        .filter(|feature| !host_has(*feature))
        .collect();
    cpu.system.cr0 |= bits::CR0_MP;
    cpu.xcr0 &= super::native::enabled_components();
    cpu
}

/// Compares each instruction in `spaces` from so many random states in each of its forms.
pub fn compare(spaces: &[Space], states: u64, seed: u64) -> Report {
    let mut random = Random::new(seed);
    let mut host = Host::new();
    let mut report = Report::default();
    let original = user();
    let mut done: HashMap<(Code, bool, usize), u64> = HashMap::new();
    let per_template = states.div_ceil(4);
    for space in spaces {
        for opcode in 0..=255u8 {
            for template in templates(space, opcode, &mut random) {
                let instruction = &template.instruction;
                let last = instruction.op_count().saturating_sub(1);
                let in_memory = instruction.op_count() > 0
                    && (instruction.op_kind(0) == OpKind::Memory
                        || instruction.op_kind(last) == OpKind::Memory);
                let form = (
                    instruction.code(),
                    in_memory,
                    instruction.op_register(0).size(),
                );
                let done = done.entry(form).or_default();
                for number in 0..per_template.min(states - *done) {
                    *done += 1;
                    if !case(
                        &template,
                        &original,
                        number,
                        &mut host,
                        &mut random,
                        &mut report,
                    ) {
                        *done = states;
                        break;
                    }
                }
            }
        }
    }
    report
}

/// Compares one case; false when the crate does not know the instruction.
fn case(
    template: &Template,
    original: &TestCpu,
    number: u64,
    host: &mut Host,
    random: &mut Random,
    report: &mut Report,
) -> bool {
    let mnemonic = template.instruction.mnemonic();
    let mut code = template.bytes.clone();
    // Other constants than the template's, for all but the first case.
    let constant = template.instruction.immediate8();
    if number > 0
        && template.instruction.op_count() > 0
        && template
            .instruction
            .op_kind(template.instruction.op_count() - 1)
            == OpKind::Immediate8
        && code.last() == Some(&constant)
    {
        let last = code.len() - 1;
        code[last] = u8::try_from(random.next() & 0xff).expect("a byte");
    }
    let mut cpu = original.clone();
    let memory_address = host.memory_address();
    for register in &mut cpu.registers.general {
        *register = random.operand();
    }
    let memory = (0..template.instruction.op_count())
        .any(|operand| template.instruction.op_kind(operand) == OpKind::Memory);
    // Mostly as aligned as anything wants it.
    let offset = match random.below(4) {
        0 => random.below(64),
        _ => 0,
    };
    cpu.registers.general[3] = memory_address + MIDDLE;
    cpu.registers.general[6] = memory_address + MIDDLE + offset;
    cpu.registers.general[7] = memory_address + MIDDLE + offset;
    if memory && matches!(mnemonic, M::Bt | M::Bts | M::Btr | M::Btc) {
        let [_, _, _, _, _, _, pointer, ..] = cpu.registers.general;
        for register in &mut cpu.registers.general {
            *register = random.below(0x4000).wrapping_sub(0x2000);
        }
        cpu.registers.general[6] = pointer;
    }
    cpu.registers.rip = host.code_address();
    cpu.registers.rflags = random.next() & super::native::FLAGS | 2;
    let mut bytes = [0; MEMORY_BYTES];
    for chunk in bytes[MEMORY_BYTES / 2 - 64..MEMORY_BYTES / 2 + 256].chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.operand().to_le_bytes());
    }
    host.fill(&bytes);
    fill_area(&mut cpu.area, cpu.xcr0, random);
    let mut area = Area::new(0);
    area.0[..cpu.area.len()].copy_from_slice(&cpu.area);
    let mut registers = cpu.registers;
    let before = Before {
        code: &code.clone(),
        instruction: &template.instruction,
        registers,
    };
    let outcome = complete(&mut cpu, host, &code).expect("a state");
    let lacks = cpu.missing.iter().any(|feature| {
        template
            .instruction
            .cpuid_features()
            .iter()
            .any(|name| Feature::from_decoder(*name) == Some(*feature))
    });
    let expected = match outcome {
        Outcome::Unknown(_) => return false,
        Outcome::Exception { exception, .. } => Some(exception.vector),
        Outcome::Completed(_) => None,
    };
    if lacks && expected.is_some() {
        *report.lacking.entry(mnemonic).or_default() += 1;
        return false;
    }
    let ended = host.execute(&code, &mut registers, &mut area);
    let counts = report.compared.entry(mnemonic).or_default();
    match (ended, expected) {
        (Ended::Signal(signal), Some(vector)) => {
            let vectors: &[u8] = match signal {
                libc::SIGILL => &[6],
                libc::SIGFPE => &[0, 16],
                libc::SIGBUS => &[17, 12],
                _ => &[13, 14, 12],
            };
            assert!(vectors.contains(&vector), "{before}: {signal} or {vector}");
            counts[1] += 1;
            return true;
        }
        (Ended::Completed, None) => {}
        other => panic!("{before}: {other:?}"),
    }
    counts[0] += 1;
    let undefined_result = matches!(mnemonic, M::Bswap | M::Shld | M::Shrd)
        && (template.instruction.op_register(0).size() == 2
            || template.instruction.memory_size().size() == 2);
    let [there, here] = host.memories();
    if undefined_result {
        return true;
    }
    assert_eq!(
        (cpu.registers.general, memory_difference(here, there)),
        (registers.general, None),
        "{before}"
    );
    let mut flags = defined_flags(&template.instruction);
    if matches!(mnemonic, M::Shl | M::Sal | M::Shr) {
        // Beyond the operand's width CF is undefined.
        flags &= !bits::CF;
    }
    assert_eq!(
        cpu.registers.rflags & flags,
        registers.rflags & flags,
        "flags of {before}"
    );
    compare_areas(&cpu, &area, &before);
    true
}

/// What a case began with, for its message.
#[derive(Debug)]
struct Before<'a> {
    code: &'a [u8],
    instruction: &'a Instruction,
    registers: Registers,
}

impl fmt::Display for Before<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        FastFormatter::new().format(self.instruction, &mut text);
        write!(
            formatter,
            "{:02x?} ({text}) on {:x?}",
            self.code, self.registers
        )
    }
}

/// The first difference.
fn memory_difference(here: &[u8], there: &[u8]) -> Option<(usize, u8, u8)> {
    if here == there {
        return None;
    }
    let index = (0..here.len()).find(|index| here[*index] != there[*index])?;
    Some((index, here[index], there[index]))
}

/// Random vectors, and x87 registers in some state that processors take.
fn fill_area(area: &mut [u8], xcr0: u64, random: &mut Random) {
    let length = area.len() & !7;
    for chunk in area[32..416].chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.operand().to_le_bytes());
    }
    for chunk in area[576..length.min(1088)].chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.operand().to_le_bytes());
    }
    for register in 0..8 {
        area[32 + 16 * register + 10..48 + 16 * register].fill(0);
    }
    // Control word, status word without a pending exception, tags.
    put(area, 0, &[0x7f, 0x03]);
    let top = random.below(8) << 11;
    put(
        area,
        2,
        &u16::try_from(top).expect("three bits").to_le_bytes(),
    );
    put(area, 4, &[random.next().to_le_bytes()[0]]);
    put(area, 24, &0x1f80u32.to_le_bytes());
    let in_use = match random.below(4) {
        0 => random.next() & xcr0 & 7,
        _ => 7,
    };
    put(area, 512, &in_use.to_le_bytes());
}

/// The state components that are compared, as ranges of the area and the values that they begin with.
fn compare_areas(cpu: &TestCpu, there: &Area, before: &Before<'_>) {
    let component = cpu.layout.component(2);
    let mut initial = vec![0; 4096];
    put(&mut initial, 0, &[0x7f, 3]);
    put(&mut initial, 24, &0x1f80u32.to_le_bytes());
    for (number, range) in [
        // Neither the last instruction's code and address nor reserved bytes.
        (0, 0..6),
        (0, 32..160),
        (1, 160..416),
        (
            2,
            component.offset_bytes..component.offset_bytes + component.size_bytes,
        ),
    ] {
        let of = |area: &[u8]| {
            let in_use = u64::from_le_bytes(at(area, 512));
            let from = if in_use & 1 << number == 0 {
                &initial
            } else {
                area
            };
            from[range.clone()].to_vec()
        };
        let (found, expected) = (of(&cpu.area), of(&there.0));
        if found != expected {
            let index = (0..found.len()).find(|index| found[*index] != expected[*index]);
            let start = index.unwrap_or(0) & !15;
            panic!(
                "{before}: byte {index:?} of component {number}: {:02x?} and not {:02x?}",
                &found[start..found.len().min(start + 16)],
                &expected[start..expected.len().min(start + 16)],
            );
        }
    }
    assert_eq!(cpu.area[24..28], there.0[24..28], "MXCSR of {before}");
}
