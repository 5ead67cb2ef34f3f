//! Arithmetic on whole numbers in vector registers (Intel SDM volume 2), in legacy and VEX encoding.
//!
//! Kernels use it at ring 0 for hashes, checksums and RAID. Each 16 bytes of a register are worked on by
//! themselves, as these instructions do.

use iced_x86::{EncodingKind, Mnemonic as M, OpKind, Register};

use super::vector_state::VECTOR_BYTES;
use crate::exception::{Exception, Step, Stop};
use crate::execution::Execution;
use crate::paging::Access;
use crate::word::{at, from_le, index, is_negative, length, low_8, low_32, mask, put};

/// The part of a register that these instructions see at a time.
type Lane = [u8; 16];

/// An operation on two elements.
type Elements = fn(u64, u64, usize) -> u64;

/// What an instruction does with a lane.
#[derive(Debug, Clone, Copy)]
enum Operation {
    /// On pairs of elements of so many bytes.
    Pairs(usize, Elements),
    /// Shifts elements of so many bytes, by a constant or by the low quad word of the other operand.
    Shift(usize, Elements),
    /// Shifts the lane by bytes.
    ShiftBytes { left: bool },
    /// PSHUFB.
    ShuffleBytes,
    /// PSHUFD, PSHUFLW, PSHUFHW: from which byte on, and elements of so many bytes.
    Shuffle { start: usize, bytes: usize },
    /// PALIGNR.
    Align,
    /// Interleaves the elements of so many bytes of the low or high halves.
    Unpack { high: bool, bytes: usize },
    /// Multiplies the even double words.
    MultiplyEven,
    /// SHUFPS.
    ShuffleTwo,
}

const fn truth(condition: bool) -> u64 {
    if condition { u64::MAX } else { 0 }
}

/// An element as a signed number.
const fn signed(value: u64, bytes: usize) -> i64 {
    let value = value & mask(bytes);
    if is_negative(value, bytes) {
        (value | !mask(bytes)).cast_signed()
    } else {
        value.cast_signed()
    }
}

fn shift_left(value: u64, count: u64, bytes: usize) -> u64 {
    match count < u64::from(crate::word::bits(bytes)) {
        true => value.wrapping_shl(low_32(count)),
        false => 0,
    }
}

fn shift_right(value: u64, count: u64, bytes: usize) -> u64 {
    match count < u64::from(crate::word::bits(bytes)) {
        true => value.wrapping_shr(low_32(count)),
        false => 0,
    }
}

fn shift_right_signed(value: u64, count: u64, bytes: usize) -> u64 {
    let count = low_32(count.min(63));
    signed(value, bytes).wrapping_shr(count).cast_unsigned()
}

