//! One instruction on its way: fetched, its features checked, carried out on copies of the registers, and
//! written back if it completes.

use iced_x86::{FastFormatter, Instruction, Mnemonic};

use crate::cpu::{Cpu, CpuError, Registers, SystemRegisters, bits, msr};
use crate::exception::{Exception, Step, Stop};
use crate::feature::Feature;
use crate::fetch::{Fetched, fetch};
use crate::instructions;
use crate::memory::GuestMemory;
use crate::outcome::{Completed, Hint, Outcome, UnknownInstruction};
use crate::paging::Paging;
use crate::translations::Translations;
use crate::word::{at, length, low_32};
use crate::xsave_layout::component;

/// What an instruction works on.
pub struct Execution<'a> {
    pub cpu: &'a mut dyn Cpu,
    pub memory: &'a mut dyn GuestMemory,
    pub registers: Registers,
    pub system: SystemRegisters,
    pub instruction: Instruction,
    pub paging: Paging,
    pub hint: Option<Hint>,
    /// XCR0, once an instruction wanted it.
    pub xcr0: Option<u64>,
    /// The XSAVE area, once an instruction wanted it.
    pub area: Option<Vec<u8>>,
    pub area_modified: bool,
    pub bases_modified: bool,
    /// Where a branch goes; behind the instruction if there is none.
    pub branch: Option<u64>,
    /// The translations of a run of many instructions, which has RAM alone.
    pub translations: Option<&'a Translations<'a>>,
}

/// Carries out the instruction at the vCPU's instruction pointer, of which `bytes` are the first bytes as
/// far as KVM gave them; none are needed.
///
/// # Errors
///
/// [`CpuError`] when the vCPU's state cannot be read or written; how far the instruction came is then not
/// known, and the vCPU cannot go on.
pub fn complete(
    cpu: &mut dyn Cpu,
    memory: &mut dyn GuestMemory,
    bytes: &[u8],
) -> Result<Outcome, CpuError> {
    let registers = cpu.registers()?;
    let system = cpu.system_registers()?;
    let mut area = None;
    let pkru = match system.cr4 & bits::CR4_PKE {
        0 => 0,
        _ => {
            let area = area.insert(Vec::new());
            cpu.read_xsave_area(area)?;
            pkru(cpu, area)
        }
    };
    let pkrs = match system.cr4 & bits::CR4_PKS {
        0 => 0,
        _ => low_32(cpu.msr(msr::PKRS)?),
    };
    let paging = Paging {
        system,
        rflags: registers.rflags,
        user: system.privilege_level(registers.rflags) == 3,
        pkru,
        pkrs,
        physical_bits: cpu.physical_address_bits().into(),
    };
    let fetched = match fetch(memory, &paging, &registers, bytes) {
        Ok(fetched) => fetched,
        Err(Stop::Fault(exception) | Stop::Trap(exception)) => {
            return Ok(Outcome::Exception {
                exception,
                mnemonic: Mnemonic::INVALID,
            });
        }
        Err(Stop::Unknown) => {
            return Ok(Outcome::Unknown(UnknownInstruction {
                rip: registers.rip,
                bytes: Vec::new(),
                disassembly: "code outside of memory".to_owned(),
            }));
        }
        Err(Stop::Cpu(error)) => return Err(error),
    };
    let mut execution = Execution {
        cpu,
        memory,
        registers,
        system,
        instruction: fetched.instruction,
        paging,
        hint: None,
        xcr0: None,
        area,
        area_modified: false,
        bases_modified: false,
        branch: None,
        translations: None,
    };
    let result = execution
        .check()
        .and_then(|()| instructions::execute(&mut execution));
    execution.finish(result, fetched)
}

/// PKRU as the XSAVE area has it.
fn pkru(cpu: &dyn Cpu, area: &[u8]) -> u32 {
    let in_use = u64::from_le_bytes(at(area, 512));
    if in_use & 1 << component::PKRU == 0 {
        return 0;
    }
    let offset = cpu.xsave_layout().component(component::PKRU).offset_bytes;
    u32::from_le_bytes(at(area, offset))
}

