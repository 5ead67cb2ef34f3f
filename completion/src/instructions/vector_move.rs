//! Loads and stores of vector registers (Intel SDM volume 2; alignment in volume 2, tables 2-17 to 2-29).
//!
//! What moves bytes and changes none: whole registers, halves, single elements, non-temporal forms, in
//! legacy, VEX and EVEX encoding, the last with masks.

use iced_x86::{EncodingKind, Mnemonic as M, OpKind, Register};

use super::vector_state::{VECTOR_BYTES, numbered};
use crate::exception::{Exception, Step, Stop};
use crate::execution::Execution;
use crate::paging::Access;
use crate::word::{at, from_le, put};

/// Which bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// All of the register; in memory at any address.
    Whole,
    /// All of the register; in memory aligned to its width.
    Aligned,
    /// The first element of so many bytes. From memory it clears the rest of 16 bytes; between registers
    /// it leaves or merges them.
    Scalar(usize),
    /// As a scalar, but the rest of 16 bytes is cleared from wherever it comes.
    ZeroExtended(usize),
    /// The first 8 bytes; the other 8 stay.
    Low,
    /// The second 8 bytes; the others stay.
    High,
}

const fn shape(mnemonic: M) -> Option<Shape> {
    Some(match mnemonic {
        M::Movups
        | M::Movupd
        | M::Movdqu
        | M::Lddqu
        | M::Vmovups
        | M::Vmovupd
        | M::Vmovdqu
        | M::Vlddqu
        | M::Vmovdqu8
        | M::Vmovdqu16
        | M::Vmovdqu32
        | M::Vmovdqu64 => Shape::Whole,
        M::Movaps
        | M::Movapd
        | M::Movdqa
        | M::Movntps
        | M::Movntpd
        | M::Movntdq
        | M::Movntdqa
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovdqa32
        | M::Vmovdqa64
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdq
        | M::Vmovntdqa => Shape::Aligned,
        M::Movss | M::Vmovss => Shape::Scalar(4),
        M::Movsd | M::Vmovsd => Shape::Scalar(8),
        M::Movd | M::Vmovd => Shape::ZeroExtended(4),
        M::Movq | M::Vmovq => Shape::ZeroExtended(8),
        M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd => Shape::Low,
        M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd => Shape::High,
        _ => return None,
    })
}

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let mnemonic = x.instruction.mnemonic();
    match mnemonic {
        M::Vzeroupper | M::Vzeroall => {
            clear(x, mnemonic == M::Vzeroall)?;
            return Ok(true);
        }
        _ => {}
    }
    let Some(shape) = shape(mnemonic) else {
        return Ok(false);
    };
    x.require_vectors()?;
    match x.instruction.op_count() {
        2 if x.is_memory(0) => store(x, shape),
        2 if x.is_memory(1) => load(x, shape),
        2 => between(x, shape),
        // The second operand gives what does not move.
        3 => merge(x, shape),
        _ => Err(Stop::Unknown),
    }?;
    Ok(true)
}

/// VZEROUPPER and VZEROALL.
fn clear(x: &mut Execution<'_>, all: bool) -> Step {
    x.require_vectors()?;
    let count = if x.system.is_64_bit() { 16 } else { 8 };
    for number in 0..count {
        let register = numbered(Register::XMM0, number)?;
        let mut value = x.vector(register)?;
        if all {
            value = [0; VECTOR_BYTES];
        }
        let widest = x.widest(register)?;
        x.set_vector(widest, &value)?;
    }
    Ok(())
}

/// How many bytes of memory the shape moves, with the register `register`.
fn memory_bytes(shape: Shape, register: Register) -> usize {
    match shape {
        Shape::Whole | Shape::Aligned => register.size(),
        Shape::Scalar(bytes) | Shape::ZeroExtended(bytes) => bytes,
        Shape::Low | Shape::High => 8,
    }
}

/// The linear address of memory operand `number`: #GP where it must be aligned and is not.
fn address(
    x: &Execution<'_>,
    number: u32,
    bytes: usize,
    shape: Shape,
    access: Access,
) -> Step<u64> {
    let linear = x.linear(number, bytes, access)?;
    if shape == Shape::Aligned && !linear.is_multiple_of(crate::word::length(bytes)) {
        return Err(Exception::general_protection().into());
    }
    Ok(linear)
}

/// The alignment of all of an operand, elements that a mask leaves out included.
fn check_alignment(
    x: &Execution<'_>,
    number: u32,
    bytes: usize,
    shape: Shape,
    access: Access,
) -> Step {
    match shape {
        Shape::Aligned => address(x, number, bytes, shape, access).map(|_| ()),
        _ => Ok(()),
    }
}

/// Sets `register` to `value`: the bits above are cleared for VEX and EVEX, and kept for legacy encoding. A
/// mask holds for whole registers by element, and for a scalar by its first bit.
fn assign(
    x: &mut Execution<'_>,
    register: Register,
    value: &[u8; VECTOR_BYTES],
    shape: Shape,
) -> Step {
    let bytes = x.instruction.memory_size().element_size();
    let mut value = *value;
    if let Shape::Scalar(bytes) = shape
        && x.instruction.op_mask() != Register::None
        && x.mask()? & 1 == 0
    {
        let before = x.vector(register)?;
        let kept = match x.instruction.zeroing_masking() {
            true => [0; 8],
            false => at(&before, 0),
        };
        put(&mut value, 0, kept.get(..bytes).unwrap_or_default());
    }
    match (shape, x.instruction.encoding()) {
        (_, EncodingKind::Legacy) => x.set_vector(register, &value),
        (Shape::Whole | Shape::Aligned, _) => x.finish_vector(register, &value, bytes),
        _ => {
            let widest = x.widest(register)?;
            x.set_vector(widest, &value)
        }
    }
}

