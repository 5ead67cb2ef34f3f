//! Runs of instructions: one after the other, until one that is KVM's.
//!
//! A KVM without hardware emulates ring 0 in half a microsecond an instruction, most of it in walks over the
//! guest's page tables. Here an instruction takes a third of that: it is decoded once, and translations are
//! kept for the length of a run. A run is a piece of 64-bit code at privilege level 0; it ends before whatever it
//! does not know, which the caller gives to KVM: devices, faults, control registers, interrupts, returns to
//! programs.
//!
//! Between two runs everything may change. Interrupts wait for the end of a run, as they wait for the end of an
//! instruction.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};

use crate::cpu::{Cpu, CpuError, Registers, bits};
use crate::exception::Stop;
use crate::execution::Execution;
use crate::fetch::INSTRUCTION_BYTES_MAX;
use crate::instructions::{Handler, handler, has_area};
use crate::memory::{GuestMemory, RamOnly};
use crate::outcome::Hint;
use crate::paging::{Access, PAGE_BYTES, Paging};
use crate::translations::Translations;
use crate::word::{index, length};

/// How many decoded instructions are kept; a power of two.
const KEPT: usize = 8192;

/// What a run of instructions came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many instructions were carried out.
    pub executed: u32,
    /// Why it ended.
    pub left: Left,
}

/// Why a run of instructions ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// As many instructions were carried out as were asked for.
    Limit,
    /// The next instruction is KVM's.
    Instruction,
    /// The next instruction is KVM's, and returns to a program if nothing is wrong with it.
    Return,
    /// The next instruction is KVM's, and waits for an interrupt: HLT.
    Halt,
    /// The guest waits for somebody else: PAUSE.
    Waiting,
    /// The vCPU is not in 64-bit code at privilege level 0, or is single-stepped by its guest.
    Mode,
}

/// An instruction that was met before.
#[derive(Clone, Copy)]
struct Decoded {
    rip: u64,
    bytes: [u8; INSTRUCTION_BYTES_MAX],
    instruction: Instruction,
    /// What carries it out; none when it is KVM's.
    handler: Option<Handler>,
    /// Whether it works on the XSAVE area.
    has_area: bool,
}

/// So many instructions may be carried out before an interrupt is let in, if the guest lets them in at all:
/// it may do so for a moment only, in the midst of each run.
const SHUT_MAX: u32 = 2000;

/// Carries out runs of instructions on one vCPU; remembers what it has decoded.
#[derive(Default)]
pub struct Interpreter {
    decoded: Vec<Option<Decoded>>,
    /// Instructions since KVM was last entered with interrupts enabled.
    shut: u32,
}

impl std::fmt::Debug for Interpreter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Interpreter")
            .finish_non_exhaustive()
    }
}

impl Interpreter {
    /// Carries out at most `limit` instructions.
    ///
    /// An instruction that faults is left to KVM, as if it had not begun; so is one that touches what is not
    /// RAM. The vCPU's registers are set if anything was carried out. The guest's hardware breakpoints do not
    /// stop it.
    ///
    /// # Errors
    ///
    /// [`CpuError`] when the vCPU's state cannot be read or written.
    pub fn run(
        &mut self,
        cpu: &mut dyn Cpu,
        memory: &mut dyn GuestMemory,
        limit: u32,
    ) -> Result<Run, CpuError> {
        let registers = cpu.registers()?;
        let system = cpu.system_registers()?;
        let is_long = system.is_64_bit() && system.cr0 & bits::CR0_PG != 0;
        let is_kernel = system.privilege_level(registers.rflags) == 0;
        // Keys of supervisor pages would have to be read.
        let is_plain = system.cr4 & bits::CR4_PKS == 0 && registers.rflags & bits::TF == 0;
        if !is_long || !is_kernel || !is_plain {
            return Ok(Run {
                executed: 0,
                left: Left::Mode,
            });
        }
        self.decoded.resize(KEPT, None);
        let paging = Paging {
            system,
            rflags: registers.rflags,
            user: false,
            // The keys of programs' pages are not looked up: with keys, such pages are KVM's.
            pkru: u32::MAX,
            pkrs: 0,
            physical_bits: cpu.physical_address_bits().into(),
        };
        let memory: &dyn GuestMemory = memory;
        let translations = Translations::new(memory);
        let mut execution = Execution {
            cpu,
            memory: &mut RamOnly(memory),
            registers,
            system,
            instruction: Instruction::default(),
            paging,
            hint: None,
            xcr0: None,
            area: None,
            area_modified: false,
            bases_modified: false,
            branch: None,
            translations: Some(&translations),
        };
        let run = self.instructions(&mut execution, &translations, limit)?;
        if execution.area_modified
            && let Some(area) = &execution.area
        {
            execution.cpu.write_xsave_area(area)?;
        }
        if run.executed > 0 {
            let registers = execution.registers;
            execution.cpu.set_registers(&registers)?;
        }
        Ok(run)
    }

