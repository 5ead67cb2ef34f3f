//! Arithmetic and logic on general registers and memory, locked and not (Intel SDM volume 2; volume 3,
//! 10.1.2).
//!
//! KVM's emulator knows all of these; they come here where it gives up on an operand, at a device or across
//! pages. What changes memory does so atomically with and without the prefix.

use iced_x86::{Mnemonic as M, Register};

use crate::cpu::bits::{CF, OF};
use crate::exception::{Exception, Step, Stop, vector};
use crate::execution::Execution;
use crate::flags::{STATUS, of_difference, of_result, of_sum};
use crate::word::mask;

/// How an instruction makes a result and flags of its two operands.
struct Arithmetic {
    /// Of the operands and CF.
    result: fn(u64, u64, bool) -> u64,
    /// Of the operands, CF and their size.
    flags: fn(u64, u64, bool, usize) -> u64,
    /// The flags that change.
    changed: u64,
    /// Whether the result goes to the first operand.
    stored: bool,
}

const fn arithmetic(mnemonic: M) -> Option<Arithmetic> {
    const ADD: Arithmetic = Arithmetic {
        result: |a, b, _| a.wrapping_add(b),
        flags: |a, b, _, bytes| of_sum(a, b, false, bytes),
        changed: STATUS,
        stored: true,
    };
    const SUBTRACT: Arithmetic = Arithmetic {
        result: |a, b, _| a.wrapping_sub(b),
        flags: |a, b, _, bytes| of_difference(a, b, false, bytes),
        ..ADD
    };
    const AND: Arithmetic = Arithmetic {
        result: |a, b, _| a & b,
        flags: |a, b, _, bytes| of_result(a & b, bytes),
        ..ADD
    };
    Some(match mnemonic {
        M::Add => ADD,
        M::Adc => Arithmetic {
            result: |a, b, carry| a.wrapping_add(b).wrapping_add(carry as u64),
            flags: of_sum,
            ..ADD
        },
        M::Sub => SUBTRACT,
        M::Sbb => Arithmetic {
            result: |a, b, carry| a.wrapping_sub(b).wrapping_sub(carry as u64),
            flags: of_difference,
            ..ADD
        },
        M::Cmp => Arithmetic {
            stored: false,
            ..SUBTRACT
        },
        M::And => AND,
        M::Test => Arithmetic {
            stored: false,
            ..AND
        },
        M::Or => Arithmetic {
            result: |a, b, _| a | b,
            flags: |a, b, _, bytes| of_result(a | b, bytes),
            ..ADD
        },
        M::Xor => Arithmetic {
            result: |a, b, _| a ^ b,
            flags: |a, b, _, bytes| of_result(a ^ b, bytes),
            ..ADD
        },
        M::Inc => Arithmetic {
            result: |a, _, _| a.wrapping_add(1),
            flags: |a, _, _, bytes| of_sum(a, 1, false, bytes),
            changed: STATUS & !CF,
            ..ADD
        },
        M::Dec => Arithmetic {
            result: |a, _, _| a.wrapping_sub(1),
            flags: |a, _, _, bytes| of_difference(a, 1, false, bytes),
            changed: STATUS & !CF,
            ..ADD
        },
        M::Neg => Arithmetic {
            result: |a, _, _| a.wrapping_neg(),
            flags: |a, _, _, bytes| of_difference(0, a, false, bytes),
            ..ADD
        },
        M::Not => Arithmetic {
            result: |a, _, _| !a,
            changed: 0,
            ..ADD
        },
        _ => return None,
    })
}

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let mnemonic = x.instruction.mnemonic();
    match mnemonic {
        M::Xadd => exchange_and_add(x)?,
        M::Cmpxchg => compare_and_exchange(x)?,
        M::Imul if x.instruction.op_count() > 1 => multiply(x)?,
        M::Imul | M::Mul => multiply_wide(x)?,
        M::Div | M::Idiv => divide(x)?,
        _ => {
            let Some(arithmetic) = arithmetic(mnemonic) else {
                return Ok(false);
            };
            let bytes = x.operand_bytes(0);
            let b = match x.instruction.op_count() {
                1 => 0,
                _ => x.read(1)? & mask(bytes),
            };
            let carry = x.has_flags(CF);
            let a = match arithmetic.stored {
                true => x.update(0, |a| (arithmetic.result)(a, b, carry))?,
                false => x.read(0)?,
            };
            x.set_flags(arithmetic.changed, (arithmetic.flags)(a, b, carry, bytes));
        }
    }
    Ok(true)
}

fn exchange_and_add(x: &mut Execution<'_>) -> Step {
    let (bytes, source) = (x.operand_bytes(0), x.read(1)?);
    let register = x.instruction.op_register(1);
    let found = if x.is_memory(0) {
        let found = x.update(0, |found| found.wrapping_add(source))?;
        x.set_register(register, found);
        found
    } else {
        let found = x.read(0)?;
        // The sum wins when both are one register.
        x.set_register(register, found);
        x.write(0, found.wrapping_add(source))?;
        found
    };
    x.set_flags(STATUS, of_sum(found, source, false, bytes));
    Ok(())
}

