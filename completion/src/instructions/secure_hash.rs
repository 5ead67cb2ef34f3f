//! The SHA extensions (FIPS 180-4; Intel SDM volume 2, SHA1RNDS4 to SHA256RNDS2). The words of a lane are
//! numbered from its low end.

use super::lane::{Lane, element};
use crate::word::{low_32, put};

/// The four words, low one first.
fn words(lane: Lane) -> [u32; 4] {
    [0, 1, 2, 3].map(|number| low_32(element(&lane, number, 4)))
}

fn lane(words: [u32; 4]) -> Lane {
    let mut lane = [0; 16];
    for (number, word) in words.into_iter().enumerate() {
        put(&mut lane, number.wrapping_mul(4), &word.to_le_bytes());
    }
    lane
}

const fn choose(b: u32, c: u32, d: u32) -> u32 {
    b & c ^ !b & d
}

const fn majority(b: u32, c: u32, d: u32) -> u32 {
    b & c ^ b & d ^ c & d
}

/// SHA1RNDS4: four rounds with the function and constant of the 20 that `kind` names.
pub fn sha1_rounds(state: Lane, message: Lane, kind: u64) -> Lane {
    let [d, c, b, a] = words(state);
    let [w3, w2, w1, w0] = words(message);
    let (mut a, mut b, mut c, mut d, mut e) = (a, b, c, d, 0u32);
    for word in [w0, w1, w2, w3] {
        let (mixed, constant) = match kind & 3 {
            0 => (choose(b, c, d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => (majority(b, c, d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next = a
            .rotate_left(5)
            .wrapping_add(mixed)
            .wrapping_add(e)
            .wrapping_add(word)
            .wrapping_add(constant);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    lane([d, c, b, a])
}

/// SHA1NEXTE.
pub fn sha1_next(state: Lane, message: Lane) -> Lane {
    let [_, _, _, a] = words(state);
    let [m0, m1, m2, m3] = words(message);
    lane([m0, m1, m2, m3.wrapping_add(a.rotate_left(30))])
}

/// SHA1MSG1.
pub fn sha1_message_1(first: Lane, second: Lane) -> Lane {
    let [w3, w2, w1, w0] = words(first);
    let [_, _, w5, w4] = words(second);
    lane([w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0])
}

/// SHA1MSG2.
pub fn sha1_message_2(first: Lane, second: Lane) -> Lane {
    let [t3, t2, t1, t0] = words(first);
    let [w15, w14, w13, _] = words(second);
    let w16 = (t0 ^ w13).rotate_left(1);
    let w17 = (t1 ^ w14).rotate_left(1);
    let w18 = (t2 ^ w15).rotate_left(1);
    let w19 = (t3 ^ w16).rotate_left(1);
    lane([w19, w18, w17, w16])
}

/// SHA256RNDS2: two rounds; the low words of `message` are the schedule's with their constants added.
pub fn sha256_rounds(first: Lane, second: Lane, message: Lane) -> Lane {
    let [h, g, d, c] = words(first);
    let [f, e, b, a] = words(second);
    let [k0, k1, _, _] = words(message);
    let (mut a, mut b, mut c, mut d) = (a, b, c, d);
    let (mut e, mut f, mut g, mut h) = (e, f, g, h);
    for word in [k0, k1] {
        let sum_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let first = choose(e, f, g)
            .wrapping_add(sum_1)
            .wrapping_add(word)
            .wrapping_add(h);
        let second = majority(a, b, c).wrapping_add(sum_0);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
    }
    lane([f, e, b, a])
}

const fn sigma_0(word: u32) -> u32 {
    word.rotate_right(7) ^ word.rotate_right(18) ^ word >> 3
}

const fn sigma_1(word: u32) -> u32 {
    word.rotate_right(17) ^ word.rotate_right(19) ^ word >> 10
}

/// SHA256MSG1.
pub fn sha256_message_1(first: Lane, second: Lane) -> Lane {
    let [w0, w1, w2, w3] = words(first);
    let [w4, _, _, _] = words(second);
    lane([
        w0.wrapping_add(sigma_0(w1)),
        w1.wrapping_add(sigma_0(w2)),
        w2.wrapping_add(sigma_0(w3)),
        w3.wrapping_add(sigma_0(w4)),
    ])
}

/// SHA256MSG2.
pub fn sha256_message_2(first: Lane, second: Lane) -> Lane {
    let [t0, t1, t2, t3] = words(first);
    let [_, _, w14, w15] = words(second);
    let w16 = t0.wrapping_add(sigma_1(w14));
    let w17 = t1.wrapping_add(sigma_1(w15));
    let w18 = t2.wrapping_add(sigma_1(w16));
    let w19 = t3.wrapping_add(sigma_1(w17));
    lane([w16, w17, w18, w19])
}

#[cfg(test)]
mod tests;
