//! Single bits and shifts of integers (Intel SDM volume 2): BT and its family, BSF and BSR, shifts and
//! rotations. Flags that the manual leaves undefined stay as they are.

use iced_x86::{Mnemonic as M, OpKind};

use super::integer::signed;
use crate::cpu::bits::{CF, OF, PF, SF, ZF};
use crate::exception::Step;
use crate::execution::Execution;
use crate::flags::{flag, of_result};
use crate::paging::Access;
use crate::word::{bits, from_le, is_negative, low_8, low_32, mask};

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    match x.instruction.mnemonic() {
        M::Bt | M::Bts | M::Btr | M::Btc => test(x)?,
        M::Bsf | M::Bsr => scan(x)?,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr => shift(x)?,
        M::Shld | M::Shrd => shift_two(x)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// BT, BTS, BTR, BTC. A bit number in a register goes beyond the operand if that is memory.
fn test(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(0);
    let number = x.read(1)?;
    let width = u64::from(bits(bytes));
    let bit = 1u64.wrapping_shl(low_32(number & width.wrapping_sub(1)));
    let in_register = x.instruction.op_kind(1) == OpKind::Register;
    let beyond = match x.is_memory(0) && in_register {
        // Whole operands of two, four or eight bytes.
        true => {
            signed(number, bytes) >> 3 & !crate::word::length(bytes).wrapping_sub(1).cast_signed()
        }
        false => 0,
    };
    let found = match x.instruction.mnemonic() {
        M::Bt if x.is_memory(0) => {
            let mut data = [0; 8];
            let data = data.get_mut(..bytes).unwrap_or_default();
            let linear = x.linear_beyond(0, beyond, bytes, Access::Read)?;
            x.load(linear, data)?;
            from_le(data)
        }
        M::Bt => x.read(0)?,
        M::Bts => x.update_beyond(0, beyond, |value| value | bit)?,
        M::Btr => x.update_beyond(0, beyond, |value| value & !bit)?,
        _ => x.update_beyond(0, beyond, |value| value ^ bit)?,
    };
    x.set_flags(CF, flag(found & bit != 0, CF));
    Ok(())
}

fn scan(x: &mut Execution<'_>) -> Step {
    let source = x.read(1)?;
    x.set_flags(ZF, flag(source == 0, ZF));
    if source == 0 {
        // The destination stays, as AMD says and Intel's processors do.
        return Ok(());
    }
    let number = match x.instruction.mnemonic() {
        M::Bsf => source.trailing_zeros(),
        _ => 63u32.wrapping_sub(source.leading_zeros()),
    };
    x.write(0, number.into())
}

/// Shifts and rotations of one operand.
fn shift(x: &mut Execution<'_>) -> Step {
    let mnemonic = x.instruction.mnemonic();
    let bytes = x.operand_bytes(0);
    let width = bits(bytes);
    let counted = if bytes == 8 { 63 } else { 31 };
    let count = u32::from(low_8(x.read(1)?)) & counted;
    let carry = x.has_flags(CF);
    let outcome = move |value: u64| turn(mnemonic, value, count, bytes, carry);
    if count == 0 {
        // The operand is written all the same.
        return x.update(0, |value| value).map(|_| ());
    }
    let value = x.update(0, |value| outcome(value).0)?;
    let (result, carry) = outcome(value);
    let top = is_negative(result, bytes);
    let below_top = result.wrapping_shr(width.wrapping_sub(2)) & 1 != 0;
    let overflow = match mnemonic {
        M::Shl | M::Sal | M::Rol | M::Rcl => top != carry,
        M::Shr => is_negative(value, bytes),
        M::Sar => false,
        _ => top != below_top,
    };
    let rotation = matches!(mnemonic, M::Rol | M::Ror | M::Rcl | M::Rcr);
    let flags = flag(carry, CF) | flag(overflow, OF) | of_result(result, bytes);
    x.set_flags(
        if rotation {
            CF | OF
        } else {
            CF | OF | SF | ZF | PF
        },
        flags,
    );
    Ok(())
}

/// The result and CF of shifting or rotating by 1 to 63.
fn turn(mnemonic: M, value: u64, count: u32, bytes: usize, carry: bool) -> (u64, bool) {
    let width = bits(bytes);
    let wide = u128::from(value);
    let bit = |value: u128, number: u32| value.wrapping_shr(number) & 1 != 0;
    let low = |value: u128| from_le(&value.to_le_bytes()) & mask(bytes);
    match mnemonic {
        M::Shl | M::Sal => {
            let result = wide.wrapping_shl(count);
            (low(result), bit(result, width))
        }
        M::Shr => (
            low(wide.wrapping_shr(count)),
            bit(wide, count.wrapping_sub(1)),
        ),
        M::Sar => {
            let value = signed(value, bytes);
            let result = value.wrapping_shr(count).cast_unsigned() & mask(bytes);
            (result, value.wrapping_shr(count.wrapping_sub(1)) & 1 != 0)
        }
        M::Rol | M::Ror => {
            let count = count & width.wrapping_sub(1);
            let left = match mnemonic {
                M::Rol => count,
                _ => width.wrapping_sub(count) & width.wrapping_sub(1),
            };
            let turned = wide.wrapping_shl(left);
            let result = low(turned | turned.wrapping_shr(width));
            let carry = match mnemonic {
                M::Rol => result & 1 != 0,
                _ => is_negative(result, bytes),
            };
            (result, carry)
        }
        _ => {
            // The carry is one bit more.
            let whole = width.wrapping_add(1);
            let count = count.checked_rem(whole).unwrap_or(0);
            let left = match mnemonic {
                M::Rcl => count,
                _ => whole.wrapping_sub(count),
            };
            let field = 1u128.wrapping_shl(whole).wrapping_sub(1);
            let value = wide | u128::from(carry).wrapping_shl(width);
            // By as many places as there are is by none.
            let left = left.checked_rem(whole).unwrap_or(0);
            let turned = value.wrapping_shl(left) & field
                | value.wrapping_shr(whole.wrapping_sub(left)) & field;
            (low(turned), bit(turned, width))
        }
    }
}

/// SHLD and SHRD.
fn shift_two(x: &mut Execution<'_>) -> Step {
    let left = x.instruction.mnemonic() == M::Shld;
    let bytes = x.operand_bytes(0);
    let width = bits(bytes);
    let counted = if bytes == 8 { 63 } else { 31 };
    let count = u32::from(low_8(x.read(2)?)) & counted;
    let other = x.read(1)?;
    let outcome = |value: u64| {
        let [value, other] = [value, other].map(u128::from);
        let low = |value: u128| from_le(&value.to_le_bytes()) & mask(bytes);
        if left {
            let both = value.wrapping_shl(width) | other;
            let carry = both.wrapping_shr(width.wrapping_mul(2).wrapping_sub(count)) & 1;
            (low(both.wrapping_shl(count).wrapping_shr(width)), carry)
        } else {
            let both = other.wrapping_shl(width) | value;
            let carry = both.wrapping_shr(count.wrapping_sub(1)) & 1;
            (low(both.wrapping_shr(count)), carry)
        }
    };
    if count == 0 {
        return x.update(0, |value| value).map(|_| ());
    }
    let value = x.update(0, |value| outcome(value).0)?;
    let (result, carry) = outcome(value);
    let overflow = is_negative(value ^ result, bytes);
    let flags = flag(carry != 0, CF) | flag(overflow, OF) | of_result(result, bytes);
    x.set_flags(CF | OF | SF | ZF | PF, flags);
    Ok(())
}