fn compare_and_exchange(x: &mut Execution<'_>) -> Step {
    const RAX: usize = 0;
    let (bytes, new) = (x.operand_bytes(0), x.read(1)?);
    let accumulator = x.registers.get(RAX) & mask(bytes);
    let found = if x.is_memory(0) {
        x.update(0, |found| if found == accumulator { new } else { found })?
    } else {
        let found = x.read(0)?;
        if found == accumulator {
            x.write(0, new)?;
        }
        found
    };
    x.set_flags(STATUS, of_difference(accumulator, found, false, bytes));
    if found != accumulator {
        let name = match bytes {
            1 => Register::AL,
            2 => Register::AX,
            4 => Register::EAX,
            _ => Register::RAX,
        };
        x.set_register(name, found);
    }
    Ok(())
}

/// IMUL with two and three operands.
fn multiply(x: &mut Execution<'_>) -> Step {
    let (first, second) = match x.instruction.op_count() {
        2 => (0, 1),
        3 => (1, 2),
        _ => return Err(Stop::Unknown),
    };
    let bytes = x.operand_bytes(0);
    let [a, b] = [x.read(first)?, x.read(second)?].map(|value| signed(value, bytes));
    let product = i128::from(a).wrapping_mul(i128::from(b));
    let low = u64::from_le_bytes(crate::word::at(&product.to_le_bytes(), 0)) & mask(bytes);
    let overflow = i128::from(signed(low, bytes)) != product;
    x.set_flags(CF | OF, if overflow { CF | OF } else { 0 });
    x.write(0, low)
}

/// The double-width pair of registers of MUL and DIV by operand size: the high half and the low half. For
/// bytes it is AX, in two halves.
const fn pair(bytes: usize) -> (Register, Register) {
    match bytes {
        1 => (Register::AH, Register::AL),
        2 => (Register::DX, Register::AX),
        4 => (Register::EDX, Register::EAX),
        _ => (Register::RDX, Register::RAX),
    }
}

/// MUL, and IMUL with one operand.
fn multiply_wide(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(0);
    let (high, low) = pair(bytes);
    let (a, b) = (x.register(low), x.read(0)?);
    let product = match x.instruction.mnemonic() {
        M::Mul => u128::from(a).wrapping_mul(b.into()),
        _ => i128::from(signed(a, bytes))
            .wrapping_mul(signed(b, bytes).into())
            .cast_unsigned(),
    };
    let [low_half, high_half] = halves(product, bytes);
    let overflow = match x.instruction.mnemonic() {
        M::Mul => high_half != 0,
        _ => high_half != (signed(low_half, bytes) >> 63).cast_unsigned() & mask(bytes),
    };
    x.set_register(low, low_half);
    x.set_register(high, high_half);
    x.set_flags(CF | OF, if overflow { CF | OF } else { 0 });
    Ok(())
}

/// The low and the high half of a number of twice `bytes`.
fn halves(value: u128, bytes: usize) -> [u64; 2] {
    let high = value.wrapping_shr(crate::word::bits(bytes));
    [value, high]
        .map(|value| u64::from_le_bytes(crate::word::at(&value.to_le_bytes(), 0)) & mask(bytes))
}

/// DIV and IDIV; #DE for zero and for a quotient that is too large.
fn divide(x: &mut Execution<'_>) -> Step {
    let error = Exception::new(vector::DIVIDE_ERROR);
    let bytes = x.operand_bytes(0);
    let (high, low) = pair(bytes);
    let divisor = x.read(0)?;
    let shift = crate::word::bits(bytes);
    let dividend = u128::from(x.register(high)).wrapping_shl(shift) | u128::from(x.register(low));
    let (quotient, remainder) = if x.instruction.mnemonic() == M::Div {
        let divisor = u128::from(divisor);
        let quotient = dividend.checked_div(divisor).ok_or(error)?;
        if quotient > u128::from(mask(bytes)) {
            return Err(error.into());
        }
        (quotient, dividend.checked_rem(divisor).ok_or(error)?)
    } else {
        // The dividend's sign is the highest bit of twice the size.
        let unused = 128u32.wrapping_sub(shift.wrapping_mul(2));
        let dividend = dividend
            .wrapping_shl(unused)
            .cast_signed()
            .wrapping_shr(unused);
        let divisor = i128::from(signed(divisor, bytes));
        let quotient = dividend.checked_div(divisor).ok_or(error)?;
        let [low_half, _] = halves(quotient.cast_unsigned(), bytes);
        if i128::from(signed(low_half, bytes)) != quotient {
            return Err(error.into());
        }
        let remainder = dividend.checked_rem(divisor).ok_or(error)?;
        (quotient.cast_unsigned(), remainder.cast_unsigned())
    };
    let [quotient, _] = halves(quotient, bytes);
    let [remainder, _] = halves(remainder, bytes);
    x.set_register(low, quotient);
    x.set_register(high, remainder);
    Ok(())
}

/// A number of `bytes` with its sign.
pub const fn signed(value: u64, bytes: usize) -> i64 {
    let value = value & mask(bytes);
    if crate::word::is_negative(value, bytes) {
        (value | !mask(bytes)).cast_signed()
    } else {
        value.cast_signed()
    }
}
