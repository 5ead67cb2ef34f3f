//! The bytes of an instruction: those that KVM gave, or those that the guest's memory has.

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

use crate::cpu::{Cpu, CpuError, Registers, SegmentName, SystemRegisters};
use crate::exception::{Exception, Step, Stop};
use crate::memory::{self, GuestMemory};
use crate::paging::{Access, PAGE_BYTES, Paging};
use crate::segmentation::linear_address;
use crate::word::{at, index, length};

/// The longest instruction (Intel SDM volume 2, 2.3.11).
pub const INSTRUCTION_BYTES_MAX: usize = 15;

/// An instruction and its bytes.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Decoded; invalid when there is no such instruction.
    pub instruction: Instruction,
    /// As many bytes as it has, or all that were there when it is invalid.
    pub bytes: [u8; INSTRUCTION_BYTES_MAX],
    /// How many there are.
    pub count: usize,
}

/// Decodes the instruction at the instruction pointer: from `given`, if that is enough, else from memory.
pub fn fetch(
    memory: &mut dyn GuestMemory,
    paging: &Paging,
    registers: &Registers,
    given: &[u8],
) -> Step<Fetched> {
    let given = given.get(..INSTRUCTION_BYTES_MAX).unwrap_or(given);
    let system = &paging.system;
    if let Some(fetched) = decode(system, registers.rip, given) {
        return Ok(fetched);
    }
    let mut bytes = [0; INSTRUCTION_BYTES_MAX];
    let mut count = 0;
    while count < INSTRUCTION_BYTES_MAX {
        let mut offset = registers.rip.wrapping_add(length(count));
        if !system.is_64_bit() {
            offset &= 0xffff_ffff;
        }
        let linear = linear_address(system, SegmentName::Cs, offset, 1, Access::Fetch)?;
        let physical = paging.translate(memory, linear, Access::Fetch, false)?;
        let in_page = index(PAGE_BYTES.wrapping_sub(physical & PAGE_BYTES.wrapping_sub(1)));
        let end = count.saturating_add(in_page).min(INSTRUCTION_BYTES_MAX);
        let Some(piece) = bytes.get_mut(count..end) else {
            return Err(Stop::Unknown);
        };
        if memory.ram(physical, piece.len()).is_none() {
            // Code in a device is not run.
            return Err(Stop::Unknown);
        }
        memory::read(memory, physical, piece);
        count = end;
        let so_far = bytes.get(..count).unwrap_or_default();
        if let Some(fetched) = decode(system, registers.rip, so_far) {
            return Ok(fetched);
        }
    }
    // More than 15 bytes.
    Err(Exception::general_protection().into())
}

/// Reads the `code` at a linear address as a program (ring 3) would fetch it, whatever the vCPU does now;
/// false when a program could not, or when it is not in RAM.
///
/// # Errors
///
/// [`CpuError`] when the vCPU's state cannot be read.
pub fn fetch_as_program(
    cpu: &mut dyn Cpu,
    memory: &mut dyn GuestMemory,
    address: u64,
    code: &mut [u8],
) -> Result<bool, CpuError> {
    let paging = Paging {
        system: cpu.system_registers()?,
        rflags: 0,
        user: true,
        // They are for data.
        pkru: 0,
        pkrs: 0,
        physical_bits: cpu.physical_address_bits().into(),
    };
    // Byte by byte: they may be in two pages.
    let mut address = address;
    for byte in code {
        let Ok(physical) = paging.translate(memory, address, Access::Fetch, false) else {
            return Ok(false);
        };
        if memory.ram(physical, 1).is_none() {
            return Ok(false);
        }
        memory::read(memory, physical, std::slice::from_mut(byte));
        address = address.wrapping_add(1);
    }
    Ok(true)
}

/// Decodes `bytes`; none when there are too few.
fn decode(system: &SystemRegisters, rip: u64, bytes: &[u8]) -> Option<Fetched> {
    let mut decoder = Decoder::with_ip(system.code_bits(), bytes, rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() && decoder.last_error() != DecoderError::InvalidInstruction {
        return None;
    }
    let count = match instruction.is_invalid() {
        true => bytes.len(),
        false => instruction.len(),
    };
    Some(Fetched {
        instruction,
        bytes: at(bytes, 0),
        count: count.min(bytes.len()),
    })
}
