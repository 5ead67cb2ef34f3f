//! Sixteen bytes of vectors, as elements of whole numbers: what instructions do with them.

use super::integer::signed;
use crate::word::{at, bits, from_le, index, is_negative, low_8, low_32, mask, put};

/// The part of a register that most instructions see at a time.
pub type Lane = [u8; 16];

/// Element `number` of so many bytes.
pub fn element(lane: &[u8], number: usize, bytes: usize) -> u64 {
    let start = number.wrapping_mul(bytes);
    from_le(
        lane.get(start..start.saturating_add(bytes))
            .unwrap_or_default(),
    )
}

/// Sets element `number` of so many bytes.
pub fn set_element(lane: &mut [u8], number: usize, bytes: usize, value: u64) {
    let value = value.to_le_bytes();
    let value = value.get(..bytes).unwrap_or_default();
    put(lane, number.wrapping_mul(bytes), value);
}

/// A lane whose elements of so many bytes are what `of` gives for their numbers.
pub fn each(bytes: usize, of: impl Fn(usize) -> u64) -> Lane {
    let mut result = [0; 16];
    for number in 0..16usize.checked_div(bytes).unwrap_or(0) {
        set_element(&mut result, number, bytes, of(number));
    }
    result
}

/// All ones where the condition holds.
const fn truth(condition: bool) -> u64 {
    if condition { u64::MAX } else { 0 }
}

pub const fn add(a: u64, b: u64, _: usize) -> u64 {
    a.wrapping_add(b)
}

pub const fn subtract(a: u64, b: u64, _: usize) -> u64 {
    a.wrapping_sub(b)
}

/// A sum that stops at the ends of what a signed element of `bytes` can be.
fn saturated(value: i64, bytes: usize) -> u64 {
    let greatest = (mask(bytes) >> 1).cast_signed();
    value
        .clamp(greatest.wrapping_neg().wrapping_sub(1), greatest)
        .cast_unsigned()
}

pub fn add_saturated(a: u64, b: u64, bytes: usize) -> u64 {
    saturated(signed(a, bytes).saturating_add(signed(b, bytes)), bytes)
}

pub fn subtract_saturated(a: u64, b: u64, bytes: usize) -> u64 {
    saturated(signed(a, bytes).saturating_sub(signed(b, bytes)), bytes)
}

pub fn add_saturated_unsigned(a: u64, b: u64, bytes: usize) -> u64 {
    a.saturating_add(b).min(mask(bytes))
}

pub const fn average(a: u64, b: u64, _: usize) -> u64 {
    a.wrapping_add(b).wrapping_add(1) >> 1
}

pub const fn multiply_high(a: u64, b: u64, bytes: usize) -> u64 {
    (signed(a, bytes).wrapping_mul(signed(b, bytes)) >> 16).cast_unsigned()
}

/// PMULHRSW.
pub const fn multiply_rounded(a: u64, b: u64, bytes: usize) -> u64 {
    let product = signed(a, bytes).wrapping_mul(signed(b, bytes));
    ((product >> 14).wrapping_add(1) >> 1).cast_unsigned()
}

/// PMULDQ.
pub const fn multiply_low_signed(a: u64, b: u64, _: usize) -> u64 {
    signed(a, 4).wrapping_mul(signed(b, 4)).cast_unsigned()
}

/// PMADDWD: both words of a double word.
pub const fn multiply_and_add(a: u64, b: u64, _: usize) -> u64 {
    let low = signed(a, 2).wrapping_mul(signed(b, 2));
    let high = signed(a >> 16, 2).wrapping_mul(signed(b >> 16, 2));
    low.wrapping_add(high).cast_unsigned()
}

/// PMADDUBSW: both bytes of a word, of which the first operand's have no sign.
pub fn multiply_and_add_bytes(a: u64, b: u64, _: usize) -> u64 {
    let product = |shift: u32| {
        let unsigned = (a.wrapping_shr(shift) & 0xff).cast_signed();
        unsigned.wrapping_mul(signed(b.wrapping_shr(shift), 1))
    };
    saturated(product(0).wrapping_add(product(8)), 2)
}

