//! Known answers, for hosts without the instructions: whole blocks, as kernels use these.

use super::*;

/// The padded block of "abc" (FIPS 180-4, appendix examples), as words.
fn block() -> [u32; 16] {
    let mut words = [0; 16];
    words[0] = 0x6162_6380;
    words[15] = 24;
    words
}

#[test]
fn sha_1_of_abc() {
    let initial = [
        0x6745_2301u32,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    // Vectors have the first word at their high end.
    let quad = |words: &[u32]| lane([words[3], words[2], words[1], words[0]]);
    let mut schedule: Vec<Lane> = block().chunks(4).map(quad).collect();
    for number in 4..20 {
        let partial = sha1_message_1(schedule[number - 4], schedule[number - 3]);
        let mut mixed = partial;
        for (to, from) in mixed.iter_mut().zip(schedule[number - 2]) {
            *to ^= from;
        }
        schedule.push(sha1_message_2(mixed, schedule[number - 1]));
    }
    let start = quad(&initial[..4]);
    let mut state = start;
    let mut before = start;
    for (number, message) in schedule.iter().enumerate() {
        let input = if number == 0 {
            let mut words = words(*message);
            words[3] = words[3].wrapping_add(initial[4]);
            lane(words)
        } else {
            sha1_next(before, *message)
        };
        before = state;
        state = sha1_rounds(state, input, u64::try_from(number / 5).expect("small"));
    }
    let [d, c, b, a] = words(state);
    let [_, _, _, last] = words(before);
    let found: Vec<u32> = [a, b, c, d, last.rotate_left(30)]
        .into_iter()
        .zip(initial)
        .map(|(word, initial)| word.wrapping_add(initial))
        .collect();
    assert_eq!(
        found,
        [
            0xa999_3e36,
            0x4706_816a,
            0xba3e_2571,
            0x7850_c26c,
            0x9cd0_d89d
        ]
    );
}

#[test]
fn sha_256_of_abc() {
    // The fractional parts of cube roots, of the first 64 primes.
    let constants: Vec<u32> = primes().take(64).map(|prime| root(prime, 3)).collect();
    let initial: Vec<u32> = primes().take(8).map(|prime| root(prime, 2)).collect();
    assert_eq!((constants[0], initial[0]), (0x428a_2f98, 0x6a09_e667));
    let mut schedule: Vec<Lane> = block()
        .chunks(4)
        .map(|words| lane([words[0], words[1], words[2], words[3]]))
        .collect();
    for number in 4..16 {
        let partial = sha256_message_1(schedule[number - 4], schedule[number - 3]);
        let [_, b, c, d] = words(schedule[number - 2]);
        let [e, ..] = words(schedule[number - 1]);
        let mut sums = words(partial);
        for (to, from) in sums.iter_mut().zip([b, c, d, e]) {
            *to = to.wrapping_add(from);
        }
        schedule.push(sha256_message_2(lane(sums), schedule[number - 1]));
    }
    let [a, b, c, d, e, f, g, h] = <[u32; 8]>::try_from(initial.as_slice()).expect("eight");
    let (mut first, mut second) = (lane([h, g, d, c]), lane([f, e, b, a]));
    for (number, message) in schedule.iter().enumerate() {
        let mut sums = words(*message);
        for (to, constant) in sums.iter_mut().zip(&constants[4 * number..]) {
            *to = to.wrapping_add(*constant);
        }
        for half in [[sums[0], sums[1], 0, 0], [sums[2], sums[3], 0, 0]] {
            let next = sha256_rounds(first, second, lane(half));
            (first, second) = (second, next);
        }
    }
    let [h, g, d, c] = words(first);
    let [f, e, b, a] = words(second);
    let found: Vec<u32> = [a, b, c, d, e, f, g, h]
        .into_iter()
        .zip(initial)
        .map(|(word, initial)| word.wrapping_add(initial))
        .collect();
    assert_eq!(
        found,
        [
            0xba78_16bf,
            0x8f01_cfea,
            0x4141_40de,
            0x5dae_2223,
            0xb003_61a3,
            0x9617_7a9c,
            0xb410_ff61,
            0xf200_15ad
        ]
    );
}

fn primes() -> impl Iterator<Item = u128> {
    (2u128..).filter(|number| (2..*number).all(|divisor| number % divisor != 0))
}

/// 32 bits of the fractional part of a root of 2 or 3.
fn root(number: u128, degree: u32) -> u32 {
    let (mut low, mut high) = (0u128, 1u128 << 40);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if middle.pow(degree) <= number << (32 * degree) {
            low = middle;
        } else {
            high = middle;
        }
    }
    u32::try_from(low & 0xffff_ffff).expect("32 bits")
}
