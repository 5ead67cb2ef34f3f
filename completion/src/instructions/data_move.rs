//! Integers from one place to another (Intel SDM volume 2): MOV, its extending and conditional forms, XCHG,
//! BSWAP, LEA, CBW and its kind, XLAT, flags and AH.

use iced_x86::{Mnemonic as M, OpKind, Register};

use super::integer::signed;
use crate::cpu::bits::{AF, CF, PF, SF, ZF};
use crate::exception::{Exception, Step, Stop};
use crate::execution::Execution;
use crate::flags::holds;
use crate::paging::Access;
use crate::segmentation::linear_address;
use crate::word::length;

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    match x.instruction.mnemonic() {
        M::Mov => {
            // Segment, control and debug registers are KVM's.
            let general = (0..2).all(|number| {
                x.instruction.op_kind(number) != OpKind::Register
                    || x.instruction.op_register(number).is_gpr()
            });
            if !general {
                return Err(Stop::Unknown);
            }
            let value = x.read(1)?;
            x.write(0, value)?;
        }
        M::Movzx | M::Movnti | M::Movdiri => {
            let value = x.read(1)?;
            x.write(0, value)?;
        }
        M::Movsx | M::Movsxd => {
            let bytes = x.operand_bytes(1);
            let value = signed(x.read(1)?, bytes);
            x.write(0, value.cast_unsigned())?;
        }
        M::Movdir64b => move_line(x)?,
        M::Enqcmd | M::Enqcmds => return Err(Exception::invalid_opcode().into()),
        M::Xchg => {
            let register = x.instruction.op_register(1);
            let value = x.register(register);
            let found = x.update(0, |_| value)?;
            x.set_register(register, found);
        }
        M::Bswap => {
            let bytes = x.operand_bytes(0);
            let value = x.read(0)?.swap_bytes();
            x.write(0, if bytes == 4 { value >> 32 } else { value })?;
        }
        M::Lea => {
            let address = x.effective_address(1).ok_or(Stop::Unknown)?;
            x.write(0, address)?;
        }
        M::Cbw => extend(x, Register::AL, Register::AX),
        M::Cwde => extend(x, Register::AX, Register::EAX),
        M::Cdqe => extend(x, Register::EAX, Register::RAX),
        M::Cwd => spread_sign(x, Register::AX, Register::DX),
        M::Cdq => spread_sign(x, Register::EAX, Register::EDX),
        M::Cqo => spread_sign(x, Register::RAX, Register::RDX),
        M::Xlatb => {
            let value = x.read(0)?;
            x.set_register(Register::AL, value);
        }
        M::Lahf => {
            let flags = x.registers.rflags & 0xd7 | 2;
            x.set_register(Register::AH, flags);
        }
        M::Sahf => {
            let flags = x.register(Register::AH);
            x.set_flags(CF | PF | AF | ZF | SF, flags);
        }
        _ => return conditional(x),
    }
    Ok(true)
}

/// The number in `from` into the wider register `to`.
fn extend(x: &mut Execution<'_>, from: Register, to: Register) {
    let value = signed(x.register(from), from.size());
    x.set_register(to, value.cast_unsigned());
}

/// The sign of the number in `from` into all bits of `to`.
fn spread_sign(x: &mut Execution<'_>, from: Register, to: Register) {
    let sign = signed(x.register(from), from.size()) >> 63;
    x.set_register(to, sign.cast_unsigned());
}

/// CMOVcc and SETcc.
fn conditional(x: &mut Execution<'_>) -> Step<bool> {
    let condition = holds(x.instruction.condition_code(), x.registers.rflags);
    match x.instruction.mnemonic() {
        M::Cmova
        | M::Cmovae
        | M::Cmovb
        | M::Cmovbe
        | M::Cmove
        | M::Cmovg
        | M::Cmovge
        | M::Cmovl
        | M::Cmovle
        | M::Cmovne
        | M::Cmovno
        | M::Cmovnp
        | M::Cmovns
        | M::Cmovo
        | M::Cmovp
        | M::Cmovs => {
            // The source is read, and the upper half cleared, in either case.
            let source = x.read(1)?;
            let value = if condition { source } else { x.read(0)? };
            x.write(0, value)?;
        }
        M::Seta
        | M::Setae
        | M::Setb
        | M::Setbe
        | M::Sete
        | M::Setg
        | M::Setge
        | M::Setl
        | M::Setle
        | M::Setne
        | M::Setno
        | M::Setnp
        | M::Setns
        | M::Seto
        | M::Setp
        | M::Sets => x.write(0, condition.into())?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// MOVDIR64B: 64 bytes of memory to the aligned line in ES that a register names.
fn move_line(x: &mut Execution<'_>) -> Step {
    const LINE: usize = 64;
    let offset = x.register(x.instruction.op_register(0));
    let source = x.linear(1, LINE, Access::Read)?;
    let name = crate::cpu::SegmentName::Es;
    let target = linear_address(&x.system, name, offset, LINE, Access::Write)?;
    if !target.is_multiple_of(length(LINE)) {
        return Err(Exception::general_protection().into());
    }
    let mut line = [0; LINE];
    x.load(source, &mut line)?;
    x.store(target, &line)
}

#[cfg(test)]
mod tests;
