//! Near branches in 64-bit code, and what goes by the stack: CALL, RET, PUSH, POP, LEAVE (Intel SDM volume 2).
//!
//! In runs of instructions alone: a KVM that emulates one instruction knows them. What is rare (operands of 16
//! bits, far branches, targets that are not canonical) is left to it.

use iced_x86::{Code, OpKind};

use crate::cpu::{SegmentName, bits};
use crate::exception::{Step, Stop};
use crate::execution::Execution;
use crate::flags::holds;
use crate::paging::Access;
use crate::segmentation::{is_canonical, linear_address};
use crate::word::length;

const RCX: usize = 1;
const RSP: usize = 4;
const RBP: usize = 5;
/// Bytes of what the stack takes.
const WORD_BYTES: usize = 8;
/// What POPFQ sets at privilege level 0: all flags but RF, VM, VIF and VIP.
const POPPED: u64 = 0x24_7fd5;
/// RFLAGS bit 1, which is always set.
const ALWAYS: u64 = 2;

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    match x.instruction.code() {
        Code::Jmp_rel8_64 | Code::Jmp_rel32_64 => jump(x, x.instruction.near_branch64())?,
        Code::Jmp_rm64 => {
            let target = x.read(0)?;
            jump(x, target)?;
        }
        Code::Call_rel32_64 => call(x, x.instruction.near_branch64())?,
        Code::Call_rm64 => {
            let target = x.read(0)?;
            call(x, target)?;
        }
        Code::Retnq => {
            let target = pop(x)?;
            jump(x, target)?;
        }
        Code::Retnq_imm16 => {
            let target = pop(x)?;
            let more = u64::from(x.instruction.immediate16());
            x.registers
                .set(RSP, x.registers.get(RSP).wrapping_add(more));
            jump(x, target)?;
        }
        Code::Push_r64 | Code::Push_rm64 | Code::Pushq_imm8 | Code::Pushq_imm32 => {
            let value = x.read(0)?;
            push(x, value)?;
        }
        Code::Pop_r64 | Code::Pop_rm64 if x.instruction.op_kind(0) == OpKind::Register => {
            let value = pop(x)?;
            x.write(0, value)?;
        }
        Code::Pushfq => push(x, x.registers.rflags & !(bits::RF | bits::VM))?,
        Code::Popfq if x.privilege_level() == 0 => {
            let value = pop(x)?;
            x.registers.rflags = value & POPPED | ALWAYS;
        }
        Code::Leaveq => {
            x.registers.set(RSP, x.registers.get(RBP));
            let value = pop(x)?;
            x.registers.set(RBP, value);
        }
        Code::Jrcxz_rel8_64 => {
            if x.registers.get(RCX) == 0 {
                jump(x, x.instruction.near_branch64())?;
            }
        }
        _ if x.instruction.is_jcc_short_or_near() && x.system.is_64_bit() => {
            if holds(x.instruction.condition_code(), x.registers.rflags) {
                jump(x, x.instruction.near_branch64())?;
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn jump(x: &mut Execution<'_>, target: u64) -> Step {
    if !is_canonical(&x.system, target) {
        return Err(Stop::Unknown);
    }
    x.branch = Some(target);
    Ok(())
}

fn call(x: &mut Execution<'_>, target: u64) -> Step {
    let behind = x.registers.rip.wrapping_add(length(x.instruction.len()));
    jump(x, target)?;
    push(x, behind)
}

fn push(x: &mut Execution<'_>, value: u64) -> Step {
    let top = x.registers.get(RSP).wrapping_sub(length(WORD_BYTES));
    let name = SegmentName::Ss;
    let linear = linear_address(&x.system, name, top, WORD_BYTES, Access::Write)?;
    x.store(linear, &value.to_le_bytes())?;
    x.registers.set(RSP, top);
    Ok(())
}

fn pop(x: &mut Execution<'_>) -> Step<u64> {
    let top = x.registers.get(RSP);
    let name = SegmentName::Ss;
    let linear = linear_address(&x.system, name, top, WORD_BYTES, Access::Read)?;
    let mut data = [0; WORD_BYTES];
    x.load(linear, &mut data)?;
    x.registers.set(RSP, top.wrapping_add(length(WORD_BYTES)));
    Ok(u64::from_le_bytes(data))
}
