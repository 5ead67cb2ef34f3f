//! INT n, INT3, INT1, INTO and the undefined instructions (Intel SDM volume 2, INT n/INTO/INT3/INT1, UD;
//! volume 3, 7.12.1.1).

use iced_x86::Mnemonic as M;

use crate::cpu::bits;
use crate::exception::{Exception, Step, Stop, vector};
use crate::execution::Execution;
use crate::word::{from_le, index, length, low_8};

pub fn execute(x: &mut Execution<'_>) -> Step {
    match x.instruction.mnemonic() {
        M::Int3 => trap(x, Exception::new(vector::BREAKPOINT)),
        M::Into if x.has_flags(bits::OF) => trap(x, Exception::new(vector::OVERFLOW)),
        M::Into => Ok(()),
        M::Int => {
            let number = low_8(x.read(0)?);
            trap(x, Exception::software_interrupt(number))
        }
        M::Ud0 | M::Ud1 | M::Ud2 => Err(Exception::invalid_opcode().into()),
        _ => Err(Stop::Unknown),
    }
}

/// Raises `exception` behind the instruction, if the gate of its vector is for this privilege level.
fn trap(x: &mut Execution<'_>, exception: Exception) -> Step {
    let table = x.cpu.interrupt_table()?;
    match table {
        Some((base, limit)) => check_gate(x, exception.vector, base, limit)?,
        // A gate that nobody can look at is not known to be closed to a breakpoint.
        None if exception.software => return Err(Stop::Unknown),
        None => {}
    }
    Err(Stop::Trap(exception))
}

/// #GP with the vector's error code where the gate is beyond the table, none, or for higher privilege; #NP
/// where it is not present.
fn check_gate(x: &mut Execution<'_>, vector: u8, base: u64, limit: u16) -> Step {
    /// The error code's bit for the interrupt descriptor table (7.13).
    const IDT: u32 = 1 << 1;
    const PRESENT: u64 = 1 << 47;
    if !x.system.is_protected() {
        return Ok(());
    }
    let code = u32::from(vector) << 3 | IDT;
    let refused = Exception::with_code(vector::GENERAL_PROTECTION, code);
    if x.has_flags(bits::VM) && x.registers.rflags & bits::IOPL != bits::IOPL {
        // Virtual-8086 mode is a supervisor's to interrupt.
        return match x.instruction.mnemonic() {
            M::Int => Err(Exception::general_protection().into()),
            _ => Ok(()),
        };
    }
    let long = x.system.efer & bits::EFER_LMA != 0;
    let bytes: usize = if long { 16 } else { 8 };
    let offset = length(index(vector.into()).wrapping_mul(bytes));
    if offset.saturating_add(length(bytes)) > u64::from(limit).saturating_add(1) {
        return Err(refused.into());
    }
    let mut gate = [0; 8];
    x.load_as_supervisor(base.wrapping_add(offset), &mut gate)?;
    let gate = from_le(&gate);
    let level = low_8(gate >> 45 & 3);
    let kind = low_8(gate >> 40 & 0x1f);
    let is_gate = match long {
        true => matches!(kind, 0xe | 0xf),
        false => matches!(kind, 5 | 6 | 7 | 0xe | 0xf),
    };
    if !is_gate || level < x.privilege_level() {
        return Err(refused.into());
    }
    match gate & PRESENT {
        0 => Err(Exception::with_code(vector::SEGMENT_NOT_PRESENT, code).into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