fn operation(mnemonic: M) -> Option<Operation> {
    use Operation::{Align, MultiplyEven, Pairs, Shift, ShiftBytes, Shuffle, ShuffleBytes};
    use Operation::{ShuffleTwo, Unpack};
    let add: Elements = |a, b, _| a.wrapping_add(b);
    let subtract: Elements = |a, b, _| a.wrapping_sub(b);
    let equal: Elements = |a, b, _| truth(a == b);
    let greater: Elements = |a, b, bytes| truth(signed(a, bytes) > signed(b, bytes));
    let multiply: Elements = |a, b, _| a.wrapping_mul(b);
    Some(match mnemonic {
        M::Pxor | M::Vpxor | M::Xorps | M::Vxorps | M::Xorpd | M::Vxorpd => {
            Pairs(8, |a, b, _| a ^ b)
        }
        M::Por | M::Vpor | M::Orps | M::Vorps | M::Orpd | M::Vorpd => Pairs(8, |a, b, _| a | b),
        M::Pand | M::Vpand | M::Andps | M::Vandps | M::Andpd | M::Vandpd => {
            Pairs(8, |a, b, _| a & b)
        }
        M::Pandn | M::Vpandn | M::Andnps | M::Vandnps | M::Andnpd | M::Vandnpd => {
            Pairs(8, |a, b, _| !a & b)
        }
        M::Paddb | M::Vpaddb => Pairs(1, add),
        M::Paddw | M::Vpaddw => Pairs(2, add),
        M::Paddd | M::Vpaddd => Pairs(4, add),
        M::Paddq | M::Vpaddq => Pairs(8, add),
        M::Psubb | M::Vpsubb => Pairs(1, subtract),
        M::Psubw | M::Vpsubw => Pairs(2, subtract),
        M::Psubd | M::Vpsubd => Pairs(4, subtract),
        M::Psubq | M::Vpsubq => Pairs(8, subtract),
        M::Pcmpeqb | M::Vpcmpeqb => Pairs(1, equal),
        M::Pcmpeqw | M::Vpcmpeqw => Pairs(2, equal),
        M::Pcmpeqd | M::Vpcmpeqd => Pairs(4, equal),
        M::Pcmpeqq | M::Vpcmpeqq => Pairs(8, equal),
        M::Pcmpgtb | M::Vpcmpgtb => Pairs(1, greater),
        M::Pcmpgtw | M::Vpcmpgtw => Pairs(2, greater),
        M::Pcmpgtd | M::Vpcmpgtd => Pairs(4, greater),
        M::Pcmpgtq | M::Vpcmpgtq => Pairs(8, greater),
        M::Pmullw | M::Vpmullw => Pairs(2, multiply),
        M::Pmulld | M::Vpmulld => Pairs(4, multiply),
        M::Pminub | M::Vpminub => Pairs(1, |a, b, _| a.min(b)),
        M::Pmaxub | M::Vpmaxub => Pairs(1, |a, b, _| a.max(b)),
        M::Pmuludq | M::Vpmuludq => MultiplyEven,
        M::Psllw | M::Vpsllw => Shift(2, shift_left),
        M::Pslld | M::Vpslld => Shift(4, shift_left),
        M::Psllq | M::Vpsllq => Shift(8, shift_left),
        M::Psrlw | M::Vpsrlw => Shift(2, shift_right),
        M::Psrld | M::Vpsrld => Shift(4, shift_right),
        M::Psrlq | M::Vpsrlq => Shift(8, shift_right),
        M::Psraw | M::Vpsraw => Shift(2, shift_right_signed),
        M::Psrad | M::Vpsrad => Shift(4, shift_right_signed),
        M::Pslldq | M::Vpslldq => ShiftBytes { left: true },
        M::Psrldq | M::Vpsrldq => ShiftBytes { left: false },
        M::Pshufb | M::Vpshufb => ShuffleBytes,
        M::Pshufd | M::Vpshufd => Shuffle { start: 0, bytes: 4 },
        M::Pshuflw | M::Vpshuflw => Shuffle { start: 0, bytes: 2 },
        M::Pshufhw | M::Vpshufhw => Shuffle { start: 8, bytes: 2 },
        M::Shufps | M::Vshufps => ShuffleTwo,
        M::Palignr | M::Vpalignr => Align,
        M::Punpcklbw | M::Vpunpcklbw => Unpack {
            high: false,
            bytes: 1,
        },
        M::Punpcklwd | M::Vpunpcklwd => Unpack {
            high: false,
            bytes: 2,
        },
        M::Punpckldq | M::Vpunpckldq => Unpack {
            high: false,
            bytes: 4,
        },
        M::Punpcklqdq | M::Vpunpcklqdq => Unpack {
            high: false,
            bytes: 8,
        },
        M::Punpckhbw | M::Vpunpckhbw => Unpack {
            high: true,
            bytes: 1,
        },
        M::Punpckhwd | M::Vpunpckhwd => Unpack {
            high: true,
            bytes: 2,
        },
        M::Punpckhdq | M::Vpunpckhdq => Unpack {
            high: true,
            bytes: 4,
        },
        M::Punpckhqdq | M::Vpunpckhqdq => Unpack {
            high: true,
            bytes: 8,
        },
        _ => return None,
    })
}

pub fn execute(x: &mut Execution<'_>) -> Step {
    let Some(operation) = operation(x.instruction.mnemonic()) else {
        return Err(Stop::Unknown);
    };
    let to = x.instruction.op_register(0);
    let legacy = x.instruction.encoding() == EncodingKind::Legacy;
    if x.instruction.encoding() == EncodingKind::EVEX || to.is_mm() {
        return Err(Stop::Unknown);
    }
    x.require_vectors()?;
    // With a legacy encoding the destination is the first source; PSHUFD and its kind have one source only.
    let single = matches!(operation, Operation::Shuffle { .. });
    let first: u32 = if legacy || single { 0 } else { 1 };
    let second = if single { 1 } else { first.wrapping_add(1) };
    let is_shift = matches!(
        operation,
        Operation::Shift(..) | Operation::ShiftBytes { .. }
    );
    let constant = x
        .instruction
        .try_immediate(x.instruction.op_count().wrapping_sub(1))
        .unwrap_or(0);
    let a = x.vector(x.instruction.op_register(first))?;
    let b = match x.instruction.op_kind(second) {
        OpKind::Register => x.vector(x.instruction.op_register(second))?,
        OpKind::Memory => {
            // The count of a shift has 16 bytes whatever is shifted.
            let bytes = if is_shift { 16 } else { to.size() };
            let linear = x.linear(second, bytes, Access::Read)?;
            if legacy && !linear.is_multiple_of(length(bytes)) {
                return Err(Exception::general_protection().into());
            }
            let mut value = [0; VECTOR_BYTES];
            x.load(linear, value.get_mut(..bytes).unwrap_or_default())?;
            value
        }
        _ => {
            let mut value = [0; VECTOR_BYTES];
            put(&mut value, 0, &constant.to_le_bytes());
            value
        }
    };
    let mut result = [0; VECTOR_BYTES];
    for start in (0..to.size()).step_by(16) {
        // All lanes are shifted by the same.
        let other = if is_shift { at(&b, 0) } else { at(&b, start) };
        let lane = work(operation, at(&a, start), other, constant);
        put(&mut result, start, &lane);
    }
    let register: Register = if legacy { to } else { x.widest(to)? };
    x.set_vector(register, &result)
}

