//! Known answers, for hosts without the instructions.

use super::*;

/// Bytes of hexadecimal digits.
fn bytes(text: &str) -> Lane {
    let mut lane = [0; 16];
    for (number, to) in lane.iter_mut().enumerate() {
        *to = u8::from_str_radix(&text[2 * number..2 * number + 2], 16).expect("digits");
    }
    lane
}

/// The round keys of AES-128 (FIPS 197, 5.2), by AESKEYGENASSIST as its callers use it.
fn round_keys(key: Lane) -> [Lane; 11] {
    let mut keys = [key; 11];
    let mut constant = 1u8;
    for round in 1..11 {
        let before = keys[round - 1];
        let assist = key_assist(before, constant.into());
        let mut word = element(&assist, 3, 4);
        for column in 0..4 {
            word ^= element(&before, column, 4);
            put(&mut keys[round], 4 * column, &low_32(word).to_le_bytes());
        }
        constant = product(constant, 2);
    }
    keys
}

#[test]
fn the_standards_examples() {
    // FIPS 197, appendix A.1: the last round key.
    let keys = round_keys(bytes("2b7e151628aed2a6abf7158809cf4f3c"));
    assert_eq!(keys[10], bytes("d014f9a8c9ee2589e13f0cc8b6630ca6"));
    // Appendix C.1.
    let keys = round_keys(bytes("000102030405060708090a0b0c0d0e0f"));
    let plain = bytes("00112233445566778899aabbccddeeff");
    let mut state = exclusive_or(plain, keys[0]);
    for key in &keys[1..10] {
        state = encrypt(state, *key, true);
    }
    state = encrypt(state, keys[10], false);
    assert_eq!(state, bytes("69c4e0d86a7b0430d8cdb78070b4c55a"));
    // The equivalent inverse cipher (5.3.5).
    state = exclusive_or(state, keys[10]);
    for key in keys[1..10].iter().rev() {
        state = decrypt(state, unmix_columns(*key), true);
    }
    assert_eq!(decrypt(state, keys[0], false), plain);
}

#[test]
fn boxes_are_inverse() {
    for byte in 0..=255 {
        assert_eq!(substitute(substitute(byte, false), true), byte);
    }
    assert_eq!(substitute(0x53, false), 0xed);
}

#[test]
fn products_without_carry() {
    let a = bytes("5d5a61b1d5c5c3b47b6c1f4d6f8ea153");
    let a_high = element(&a, 1, 8);
    let one: Lane = 1u128.to_le_bytes();
    assert_eq!(
        multiply_without_carry(a, one, 0x01),
        u128::from(a_high).to_le_bytes()
    );
    // (x + 1)^2 = x^2 + 1
    let three: Lane = 3u128.to_le_bytes();
    assert_eq!(multiply_without_carry(three, three, 0), 5u128.to_le_bytes());
}