    fn instructions(
        &mut self,
        x: &mut Execution<'_>,
        translations: &Translations<'_>,
        limit: u32,
    ) -> Result<Run, CpuError> {
        let mut executed = 0;
        // The registers before an STI whose next instruction has not been carried out: no interrupt may come
        // between the two, and a run cannot end there.
        let mut shadow: Option<Registers> = None;
        let left = loop {
            let is_open = x.registers.rflags & bits::IF != 0 && shadow.is_none();
            let is_due = is_open && self.shut.saturating_add(executed) >= SHUT_MAX;
            if executed >= limit || is_due {
                break Left::Limit;
            }
            x.paging.rflags = x.registers.rflags;
            let Some(decoded) = self.next(x, translations) else {
                break Left::Instruction;
            };
            let instruction = decoded.instruction;
            let mnemonic = instruction.mnemonic();
            let Some(handler) = decoded.handler else {
                break match mnemonic {
                    Mnemonic::Hlt => Left::Halt,
                    _ if returns_to_program(x, &instruction) => Left::Return,
                    _ => Left::Instruction,
                };
            };
            let before = x.registers;
            x.instruction = instruction;
            x.branch = None;
            let area = decoded.has_area.then(|| Area::of(x));
            match handler(x) {
                Ok(true) => x.advance(),
                Err(Stop::Cpu(error)) => return Err(error),
                Ok(false) | Err(_) => {
                    x.registers = before;
                    if let Some(area) = area {
                        area.restore(x);
                    }
                    break Left::Instruction;
                }
            }
            executed = executed.saturating_add(1);
            shadow = match mnemonic {
                Mnemonic::Sti if before.rflags & bits::IF == 0 => Some(before),
                _ => None,
            };
            if x.hint.take() == Some(Hint::Wait) {
                break Left::Waiting;
            }
            if x.registers.rflags & bits::TF != 0 {
                break Left::Mode;
            }
        };
        let left = match shadow {
            None => left,
            // STI is KVM's then, which remembers what it did.
            Some(before) => {
                x.registers = before;
                executed = executed.saturating_sub(1);
                Left::Instruction
            }
        };
        self.shut = match x.registers.rflags & bits::IF {
            0 => self.shut.saturating_add(executed),
            _ => 0,
        };
        Ok(Run { executed, left })
    }

    /// The instruction at the instruction pointer; none where it is not in one page of RAM, or is none.
    fn next(&mut self, x: &Execution<'_>, translations: &Translations<'_>) -> Option<Decoded> {
        let rip = x.registers.rip;
        let page = translations.page(&x.paging, rip, 1, Access::Fetch).ok()?;
        let in_page = index(PAGE_BYTES.wrapping_sub(rip & PAGE_BYTES.wrapping_sub(1)));
        let mut bytes = [0; INSTRUCTION_BYTES_MAX];
        page.read(rip, bytes.get_mut(..in_page.min(INSTRUCTION_BYTES_MAX))?);
        let place = index(rip ^ rip >> 13) % KEPT;
        let kept = self.decoded.get_mut(place)?;
        if let Some(decoded) = kept
            && decoded.rip == rip
            && decoded.bytes == bytes
        {
            return Some(*decoded);
        }
        let given = bytes.get(..in_page.min(INSTRUCTION_BYTES_MAX))?;
        let instruction = Decoder::with_ip(64, given, rip, DecoderOptions::NONE).decode();
        if instruction.is_invalid() || length(instruction.len()) > length(in_page) {
            return None;
        }
        let handler = handler(&instruction).filter(|_| x.check_instruction(&instruction).is_ok());
        let decoded = Decoded {
            rip,
            bytes,
            instruction,
            handler,
            has_area: has_area(&instruction),
        };
        *kept = Some(decoded);
        Some(decoded)
    }
}

/// The XSAVE area before an instruction that may fail half-way through it.
struct Area {
    area: Option<Vec<u8>>,
    modified: bool,
}

impl Area {
    fn of(x: &Execution<'_>) -> Self {
        Self {
            area: x.area.clone(),
            modified: x.area_modified,
        }
    }

    fn restore(self, x: &mut Execution<'_>) {
        x.area = self.area;
        x.area_modified = self.modified;
    }
}

/// Whether the instruction leaves the kernel, if nothing is wrong with it.
fn returns_to_program(x: &mut Execution<'_>, instruction: &Instruction) -> bool {
    const RSP: usize = 4;
    let selector_at = match instruction.mnemonic() {
        Mnemonic::Sysret | Mnemonic::Sysretq | Mnemonic::Sysexit | Mnemonic::Sysexitq => {
            return true;
        }
        // Behind the instruction pointer on the stack.
        Mnemonic::Iretq | Mnemonic::Retf => 8,
        Mnemonic::Iretd => 4,
        _ => return false,
    };
    let mut selector = [0; 2];
    let place = x.registers.get(RSP).wrapping_add(selector_at);
    match x.load(place, &mut selector) {
        Ok(()) => u16::from_le_bytes(selector) & 3 == 3,
        // Not to be seen from here: it may.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests;
