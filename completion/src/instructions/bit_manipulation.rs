//! POPCNT, LZCNT, TZCNT, BMI1 and BMI2 (Intel SDM volume 2). Flags that the manual leaves undefined stay as
//! they are.

use iced_x86::Mnemonic as M;

use crate::cpu::bits::{AF, CF, OF, PF, SF, ZF};
use crate::exception::{Exception, Step};
use crate::execution::Execution;
use crate::feature::Feature;
use crate::flags::flag;
use crate::word::{bits, is_negative, low_8, low_32, mask};

pub fn execute(x: &mut Execution<'_>) -> Step {
    let mnemonic = x.instruction.mnemonic();
    match mnemonic {
        M::Popcnt | M::Lzcnt | M::Tzcnt => count(x),
        _ if !x.system.is_protected() || x.has_flags(crate::cpu::bits::VM) => {
            // VEX prefixes are for protected mode (Intel SDM volume 2, 2.3).
            Err(Exception::invalid_opcode().into())
        }
        M::Blsi | M::Blsmsk | M::Blsr => lowest_set_bit(x),
        M::Mulx => multiply(x),
        M::Pdep | M::Pext => spread(x),
        M::Rorx | M::Sarx | M::Shlx | M::Shrx => shift(x),
        _ => select(x),
    }
}

/// ZF and SF of a result.
const fn sign_and_zero(value: u64, bytes: usize) -> u64 {
    flag(value == 0, ZF) | flag(is_negative(value, bytes), SF)
}

fn count(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(0);
    let source = x.read(1)?;
    let leading = || {
        source
            .leading_zeros()
            .wrapping_sub(64u32.wrapping_sub(bits(bytes)))
    };
    let trailing = || source.trailing_zeros().min(bits(bytes));
    let mnemonic = x.instruction.mnemonic();
    if mnemonic == M::Popcnt {
        x.set_flags(OF | SF | ZF | AF | CF | PF, flag(source == 0, ZF));
        return x.write(0, source.count_ones().into());
    }
    let has = match mnemonic {
        M::Lzcnt => x.cpu.has(Feature::Lzcnt),
        _ => x.cpu.has(Feature::Bmi1),
    };
    if !has {
        // BSR and BSF, as processors do that do not know the prefix.
        x.set_flags(ZF, flag(source == 0, ZF));
        if source == 0 {
            return Ok(());
        }
        let result = match mnemonic {
            M::Lzcnt => bits(bytes).wrapping_sub(1).wrapping_sub(leading()),
            _ => trailing(),
        };
        return x.write(0, result.into());
    }
    let result = match mnemonic {
        M::Lzcnt => leading(),
        _ => trailing(),
    };
    x.set_flags(CF | ZF, flag(source == 0, CF) | flag(result == 0, ZF));
    x.write(0, result.into())
}

/// BLSI, BLSMSK, BLSR.
fn lowest_set_bit(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(0);
    let source = x.read(1)?;
    let below = source.wrapping_sub(1);
    let (result, carry) = match x.instruction.mnemonic() {
        M::Blsi => (source & source.wrapping_neg(), source != 0),
        M::Blsmsk => (source ^ below, source == 0),
        _ => (source & below, source == 0),
    };
    let result = result & mask(bytes);
    x.set_flags(
        OF | SF | ZF | CF,
        sign_and_zero(result, bytes) | flag(carry, CF),
    );
    x.write(0, result)
}

fn multiply(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(0);
    let source = x.read(2)?;
    let product = u128::from(x.registers.get(2) & mask(bytes)).wrapping_mul(u128::from(source));
    let halves = (product >> bits(bytes), product);
    let half = |value: u128| u64::from_le_bytes(crate::word::at(&value.to_le_bytes(), 0));
    // The high half wins when both are one register.
    x.write(1, half(halves.1))?;
    x.write(0, half(halves.0))
}

/// PDEP and PEXT.
fn spread(x: &mut Execution<'_>) -> Step {
    let (source, selected) = (x.read(1)?, x.read(2)?);
    let mut result = 0;
    let mut number = 0u32;
    for bit in (0..64u32).filter(|bit| selected.wrapping_shr(*bit) & 1 != 0) {
        let (from, to) = match x.instruction.mnemonic() {
            M::Pdep => (number, bit),
            _ => (bit, number),
        };
        result |= (source.wrapping_shr(from) & 1).wrapping_shl(to);
        number = number.wrapping_add(1);
    }
    x.write(0, result)
}

/// RORX, SARX, SHLX, SHRX.
fn shift(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(0);
    let (source, by) = (x.read(1)?, low_32(x.read(2)?));
    let by = by & bits(bytes).wrapping_sub(1);
    let result = match (x.instruction.mnemonic(), bytes) {
        (M::Rorx, 4) => low_32(source).rotate_right(by).into(),
        (M::Rorx, _) => source.rotate_right(by),
        (M::Sarx, 4) => low_32(source)
            .cast_signed()
            .wrapping_shr(by)
            .cast_unsigned()
            .into(),
        (M::Sarx, _) => source.cast_signed().wrapping_shr(by).cast_unsigned(),
        (M::Shlx, _) => source.wrapping_shl(by),
        _ => source.wrapping_shr(by),
    };
    x.write(0, result)
}

/// ANDN, BEXTR, BZHI.
fn select(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(0);
    let (first, second) = (x.read(1)?, x.read(2)?);
    let below = |count: u32| 1u64.checked_shl(count).unwrap_or(0).wrapping_sub(1);
    match x.instruction.mnemonic() {
        M::Andn => {
            let result = !first & second & mask(bytes);
            x.set_flags(OF | SF | ZF | CF, sign_and_zero(result, bytes));
            x.write(0, result)
        }
        M::Bextr => {
            let (start, count) = (low_8(second), low_8(second >> 8));
            let result = first.checked_shr(start.into()).unwrap_or(0) & below(count.into());
            x.set_flags(OF | ZF | CF, flag(result == 0, ZF));
            x.write(0, result)
        }
        _ => {
            let count = u32::from(low_8(second));
            let result = first & below(count);
            let all = count >= bits(bytes);
            x.set_flags(
                OF | SF | ZF | CF,
                sign_and_zero(result, bytes) | flag(all, CF),
            );
            x.write(0, result)
        }
    }
}

#[cfg(test)]
mod tests;
