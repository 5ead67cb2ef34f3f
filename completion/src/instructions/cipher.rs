//! AES-NI and PCLMULQDQ (FIPS 197; Intel SDM volume 2). A lane is the state, column by column.

use super::lane::{Lane, element};
use crate::word::{index, low_32, put};

/// A product in GF(2^8), modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4.2).
const fn product(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut sum) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    sum
}

/// The S-box and its inverse (FIPS 197, 5.1.1 and 5.3.2), made when this is compiled.
const BOXES: [[u8; 256]; 2] = boxes();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler alone, where a mistake is an error"
)]
const fn boxes() -> [[u8; 256]; 2] {
    let mut boxes = [[0; 256]; 2];
    let (mut power, mut inverse) = (1u8, 1u8);
    // 3 generates the group, and 0xf6 is its inverse.
    loop {
        let mut value = 0x63;
        let mut turn = 0;
        while turn < 5 {
            value ^= inverse.rotate_left(turn);
            turn += 1;
        }
        boxes[0][power as usize] = value;
        boxes[1][value as usize] = power;
        power = product(power, 3);
        inverse = product(inverse, 0xf6);
        if power == 1 {
            break;
        }
    }
    boxes[0][0] = 0x63;
    boxes[1][0x63] = 0;
    boxes
}

/// A byte through the S-box, or through its inverse.
fn substitute(byte: u8, inverse: bool) -> u8 {
    let [forth, back] = &BOXES;
    let table = if inverse { back } else { forth };
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Moves row `r` by `r` columns: to the left, or to the right for the inverse.
fn shift_rows(state: Lane, inverse: bool) -> Lane {
    let mut shifted = [0; 16];
    for (number, to) in shifted.iter_mut().enumerate() {
        let row = number & 3;
        let columns = if inverse { row.wrapping_neg() } else { row };
        let from = number.wrapping_add(columns.wrapping_mul(4)) & 15;
        *to = state.get(from).copied().unwrap_or(0);
    }
    shifted
}

/// Multiplies each column by a matrix whose first row is `factors`.
fn multiply_columns(state: Lane, factors: [u8; 4]) -> Lane {
    let mut mixed = [0; 16];
    for (number, to) in mixed.iter_mut().enumerate() {
        let (column, row) = (number & !3, number & 3);
        for (offset, factor) in factors.into_iter().enumerate() {
            let from = column | row.wrapping_add(offset) & 3;
            *to ^= product(state.get(from).copied().unwrap_or(0), factor);
        }
    }
    mixed
}

/// MixColumns' inverse, which is AESIMC.
pub fn unmix_columns(state: Lane) -> Lane {
    multiply_columns(state, [14, 11, 13, 9])
}

fn exclusive_or(a: Lane, b: Lane) -> Lane {
    let mut result = a;
    for (to, from) in result.iter_mut().zip(b) {
        *to ^= from;
    }
    result
}

/// A round of encryption; the last does not mix.
pub fn encrypt(state: Lane, key: Lane, mixes: bool) -> Lane {
    let state = shift_rows(state, false).map(|byte| substitute(byte, false));
    let state = match mixes {
        true => multiply_columns(state, [2, 3, 1, 1]),
        false => state,
    };
    exclusive_or(state, key)
}

/// A round of decryption, as the equivalent inverse cipher has it.
pub fn decrypt(state: Lane, key: Lane, mixes: bool) -> Lane {
    let state = shift_rows(state, true).map(|byte| substitute(byte, true));
    let state = if mixes { unmix_columns(state) } else { state };
    exclusive_or(state, key)
}

/// AESKEYGENASSIST.
pub fn key_assist(source: Lane, constant: u64) -> Lane {
    let mut result = [0; 16];
    for (number, from) in [(0, 1), (2, 3)] {
        let word = low_32(element(&source, from, 4)).to_le_bytes();
        let word = u32::from_le_bytes(word.map(|byte| substitute(byte, false)));
        let turned = word.rotate_right(8) ^ low_32(constant & 0xff);
        put(
            &mut result,
            4usize.wrapping_mul(number),
            &word.to_le_bytes(),
        );
        let next = 4usize.wrapping_mul(number).wrapping_add(4);
        put(&mut result, next, &turned.to_le_bytes());
    }
    result
}

/// PCLMULQDQ: the quad words that bits 0 and 4 of the constant choose.
pub fn multiply_without_carry(a: Lane, b: Lane, constant: u64) -> Lane {
    let first = element(&a, index(constant & 1), 8);
    let second = u128::from(element(&b, index(constant >> 4 & 1), 8));
    let mut sum = 0u128;
    for bit in (0..64u32).filter(|bit| first.wrapping_shr(*bit) & 1 != 0) {
        sum ^= second.wrapping_shl(bit);
    }
    sum.to_le_bytes()
}

#[cfg(test)]
mod tests;