/// The elements that the instruction's mask has, for the memory of a shape.
fn mask(x: &mut Execution<'_>, shape: Shape) -> Step<u64> {
    match (x.instruction.op_mask(), shape) {
        (Register::None, _) => Ok(u64::MAX),
        (_, Shape::Scalar(_)) => Ok(x.mask()? & 1),
        _ => x.mask(),
    }
}

fn store(x: &mut Execution<'_>, shape: Shape) -> Step {
    let register = x.instruction.op_register(1);
    if register.is_gpr() {
        return Err(Stop::Unknown);
    }
    let bytes = memory_bytes(shape, register);
    let value = x.vector(register)?;
    let from = if shape == Shape::High { 8 } else { 0 };
    let data: [u8; VECTOR_BYTES] = at(&value, from);
    if x.instruction.op_mask() != Register::None {
        let element_bytes = x.instruction.memory_size().element_size();
        check_alignment(x, 0, bytes, shape, Access::Write)?;
        let mask = mask(x, shape)?;
        return x.store_masked(0, mask, element_bytes, bytes, &data);
    }
    let linear = address(x, 0, bytes, shape, Access::Write)?;
    x.store(linear, data.get(..bytes).unwrap_or_default())
}

/// Reads `bytes` of memory operand `number`.
fn load_bytes(
    x: &mut Execution<'_>,
    number: u32,
    bytes: usize,
    shape: Shape,
) -> Step<[u8; VECTOR_BYTES]> {
    let mut value = [0; VECTOR_BYTES];
    if x.instruction.op_mask() != Register::None {
        let element_bytes = x.instruction.memory_size().element_size();
        check_alignment(x, number, bytes, shape, Access::Read)?;
        let mask = mask(x, shape)?;
        x.load_masked(number, mask, element_bytes, bytes, &mut value)?;
        return Ok(value);
    }
    let linear = address(x, number, bytes, shape, Access::Read)?;
    let data = value.get_mut(..bytes).ok_or(Stop::Unknown)?;
    x.load(linear, data)?;
    Ok(value)
}

fn load(x: &mut Execution<'_>, shape: Shape) -> Step {
    let register = x.instruction.op_register(0);
    if register.is_gpr() {
        return Err(Stop::Unknown);
    }
    let bytes = memory_bytes(shape, register);
    let loaded = load_bytes(x, 1, bytes, shape)?;
    let value = match shape {
        Shape::Low | Shape::High => {
            let mut value = x.vector(register)?;
            let offset = if shape == Shape::High { 8 } else { 0 };
            put(&mut value, offset, loaded.get(..8).unwrap_or_default());
            value
        }
        _ => loaded,
    };
    assign(x, register, &value, shape)
}

/// Register to register with two operands.
fn between(x: &mut Execution<'_>, shape: Shape) -> Step {
    let [to, from] = [0, 1].map(|number| x.instruction.op_register(number));
    if to.is_gpr() {
        let value = x.vector(from)?;
        x.set_register(to, from_le(value.get(..to.size()).unwrap_or_default()));
        return Ok(());
    }
    let source = match from.is_gpr() {
        true => {
            let mut value = [0; VECTOR_BYTES];
            put(&mut value, 0, &x.register(from).to_le_bytes());
            value
        }
        false => x.vector(from)?,
    };
    let mut value = match shape {
        Shape::Scalar(_) => x.vector(to)?,
        _ => [0; VECTOR_BYTES],
    };
    let bytes = match shape {
        Shape::Scalar(bytes) | Shape::ZeroExtended(bytes) => bytes,
        Shape::Whole | Shape::Aligned => to.size(),
        // MOVHLPS and MOVLHPS have names of their own.
        Shape::Low | Shape::High => return Err(Stop::Unknown),
    };
    put(&mut value, 0, source.get(..bytes).unwrap_or_default());
    assign(x, to, &value, shape)
}

/// VEX and EVEX forms with three operands.
fn merge(x: &mut Execution<'_>, shape: Shape) -> Step {
    let [to, rest] = [0, 1].map(|number| x.instruction.op_register(number));
    let (offset, bytes) = match shape {
        Shape::Scalar(bytes) => (0, bytes),
        Shape::Low => (0, 8),
        Shape::High => (8, 8),
        _ => return Err(Stop::Unknown),
    };
    let mut value = x.vector(rest)?;
    let source = match x.instruction.op_kind(2) {
        OpKind::Register => {
            let register = x.instruction.op_register(2);
            x.vector(register)?
        }
        _ => load_bytes(x, 2, bytes, shape)?,
    };
    put(&mut value, offset, source.get(..bytes).unwrap_or_default());
    assign(x, to, &value, shape)
}

#[cfg(test)]
mod tests;
