//! MOVS, STOS, LODS, SCAS and CMPS, repeated and not, forward in 64-bit code (Intel SDM volume 2).
//!
//! In runs of instructions alone. A repeated one is interrupted after some elements, as on a processor: the
//! registers say how far it came, and it begins again there.

use iced_x86::{Code, OpKind, Register};

use crate::cpu::{SegmentName, bits};
use crate::exception::{Step, Stop};
use crate::execution::Execution;
use crate::flags::{STATUS, of_difference};
use crate::paging::Access;
use crate::segmentation::linear_address;
use crate::word::{from_le, length};

const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;
/// Elements before a repeated instruction is interrupted.
const ELEMENTS_MAX: u32 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Move,
    Store,
    Load,
    Scan,
    Compare,
}

const fn kind(code: Code) -> Option<(Kind, usize)> {
    Some(match code {
        Code::Movsb_m8_m8 => (Kind::Move, 1),
        Code::Movsw_m16_m16 => (Kind::Move, 2),
        Code::Movsd_m32_m32 => (Kind::Move, 4),
        Code::Movsq_m64_m64 => (Kind::Move, 8),
        Code::Stosb_m8_AL => (Kind::Store, 1),
        Code::Stosw_m16_AX => (Kind::Store, 2),
        Code::Stosd_m32_EAX => (Kind::Store, 4),
        Code::Stosq_m64_RAX => (Kind::Store, 8),
        Code::Lodsb_AL_m8 => (Kind::Load, 1),
        Code::Lodsw_AX_m16 => (Kind::Load, 2),
        Code::Lodsd_EAX_m32 => (Kind::Load, 4),
        Code::Lodsq_RAX_m64 => (Kind::Load, 8),
        Code::Scasb_AL_m8 => (Kind::Scan, 1),
        Code::Scasw_AX_m16 => (Kind::Scan, 2),
        Code::Scasd_EAX_m32 => (Kind::Scan, 4),
        Code::Scasq_RAX_m64 => (Kind::Scan, 8),
        Code::Cmpsb_m8_m8 => (Kind::Compare, 1),
        Code::Cmpsw_m16_m16 => (Kind::Compare, 2),
        Code::Cmpsd_m32_m32 => (Kind::Compare, 4),
        Code::Cmpsq_m64_m64 => (Kind::Compare, 8),
        _ => return None,
    })
}

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let Some((kind, bytes)) = kind(x.instruction.code()) else {
        return Ok(false);
    };
    let has_wide_addresses = (0..x.instruction.op_count()).all(|number| {
        matches!(
            x.instruction.op_kind(number),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI | OpKind::Register
        )
    });
    if !has_wide_addresses || !x.system.is_64_bit() || x.has_flags(bits::DF) {
        return Err(Stop::Unknown);
    }
    let repeats = x.instruction.has_rep_prefix() || x.instruction.has_repne_prefix();
    if !repeats {
        element(x, kind, bytes)?;
        return Ok(true);
    }
    let compares = matches!(kind, Kind::Scan | Kind::Compare);
    for done in 0..ELEMENTS_MAX {
        let left = x.registers.get(RCX);
        if left == 0 {
            return Ok(true);
        }
        let before = x.registers;
        match element(x, kind, bytes) {
            Ok(()) => x.registers.set(RCX, left.wrapping_sub(1)),
            // The element that cannot be accessed is the first of the next try.
            Err(_) if done > 0 => {
                x.registers = before;
                break;
            }
            Err(stop) => return Err(stop),
        }
        if compares && x.has_flags(bits::ZF) == x.instruction.has_repne_prefix() {
            return Ok(true);
        }
    }
    if x.registers.get(RCX) != 0 {
        x.branch = Some(x.registers.rip);
    }
    Ok(true)
}

/// One element.
fn element(x: &mut Execution<'_>, kind: Kind, bytes: usize) -> Step {
    let accumulator = match bytes {
        1 => Register::AL,
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    match kind {
        Kind::Move => {
            let value = source(x, bytes)?;
            store(x, value, bytes)?;
        }
        Kind::Store => {
            let value = x.register(accumulator);
            store(x, value, bytes)?;
        }
        Kind::Load => {
            let value = source(x, bytes)?;
            x.set_register(accumulator, value);
        }
        Kind::Scan => {
            let (first, second) = (x.register(accumulator), destination(x, bytes)?);
            x.set_flags(STATUS, of_difference(first, second, false, bytes));
        }
        Kind::Compare => {
            let (first, second) = (source(x, bytes)?, destination(x, bytes)?);
            x.set_flags(STATUS, of_difference(first, second, false, bytes));
        }
    }
    Ok(())
}

/// The element at RSI, in DS or the segment of a prefix.
fn source(x: &mut Execution<'_>, bytes: usize) -> Step<u64> {
    let name = match x.instruction.segment_prefix() {
        Register::FS => SegmentName::Fs,
        Register::GS => SegmentName::Gs,
        _ => SegmentName::Ds,
    };
    load(x, name, RSI, bytes)
}

/// The element at RDI, in ES.
fn destination(x: &mut Execution<'_>, bytes: usize) -> Step<u64> {
    load(x, SegmentName::Es, RDI, bytes)
}

fn load(x: &mut Execution<'_>, name: SegmentName, pointer: usize, bytes: usize) -> Step<u64> {
    let offset = x.registers.get(pointer);
    let linear = linear_address(&x.system, name, offset, bytes, Access::Read)?;
    let mut data = [0; 8];
    let data = data.get_mut(..bytes).ok_or(Stop::Unknown)?;
    x.load(linear, data)?;
    x.registers.set(pointer, offset.wrapping_add(length(bytes)));
    Ok(from_le(data))
}

fn store(x: &mut Execution<'_>, value: u64, bytes: usize) -> Step {
    let offset = x.registers.get(RDI);
    let linear = linear_address(&x.system, SegmentName::Es, offset, bytes, Access::Write)?;
    let data = value.to_le_bytes();
    x.store(linear, data.get(..bytes).ok_or(Stop::Unknown)?)?;
    x.registers.set(RDI, offset.wrapping_add(length(bytes)));
    Ok(())
}
