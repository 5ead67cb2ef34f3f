//! Arithmetic on whole numbers in vector registers (Intel SDM volume 2), in legacy, VEX and EVEX encoding,
//! and in MMX registers.
//!
//! Kernels use it at ring 0 for hashes, checksums, ciphers and RAID. Each 16 bytes of a register are worked
//! on by themselves, as these instructions do; [`super::vector_table`] says how.

use iced_x86::{EncodingKind, Mnemonic as M, Register};

use super::lane::{self, Lane, element, set_element};
use super::vector_state::VECTOR_BYTES;
use super::vector_table::{Operation, operation};
use crate::exception::{Step, Stop};
use crate::execution::Execution;
use crate::word::{at, mask, put};

/// Where the parts of an instruction are.
struct Sources {
    first: u32,
    second: u32,
}

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let mnemonic = x.instruction.mnemonic();
    let Some(operation) = operation(mnemonic) else {
        return compare(x);
    };
    let to = x.instruction.op_register(0);
    let in_mmx =
        (0..x.instruction.op_count()).any(|number| x.instruction.op_register(number).is_mm());
    if in_mmx && !is_for_mmx(operation) {
        return Err(Stop::Unknown);
    }
    match in_mmx {
        true => x.require_mmx()?,
        false => x.require_vectors()?,
    }
    let legacy = x.instruction.encoding() == EncodingKind::Legacy;
    // With a legacy encoding the destination is the first source, unless there is but one.
    let single = matches!(operation, Operation::Single(..) | Operation::Lane(_));
    let first = if legacy && !single { 0 } else { 1 };
    let sources = Sources {
        first,
        second: if single { first } else { first.wrapping_add(1) },
    };
    let constant = x.constant();
    let element_bytes = element_bytes(x, mnemonic, operation);
    let suppressed = match operation {
        Operation::Pairs(..) | Operation::Single(..) | Operation::Three(_) => Some(element_bytes),
        _ => None,
    };
    let a = x.vector_source(sources.first, suppressed)?;
    let b = match sources.second == sources.first {
        true => a,
        false => match x.instruction.try_immediate(sources.second) {
            // Only shifts have one here: all others have it behind their sources.
            Ok(count) => {
                let mut value = [0; VECTOR_BYTES];
                put(&mut value, 0, &(count & 0xff).to_le_bytes());
                value
            }
            Err(_) => x.vector_source(sources.second, suppressed)?,
        },
    };
    let c = match operation {
        Operation::Blend(_) | Operation::Three(_) => third(x, mnemonic)?,
        _ => [0; VECTOR_BYTES],
    };
    let bytes = if to.is_k() {
        x.operand_bytes(1)
    } else {
        to.size()
    };
    let mut result = [0; VECTOR_BYTES];
    for start in (0..bytes).step_by(16) {
        let other = match operation {
            // All lanes are shifted by the same.
            Operation::Shift(..) => at(&b, 0),
            _ => at(&b, start),
        };
        let (a, c) = (at(&a, start), at(&c, start));
        let lane = work(
            operation,
            a,
            other,
            c,
            constant_of(mnemonic, constant, start),
            in_mmx,
        );
        put(&mut result, start, &lane);
    }
    if to.is_k() {
        x.set_opmask_from(to, &result, element_bytes, bytes)?;
    } else {
        x.finish_vector(to, &result, element_bytes)?;
    }
    Ok(true)
}

/// Bytes of the elements that a mask chooses from.
fn element_bytes(x: &Execution<'_>, mnemonic: M, operation: Operation) -> usize {
    match (mnemonic, operation) {
        // Sources of wider elements than results.
        (M::Vpacksswb | M::Vpackuswb, _) => 1,
        (M::Vpackssdw | M::Vpackusdw, _) => 2,
        (M::Vpmuludq | M::Vpmuldq, _) => 8,
        // Logic has names for both of its widths.
        (_, Operation::Pairs(8, _) | Operation::Three(_) | Operation::Lanes(_)) => {
            match x.instruction.memory_size().element_size() {
                0 => 8,
                bytes => bytes,
            }
        }
        (
            _,
            Operation::Pairs(bytes, _)
            | Operation::Shift(bytes, _)
            | Operation::Single(bytes, _)
            | Operation::Blend(bytes)
            | Operation::Unpack { bytes, .. },
        ) => bytes,
        (_, Operation::Lane(_)) => x.instruction.memory_size().element_size(),
    }
}