impl Execution<'_> {
    /// Whether the instruction exists for this guest.
    fn check(&self) -> Step {
        self.check_instruction(&self.instruction)
    }

    /// Whether `instruction` exists for this guest.
    pub fn check_instruction(&self, instruction: &Instruction) -> Step {
        if instruction.is_invalid() {
            return Err(Exception::invalid_opcode().into());
        }
        // Without their features these are older instructions, which a prefix does not change.
        let never_missing = matches!(
            instruction.mnemonic(),
            Mnemonic::Tzcnt
                | Mnemonic::Lzcnt
                | Mnemonic::Prefetcht0
                | Mnemonic::Prefetcht1
                | Mnemonic::Prefetcht2
                | Mnemonic::Prefetchnta
                | Mnemonic::Prefetch
                | Mnemonic::Prefetchw
                | Mnemonic::Pause
                | Mnemonic::Cldemote
        );
        let missing = |feature: Feature| !self.cpu.has(feature);
        let is_missing = !never_missing
            && instruction
                .cpuid_features()
                .iter()
                .filter_map(|feature| Feature::from_decoder(*feature))
                .any(missing);
        match is_missing {
            true => Err(Exception::invalid_opcode().into()),
            false => Ok(()),
        }
    }

    /// Writes back what changed and says what became of the instruction.
    fn finish(mut self, result: Step, fetched: Fetched) -> Result<Outcome, CpuError> {
        let mnemonic = self.instruction.mnemonic();
        let before = self.registers.rip;
        match result {
            Ok(()) => {
                let single_step = self.paging.rflags & bits::TF != 0;
                let hint = self.hint;
                self.retire()?;
                Ok(Outcome::Completed(Completed {
                    mnemonic,
                    single_step,
                    hint,
                }))
            }
            Err(Stop::Trap(exception)) => {
                self.retire()?;
                Ok(Outcome::Exception {
                    exception,
                    mnemonic,
                })
            }
            Err(Stop::Fault(exception)) => Ok(Outcome::Exception {
                exception,
                mnemonic,
            }),
            Err(Stop::Unknown) => {
                let mut disassembly = String::new();
                FastFormatter::new().format(&self.instruction, &mut disassembly);
                Ok(Outcome::Unknown(UnknownInstruction {
                    rip: before,
                    bytes: fetched
                        .bytes
                        .get(..fetched.count)
                        .unwrap_or_default()
                        .to_vec(),
                    disassembly,
                }))
            }
            Err(Stop::Cpu(error)) => Err(error),
        }
    }

    /// Moves the instruction pointer on and gives the vCPU its new state.
    fn retire(&mut self) -> Result<(), CpuError> {
        self.advance();
        if self.area_modified
            && let Some(area) = &self.area
        {
            self.cpu.write_xsave_area(area)?;
        }
        if self.bases_modified {
            let [_, _, _, _, fs, gs] = &self.system.segments;
            self.cpu.set_segment_bases(fs.base, gs.base)?;
        }
        self.cpu.set_registers(&self.registers)
    }

    /// Moves the instruction pointer on.
    pub fn advance(&mut self) {
        let next = match self.branch.take() {
            Some(target) => target,
            None => self
                .registers
                .rip
                .wrapping_add(length(self.instruction.len())),
        };
        self.registers.rip = match self.system.code_bits() {
            64 => next,
            32 => next & 0xffff_ffff,
            _ => next & 0xffff,
        };
        self.registers.rflags &= !bits::RF;
    }

    /// XCR0, which the vCPU is asked for once.
    pub fn xcr0(&mut self) -> Step<u64> {
        match self.xcr0 {
            Some(value) => Ok(value),
            None => Ok(*self.xcr0.insert(self.cpu.xcr0()?)),
        }
    }

    /// The current privilege level.
    pub const fn privilege_level(&self) -> u8 {
        self.system.privilege_level(self.paging.rflags)
    }

    /// Raises `otherwise` above privilege level 0.
    pub fn require_supervisor(&self, otherwise: Exception) -> Step {
        match self.privilege_level() {
            0 => Ok(()),
            _ => Err(otherwise.into()),
        }
    }

    /// Sets the flags in `mask` to those in `values`.
    pub const fn set_flags(&mut self, mask: u64, values: u64) {
        self.registers.rflags = self.registers.rflags & !mask | values & mask;
    }

    /// Whether all flags in `mask` are set.
    pub const fn has_flags(&self, mask: u64) -> bool {
        self.registers.rflags & mask == mask
    }
}

#[cfg(test)]
mod tests;