/// PSADBW.
pub fn absolute_differences(a: u64, b: u64, _: usize) -> u64 {
    let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
    pairs.map(|(a, b)| u64::from(a.abs_diff(b))).sum()
}

/// PSIGN: the first with the second's sign, or zero.
pub const fn with_sign(a: u64, b: u64, bytes: usize) -> u64 {
    if b & mask(bytes) == 0 {
        0
    } else if is_negative(b, bytes) {
        a.wrapping_neg()
    } else {
        a
    }
}

pub const fn absolute(a: u64, bytes: usize) -> u64 {
    signed(a, bytes).unsigned_abs()
}

pub const fn equal(a: u64, b: u64, _: usize) -> u64 {
    truth(a == b)
}

pub const fn greater(a: u64, b: u64, bytes: usize) -> u64 {
    truth(signed(a, bytes) > signed(b, bytes))
}

/// VPTESTM.
pub const fn common_bits(a: u64, b: u64, _: usize) -> u64 {
    truth(a & b != 0)
}

/// VPTESTNM.
pub const fn no_common_bits(a: u64, b: u64, _: usize) -> u64 {
    truth(a & b == 0)
}

pub const fn least(a: u64, b: u64, bytes: usize) -> u64 {
    if signed(a, bytes) < signed(b, bytes) {
        a
    } else {
        b
    }
}

pub const fn greatest(a: u64, b: u64, bytes: usize) -> u64 {
    if signed(a, bytes) > signed(b, bytes) {
        a
    } else {
        b
    }
}

pub fn shift_left(value: u64, count: u64, bytes: usize) -> u64 {
    match count < u64::from(bits(bytes)) {
        true => value.wrapping_shl(low_32(count)),
        false => 0,
    }
}

pub fn shift_right(value: u64, count: u64, bytes: usize) -> u64 {
    match count < u64::from(bits(bytes)) {
        true => value.wrapping_shr(low_32(count)),
        false => 0,
    }
}

pub fn shift_right_signed(value: u64, count: u64, bytes: usize) -> u64 {
    let count = low_32(count.min(63));
    signed(value, bytes).wrapping_shr(count).cast_unsigned()
}

pub fn rotate_left(value: u64, count: u64, bytes: usize) -> u64 {
    let width = u64::from(bits(bytes));
    let count = count & width.wrapping_sub(1);
    let value = value & mask(bytes);
    shift_left(value, count, bytes) | shift_right(value, width.wrapping_sub(count), bytes)
}

pub fn rotate_right(value: u64, count: u64, bytes: usize) -> u64 {
    rotate_left(value, count.wrapping_neg(), bytes)
}

pub fn shift_bytes_left(a: Lane, count: u64) -> Lane {
    let mut result = [0; 16];
    put(&mut result, index(count & 0xff).min(16), &a);
    result
}

pub fn shift_bytes_right(a: Lane, count: u64) -> Lane {
    at(&a, index(count & 0xff).min(16))
}

/// PSHUFB.
pub fn shuffle_bytes(a: Lane, b: Lane) -> Lane {
    b.map(|selector| match selector & 0x80 {
        0 => low_8(element(&a, usize::from(selector & 15), 1)),
        _ => 0,
    })
}

/// The double words of `a` with these numbers.
pub fn pick(a: Lane, numbers: [usize; 4]) -> Lane {
    each(4, |number| {
        element(&a, numbers.get(number).copied().unwrap_or(0), 4)
    })
}

/// Two bits of a constant, as the number of an element.
fn selector(constant: u64, number: usize) -> usize {
    let shift = u32::try_from(number.wrapping_mul(2)).unwrap_or(0);
    index(constant.wrapping_shr(shift) & 3)
}

pub fn shuffle_double_words(a: Lane, constant: u64) -> Lane {
    each(4, |number| element(&a, selector(constant, number), 4))
}

pub fn shuffle_low_words(a: Lane, constant: u64) -> Lane {
    each(2, |number| match number {
        0..4 => element(&a, selector(constant, number), 2),
        _ => element(&a, number, 2),
    })
}