/// Element `number` of so many bytes.
fn element(lane: &[u8], number: usize, bytes: usize) -> u64 {
    let start = number.wrapping_mul(bytes);
    from_le(
        lane.get(start..start.saturating_add(bytes))
            .unwrap_or_default(),
    )
}

fn set_element(lane: &mut Lane, number: usize, bytes: usize, value: u64) {
    let value = value.to_le_bytes();
    let value = value.get(..bytes).unwrap_or_default();
    put(lane, number.wrapping_mul(bytes), value);
}

/// The result of one lane.
fn work(operation: Operation, a: Lane, b: Lane, constant: u64) -> Lane {
    let mut result = [0; 16];
    match operation {
        Operation::Pairs(bytes, combine) => {
            for number in 0..16usize.checked_div(bytes).unwrap_or(0) {
                let value = combine(
                    element(&a, number, bytes),
                    element(&b, number, bytes),
                    bytes,
                );
                set_element(&mut result, number, bytes, value);
            }
        }
        Operation::Shift(bytes, shift) => {
            let count = element(&b, 0, 8);
            for number in 0..16usize.checked_div(bytes).unwrap_or(0) {
                let value = shift(element(&a, number, bytes), count, bytes);
                set_element(&mut result, number, bytes, value);
            }
        }
        Operation::ShiftBytes { left } => {
            let count = index(constant.min(16));
            match left {
                true => put(&mut result, count, &a),
                false => result = at(&a, count),
            }
        }
        Operation::ShuffleBytes => {
            for (to, selector) in result.iter_mut().zip(b) {
                if selector & 0x80 == 0 {
                    *to = low_8(element(&a, usize::from(selector & 15), 1));
                }
            }
        }
        Operation::Shuffle { start, bytes } => {
            // What is not shuffled is the source's, which is the second operand.
            result = b;
            let from: Lane = at(&b, start);
            let selectors = [constant, constant >> 2, constant >> 4, constant >> 6];
            for (number, selector) in selectors.into_iter().enumerate() {
                let value = element(&from, index(selector & 3), bytes).to_le_bytes();
                let to = start.saturating_add(number.wrapping_mul(bytes));
                put(&mut result, to, value.get(..bytes).unwrap_or_default());
            }
        }
        Operation::ShuffleTwo => {
            let sources = [(&a, 0u32), (&a, 2), (&b, 4), (&b, 6)];
            for (number, (from, shift)) in sources.into_iter().enumerate() {
                let selector = index(constant.wrapping_shr(shift) & 3);
                set_element(&mut result, number, 4, element(from, selector, 4));
            }
        }
        Operation::Align => {
            let mut both = [0; 32];
            put(&mut both, 0, &b);
            put(&mut both, 16, &a);
            result = at(&both, index(constant.min(32)));
        }
        Operation::Unpack { high, bytes } => {
            let half = if high {
                8usize.checked_div(bytes).unwrap_or(0)
            } else {
                0
            };
            for number in 0..8usize.checked_div(bytes).unwrap_or(0) {
                let from = half.saturating_add(number);
                let to = number.wrapping_mul(2);
                set_element(&mut result, to, bytes, element(&a, from, bytes));
                set_element(
                    &mut result,
                    to.wrapping_add(1),
                    bytes,
                    element(&b, from, bytes),
                );
            }
        }
        Operation::MultiplyEven => {
            for number in [0, 2] {
                let product = element(&a, number, 4).wrapping_mul(element(&b, number, 4));
                set_element(&mut result, number >> 1, 8, product);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests;
