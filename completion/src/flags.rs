//! Status flags of integer results, and the conditions that they make (Intel SDM volume 1, 3.4.3.1 and
//! appendix B).

use iced_x86::ConditionCode;

use crate::cpu::bits::{AF, CF, OF, PF, SF, ZF};
use crate::word::{is_negative, low_8, mask};

/// All status flags.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// `flag` if the condition holds.
pub const fn flag(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

/// SF, ZF and PF of a result of `bytes`.
pub const fn of_result(value: u64, bytes: usize) -> u64 {
    let even = low_8(value).count_ones() & 1 == 0;
    flag(value & mask(bytes) == 0, ZF) | flag(is_negative(value, bytes), SF) | flag(even, PF)
}

/// The flags of `a + b + carry`.
pub fn of_sum(a: u64, b: u64, carry: bool, bytes: usize) -> u64 {
    let wide = u128::from(a & mask(bytes))
        .wrapping_add((b & mask(bytes)).into())
        .wrapping_add(carry.into());
    let sum = a.wrapping_add(b).wrapping_add(carry.into());
    of_result(sum, bytes)
        | flag(wide > u128::from(mask(bytes)), CF)
        | flag((a ^ b ^ sum) & 16 != 0, AF)
        | flag(is_negative((a ^ sum) & (b ^ sum), bytes), OF)
}

/// The flags of `a - b - borrow`.
pub fn of_difference(a: u64, b: u64, borrow: bool, bytes: usize) -> u64 {
    let difference = a.wrapping_sub(b).wrapping_sub(borrow.into());
    let taken = u128::from(b & mask(bytes)).wrapping_add(borrow.into());
    of_result(difference, bytes)
        | flag(taken > u128::from(a & mask(bytes)), CF)
        | flag((a ^ b ^ difference) & 16 != 0, AF)
        | flag(is_negative((a ^ b) & (a ^ difference), bytes), OF)
}

/// Whether the condition of SETcc or CMOVcc holds.
pub const fn holds(condition: ConditionCode, flags: u64) -> bool {
    let carry = flags & CF != 0;
    let zero = flags & ZF != 0;
    let less = (flags & SF != 0) != (flags & OF != 0);
    match condition {
        ConditionCode::None => false,
        ConditionCode::o => flags & OF != 0,
        ConditionCode::no => flags & OF == 0,
        ConditionCode::b => carry,
        ConditionCode::ae => !carry,
        ConditionCode::e => zero,
        ConditionCode::ne => !zero,
        ConditionCode::be => carry || zero,
        ConditionCode::a => !carry && !zero,
        ConditionCode::s => flags & SF != 0,
        ConditionCode::ns => flags & SF == 0,
        ConditionCode::p => flags & PF != 0,
        ConditionCode::np => flags & PF == 0,
        ConditionCode::l => less,
        ConditionCode::ge => !less,
        ConditionCode::le => less || zero,
        ConditionCode::g => !less && !zero,
    }
}