pub fn shuffle_high_words(a: Lane, constant: u64) -> Lane {
    each(2, |number| match number.checked_sub(4) {
        Some(high) => element(&a, selector(constant, high).saturating_add(4), 2),
        None => element(&a, number, 2),
    })
}

/// SHUFPS.
pub fn shuffle_two(a: Lane, b: Lane, constant: u64) -> Lane {
    each(4, |number| {
        let from = if number < 2 { &a } else { &b };
        element(from, selector(constant, number), 4)
    })
}

/// SHUFPD, of one lane.
pub fn shuffle_two_quad_words(a: Lane, b: Lane, constant: u64) -> Lane {
    each(8, |number| match number {
        0 => element(&a, index(constant & 1), 8),
        _ => element(&b, index(constant >> 1 & 1), 8),
    })
}

/// PALIGNR.
pub fn align(a: Lane, b: Lane, constant: u64) -> Lane {
    let mut both = [0; 32];
    put(&mut both, 0, &b);
    put(&mut both, 16, &a);
    at(&both, index(constant & 0xff).min(32))
}

pub fn blend_words(a: Lane, b: Lane, constant: u64) -> Lane {
    each(2, |number| {
        let chosen = constant.wrapping_shr(u32::try_from(number).unwrap_or(0)) & 1;
        element(if chosen == 0 { &a } else { &b }, number, 2)
    })
}

/// Elements of `b` where those of `c` have their sign, else of `a`.
pub fn blend(a: Lane, b: Lane, c: Lane, bytes: usize) -> Lane {
    each(bytes, |number| {
        let chosen = is_negative(element(&c, number, bytes), bytes);
        element(if chosen { &b } else { &a }, number, bytes)
    })
}

/// PACKSS and PACKUS of signed elements of `bytes`.
pub fn pack(a: Lane, b: Lane, bytes: usize, to_signed: bool) -> Lane {
    let half = bytes >> 1;
    let count = 16usize.checked_div(bytes).unwrap_or(0);
    each(half, |number| {
        let (from, number) = match number.checked_sub(count) {
            Some(number) => (&b, number),
            None => (&a, number),
        };
        let value = signed(element(from, number, bytes), bytes);
        match to_signed {
            true => saturated(value, half),
            false => value.clamp(0, mask(half).cast_signed()).cast_unsigned(),
        }
    })
}

/// PHADD and PHSUB: on neighbours of the first operand, then of the second.
pub fn horizontal(a: Lane, b: Lane, bytes: usize, combine: fn(u64, u64, usize) -> u64) -> Lane {
    let pairs = 8usize.checked_div(bytes).unwrap_or(0);
    each(bytes, |number| {
        let (from, pair) = match number.checked_sub(pairs) {
            Some(pair) => (&b, pair),
            None => (&a, number),
        };
        let first = pair.wrapping_mul(2);
        combine(
            element(from, first, bytes),
            element(from, first.wrapping_add(1), bytes),
            bytes,
        )
    })
}

pub fn unpack(a: Lane, b: Lane, high: bool, bytes: usize) -> Lane {
    let half = match high {
        true => 8usize.checked_div(bytes).unwrap_or(0),
        false => 0,
    };
    each(bytes, |number| {
        let from = if number & 1 == 0 { &a } else { &b };
        element(from, half.saturating_add(number >> 1), bytes)
    })
}

/// VPTERNLOG: the constant's bit that three bits choose.
pub fn ternary(a: Lane, b: Lane, c: Lane, constant: u64) -> Lane {
    each(8, |number| {
        let [a, b, c] = [&a, &b, &c].map(|lane| element(lane, number, 8));
        let mut result = 0;
        for choice in (0..8u32).filter(|choice| constant.wrapping_shr(*choice) & 1 != 0) {
            let side = |value: u64, bit: u32| match choice & bit {
                0 => !value,
                _ => value,
            };
            result |= side(a, 4) & side(b, 2) & side(c, 1);
        }
        result
    })
}