/// The constant as the lane at byte `start` sees it.
fn constant_of(mnemonic: M, constant: u64, start: usize) -> u64 {
    match mnemonic {
        // Two bits a lane, one after the other.
        M::Vshufpd => constant.wrapping_shr(u32::try_from(start >> 3).unwrap_or(0)),
        _ => constant,
    }
}

/// The source that is neither first nor second: a named register, XMM0, or the destination of VPTERNLOG.
fn third(x: &mut Execution<'_>, mnemonic: M) -> Step<[u8; VECTOR_BYTES]> {
    let register = match mnemonic {
        M::Vpternlogd | M::Vpternlogq => x.instruction.op_register(0),
        M::Vpblendvb | M::Vblendvps | M::Vblendvpd => x.instruction.op_register(3),
        _ => Register::XMM0,
    };
    x.vector(register)
}

/// Whether an operation on 16 bytes gives what it gives on 8, where both halves of a lane are the same.
const fn is_for_mmx(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Pairs(..)
            | Operation::Shift(..)
            | Operation::Single(..)
            | Operation::Unpack { .. }
            | Operation::Lane(_)
    )
}

/// The result of one lane.
fn work(operation: Operation, a: Lane, b: Lane, c: Lane, constant: u64, in_mmx: bool) -> Lane {
    match operation {
        Operation::Pairs(bytes, combine) => lane::each(bytes, |number| {
            combine(
                element(&a, number, bytes),
                element(&b, number, bytes),
                bytes,
            )
        }),
        Operation::Shift(bytes, shift) => {
            let count = element(&b, 0, 8);
            lane::each(bytes, |number| {
                shift(element(&a, number, bytes), count, bytes)
            })
        }
        Operation::Single(bytes, change) => {
            lane::each(bytes, |number| change(element(&a, number, bytes), bytes))
        }
        Operation::Lanes(combine) => combine(a, b, constant),
        Operation::Lane(change) => change(a, constant),
        Operation::Three(combine) => combine(a, b, c, constant),
        Operation::Blend(bytes) => lane::blend(a, b, c, bytes),
        Operation::Unpack { high, bytes } => {
            let result = lane::unpack(a, b, false, bytes);
            match (high, in_mmx) {
                (true, false) => lane::unpack(a, b, true, bytes),
                // All of the 8 bytes are interleaved into 16, of which these are the high ones.
                (true, true) => at(&result, 8),
                (false, _) => result,
            }
        }
    }
}

/// VPCMP and VPCMPU with a predicate, into an opmask.
fn compare(x: &mut Execution<'_>) -> Step<bool> {
    let (bytes, has_sign) = match x.instruction.mnemonic() {
        M::Vpcmpb => (1, true),
        M::Vpcmpw => (2, true),
        M::Vpcmpd => (4, true),
        M::Vpcmpq => (8, true),
        M::Vpcmpub => (1, false),
        M::Vpcmpuw => (2, false),
        M::Vpcmpud => (4, false),
        M::Vpcmpuq => (8, false),
        _ => return Ok(false),
    };
    x.require_vectors()?;
    let width = x.operand_bytes(1);
    let predicate = x.constant() & 7;
    let (a, b) = (
        x.vector_source(1, Some(bytes))?,
        x.vector_source(2, Some(bytes))?,
    );
    let mut result = [0; VECTOR_BYTES];
    for number in 0..width.checked_div(bytes).unwrap_or(0) {
        let [a, b] = [&a, &b].map(|source| element(source, number, bytes));
        let order = match has_sign {
            true => super::integer::signed(a, bytes).cmp(&super::integer::signed(b, bytes)),
            false => a.cmp(&b),
        };
        let holds = match predicate & 3 {
            0 => order.is_eq(),
            1 => order.is_lt(),
            2 => order.is_le(),
            _ => false,
        };
        let holds = holds != (predicate & 4 != 0);
        set_element(
            &mut result,
            number,
            bytes,
            if holds { mask(bytes) } else { 0 },
        );
    }
    let to = x.instruction.op_register(0);
    x.set_opmask_from(to, &result, bytes, width)?;
    Ok(true)
}

impl Execution<'_> {
    /// The instruction's constant; 0 without one.
    pub fn constant(&self) -> u64 {
        self.instruction
            .try_immediate(self.instruction.op_count().wrapping_sub(1))
            .map_or(0, |constant| constant & 0xff)
    }
}

#[cfg(test)]
mod tests;
