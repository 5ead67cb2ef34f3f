//! Instructions on opmask registers (Intel SDM volume 2, KADD to KXOR), and between these and vectors.

use iced_x86::{Mnemonic as M, Register};

use super::vector_mask::{low_bits, signs, spread};
use crate::cpu::bits::{CF, ZF};
use crate::exception::Step;
use crate::execution::Execution;
use crate::flags::{STATUS, flag};
use crate::word::{low_32, mask};

/// What an instruction does with one or two masks of so many bits.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Move,
    Pairs(fn(u64, u64) -> u64),
    Shift {
        left: bool,
    },
    /// The second behind the first: KUNPCK, whose operands have half of the bits.
    Join,
    /// KORTEST, KTEST: flags alone.
    Or,
    Test,
}

const fn operation(mnemonic: M) -> Option<(Operation, usize)> {
    use Operation::{Join, Move, Or, Pairs, Shift, Test};
    let add: fn(u64, u64) -> u64 = |a, b| a.wrapping_add(b);
    let and: fn(u64, u64) -> u64 = |a, b| a & b;
    let and_not: fn(u64, u64) -> u64 = |a, b| !a & b;
    let or: fn(u64, u64) -> u64 = |a, b| a | b;
    let equal: fn(u64, u64) -> u64 = |a, b| !(a ^ b);
    let unequal: fn(u64, u64) -> u64 = |a, b| a ^ b;
    let not: fn(u64, u64) -> u64 = |a, _| !a;
    Some(match mnemonic {
        M::Kmovb => (Move, 8),
        M::Kmovw => (Move, 16),
        M::Kmovd => (Move, 32),
        M::Kmovq => (Move, 64),
        M::Kaddb => (Pairs(add), 8),
        M::Kaddw => (Pairs(add), 16),
        M::Kaddd => (Pairs(add), 32),
        M::Kaddq => (Pairs(add), 64),
        M::Kandb => (Pairs(and), 8),
        M::Kandw => (Pairs(and), 16),
        M::Kandd => (Pairs(and), 32),
        M::Kandq => (Pairs(and), 64),
        M::Kandnb => (Pairs(and_not), 8),
        M::Kandnw => (Pairs(and_not), 16),
        M::Kandnd => (Pairs(and_not), 32),
        M::Kandnq => (Pairs(and_not), 64),
        M::Korb => (Pairs(or), 8),
        M::Korw => (Pairs(or), 16),
        M::Kord => (Pairs(or), 32),
        M::Korq => (Pairs(or), 64),
        M::Kxnorb => (Pairs(equal), 8),
        M::Kxnorw => (Pairs(equal), 16),
        M::Kxnord => (Pairs(equal), 32),
        M::Kxnorq => (Pairs(equal), 64),
        M::Kxorb => (Pairs(unequal), 8),
        M::Kxorw => (Pairs(unequal), 16),
        M::Kxord => (Pairs(unequal), 32),
        M::Kxorq => (Pairs(unequal), 64),
        M::Knotb => (Pairs(not), 8),
        M::Knotw => (Pairs(not), 16),
        M::Knotd => (Pairs(not), 32),
        M::Knotq => (Pairs(not), 64),
        M::Kshiftlb => (Shift { left: true }, 8),
        M::Kshiftlw => (Shift { left: true }, 16),
        M::Kshiftld => (Shift { left: true }, 32),
        M::Kshiftlq => (Shift { left: true }, 64),
        M::Kshiftrb => (Shift { left: false }, 8),
        M::Kshiftrw => (Shift { left: false }, 16),
        M::Kshiftrd => (Shift { left: false }, 32),
        M::Kshiftrq => (Shift { left: false }, 64),
        M::Kunpckbw => (Join, 8),
        M::Kunpckwd => (Join, 16),
        M::Kunpckdq => (Join, 32),
        M::Kortestb => (Or, 8),
        M::Kortestw => (Or, 16),
        M::Kortestd => (Or, 32),
        M::Kortestq => (Or, 64),
        M::Ktestb => (Test, 8),
        M::Ktestw => (Test, 16),
        M::Ktestd => (Test, 32),
        M::Ktestq => (Test, 64),
        _ => return None,
    })
}

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let mnemonic = x.instruction.mnemonic();
    let element_bytes = match mnemonic {
        M::Vpmovm2b | M::Vpmovb2m => 1,
        M::Vpmovm2w | M::Vpmovw2m => 2,
        M::Vpmovm2d | M::Vpmovd2m => 4,
        M::Vpmovm2q | M::Vpmovq2m => 8,
        _ => 0,
    };
    if element_bytes != 0 {
        x.require_vectors()?;
        let [to, from] = [0, 1].map(|number| x.instruction.op_register(number));
        if to.is_k() {
            let value = x.vector(from)?;
            x.set_opmask(to, signs(&value, element_bytes, from.size()))?;
        } else {
            let value = spread(x.opmask(from)?, element_bytes);
            x.finish_vector(to, &value, element_bytes)?;
        }
        return Ok(true);
    }
    let Some((operation, bits)) = operation(mnemonic) else {
        return Ok(false);
    };
    x.require_opmasks()?;
    let all = low_bits(bits);
    let source = |x: &mut Execution<'_>, number: u32| -> Step<u64> {
        let register = x.instruction.op_register(number);
        let value = match register.is_k() {
            true => x.opmask(register)?,
            // A general register or memory, of KMOV.
            false => x.read(number)?,
        };
        Ok(value & all)
    };
    let result = match operation {
        Operation::Move => source(x, 1)?,
        Operation::Pairs(combine) => {
            let first = source(x, 1)?;
            let second = match x.instruction.op_count() {
                3 => source(x, 2)?,
                _ => 0,
            };
            combine(first, second) & all
        }
        Operation::Shift { left } => {
            let value = source(x, 1)?;
            let count = low_32(x.read(2)? & 0xff);
            let shifted = match left {
                true => value.checked_shl(count),
                false => value.checked_shr(count),
            };
            shifted.unwrap_or(0) & all
        }
        Operation::Join => {
            let (high, low) = (source(x, 1)?, source(x, 2)?);
            high.wrapping_shl(u32::try_from(bits).unwrap_or(0)) | low
        }
        Operation::Or | Operation::Test => {
            let (first, second) = (source(x, 0)?, source(x, 1)?);
            let flags = match operation {
                Operation::Or => {
                    let either = first | second;
                    flag(either == 0, ZF) | flag(either == all, CF)
                }
                _ => flag(first & second == 0, ZF) | flag(!first & second == 0, CF),
            };
            x.set_flags(STATUS, flags);
            return Ok(true);
        }
    };
    let to = x.instruction.op_register(0);
    if to.is_k() {
        x.set_opmask(to, result)?;
    } else if to == Register::None {
        x.write(0, result & mask(x.operand_bytes(0)))?;
    } else {
        x.set_register(to, result);
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
