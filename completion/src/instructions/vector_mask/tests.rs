//! EVEX encodings beside a model, as few hosts of tests have AVX-512: an unmasked VEX instruction is compared
//! with the host elsewhere, so it gives the elements, and the mask chooses.

use proptest::prelude::*;

use super::*;
use crate::cpu::bits;
use crate::testing::{DATA, Ram, TestCpu, fault, run};

#[test]
fn masks_have_runs() {
    let found: Vec<_> = runs(0b1011_0111, 4, 32).collect();
    assert_eq!(found, [(0, 12), (16, 8), (28, 4)]);
    assert_eq!(runs(u64::MAX, 1, 64).collect::<Vec<_>>(), [(0, 64)]);
    assert_eq!(runs(0, 1, 64).count(), 0);
    assert_eq!(runs(u64::MAX, 0, 64).count(), 0);
    assert_eq!(runs(0x5555_5555_5555_5555, 1, 64).count(), 32);
}

/// An EVEX instruction on registers 1 to 3 in map 1 with mask k1: prefix, W, length, zeroing.
fn evex(prefix: u8, wide: bool, length: u8, zeroing: bool, source: u8, rest: &[u8]) -> Vec<u8> {
    let mut code = vec![
        0x62,
        0xf1,
        u8::from(wide) << 7 | !source << 3 & 0x78 | 4 | prefix,
        u8::from(zeroing) << 7 | length << 5 | 8 | 1,
    ];
    code.extend(rest);
    code
}

/// What masking makes of `whole` over `before`.
fn masked(whole: &[u8], before: &[u8; 64], mask: u64, element: usize, zeroing: bool) -> [u8; 64] {
    let mut result = [0; 64];
    for (number, chunk) in whole.chunks(element).enumerate() {
        let at = number * element;
        if mask >> number & 1 != 0 {
            result[at..at + element].copy_from_slice(chunk);
        } else if !zeroing {
            result[at..at + element].copy_from_slice(&before[at..at + element]);
        }
    }
    result
}

proptest! {
    #[test]
    fn loads_and_stores(
        before in any::<[[u8; 32]; 2]>(),
        there in any::<[[u8; 32]; 2]>(),
        mask: u64,
        zeroing: bool,
        length in 0..3u8,
        // Prefix, W, opcodes of load and store, element.
        form in prop::sample::select(vec![
            (3, false, 0x6f, 0x7f, 1usize), // vmovdqu8 is F2, 16 is F2.W, 32 is F3, 64 is F3.W
            (3, true, 0x6f, 0x7f, 2),
            (2, false, 0x6f, 0x7f, 4),
            (2, true, 0x6f, 0x7f, 8),
            (0, false, 0x10, 0x11, 4),      // vmovups
            (1, true, 0x28, 0x29, 8),       // vmovapd
            (1, false, 0x6f, 0x7f, 4),      // vmovdqa32
        ]),
    ) {
        let (prefix, wide, load, store, element) = form;
        let bytes = 16usize << length;
        let [before, there]: [[u8; 64]; 2] = [before, there].map(|halves| halves.concat().try_into().expect("64"));
        let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
        cpu.registers.general[6] = DATA;
        cpu.set_vector(1, &before);
        cpu.set_vector(2, &before);
        cpu.set_opmask(1, mask);
        ram.put(DATA, &there);
        run(&mut cpu, &mut ram, &evex(prefix, wide, length, zeroing, 0, &[load, 0x0e]));
        prop_assert_eq!(cpu.vector(1), masked(&there[..bytes], &before, mask, element, zeroing));
        run(&mut cpu, &mut ram, &evex(prefix, wide, length, false, 0, &[store, 0x16]));
        let mut after = [0; 64];
        ram.get(DATA, &mut after);
        let mut expected = there;
        expected[..bytes].copy_from_slice(&masked(&before[..bytes], &there, mask, element, false)[..bytes]);
        prop_assert_eq!(after, expected);
        // Register to register.
        cpu.set_vector(1, &before);
        cpu.set_vector(2, &there);
        run(&mut cpu, &mut ram, &evex(prefix, wide, length, zeroing, 0, &[load, 0xca]));
        prop_assert_eq!(cpu.vector(1), masked(&there[..bytes], &before, mask, element, zeroing));
    }

    #[test]
    fn results_are_those_of_vex(
        vectors in any::<[[[u8; 32]; 2]; 3]>(),
        mask: u64,
        zeroing: bool,
        length in 0..2u8,
        from_memory: bool,
        // Opcode, W of EVEX, element: all with 66 in map 1.
        form in prop::sample::select(vec![
            (0xfcu8, false, 1usize), // paddb
            (0xfe, false, 4),        // paddd
            (0xd4, true, 8),         // paddq
            (0xd5, false, 2),        // pmullw
            (0xef, false, 4),        // pxor, vpxord
            (0xdf, true, 8),         // pandn, vpandnq
            (0xf4, true, 8),         // pmuludq
            (0x60, false, 1),        // punpcklbw
            (0x6d, true, 8),         // punpckhqdq
            (0xd2, false, 4),        // psrld by a register
            (0x63, false, 1),        // packsswb
            (0xf5, false, 4),        // pmaddwd
            (0xe5, false, 2),        // pmulhw
        ]),
    ) {
        let (opcode, wide, element) = form;
        let vectors: [[u8; 64]; 3] = vectors.map(|halves| halves.concat().try_into().expect("64"));
        let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
        cpu.registers.general[6] = DATA;
        let reset = |cpu: &mut TestCpu| {
            for (number, vector) in vectors.iter().enumerate() {
                cpu.set_vector(number + 1, vector);
            }
        };
        reset(&mut cpu);
        cpu.set_opmask(1, mask);
        ram.put(DATA, &vectors[2]);
        let last = if from_memory { 0x0e } else { 0xcb };
        // xmm1, xmm2, xmm3
        run(&mut cpu, &mut ram, &[0xc5, 0xe9 | length << 2, opcode, last]);
        let whole = cpu.vector(1);
        reset(&mut cpu);
        run(&mut cpu, &mut ram, &evex(1, wide, length, zeroing, 2, &[opcode, last]));
        let bytes = 16usize << length;
        prop_assert_eq!(cpu.vector(1), masked(&whole[..bytes], &vectors[0], mask, element, zeroing));
    }
}

#[test]
fn elements_that_are_left_out_do_not_fault() {
    // The last 16 bytes of RAM, and a page behind them that is not there.
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    let root = 0x1_0000u64;
    for (table, entry) in [(0, 0x1_1003u64), (1, 0x1_2003), (2, 0x1_3003)] {
        ram.put(root + 0x1000 * table, &entry.to_le_bytes());
    }
    ram.put(root + 0x3000 + 8, &0x1003u64.to_le_bytes());
    ram.put(root + 0x3000 + 8 * 4, &(DATA | 3).to_le_bytes());
    cpu.system.cr0 |= bits::CR0_PG | bits::CR0_WP;
    cpu.system.cr3 = root;
    cpu.registers.general[6] = DATA + 0xff0;
    ram.put(DATA + 0xff0, &[0x11; 16]);
    cpu.set_vector(1, &[0x22; 64]);
    cpu.set_opmask(1, 0x000f);
    // vmovdqu32 zmm1{k1}{z}, [rsi]
    let load = evex(2, false, 2, true, 0, &[0x6f, 0x0e]);
    run(&mut cpu, &mut ram, &load);
    let mut expected = [0; 64];
    expected[..16].fill(0x11);
    assert_eq!(cpu.vector(1), expected);
    // vmovdqu32 [rsi]{k1}, zmm1; vpaddd zmm1{k1}, zmm2, [rsi]; and with a broadcast for nothing
    let store = evex(2, false, 2, false, 0, &[0x7f, 0x0e]);
    run(&mut cpu, &mut ram, &store);
    let add = evex(1, false, 2, false, 2, &[0xfe, 0x0e]);
    run(&mut cpu, &mut ram, &add);
    cpu.set_opmask(1, 0x0010);
    for code in [&load, &add] {
        let exception = fault(&mut cpu, &mut ram, code);
        assert_eq!((exception.vector, exception.cr2), (14, Some(DATA + 0x1000)));
    }
    cpu.set_opmask(1, 0x001f);
    let exception = fault(&mut cpu, &mut ram, &store);
    assert_eq!((exception.vector, exception.error_code), (14, Some(2)));
    let mut bytes = [0; 16];
    ram.get(DATA + 0xff0, &mut bytes);
    assert_eq!(
        bytes, [0x11; 16],
        "nothing is written where something faults"
    );
    let mut broadcast = add.clone();
    broadcast[3] |= 0x10;
    cpu.registers.general[6] = DATA + 0x1000;
    cpu.set_opmask(1, 0);
    run(&mut cpu, &mut ram, &broadcast);
    cpu.set_opmask(1, 1 << 15);
    assert_eq!(fault(&mut cpu, &mut ram, &broadcast).vector, 14);
    // vmovdqa32 is aligned as a whole, whatever the mask.
    cpu.set_opmask(1, 0);
    cpu.registers.general[6] = DATA + 0xff0;
    let aligned = evex(1, false, 2, false, 0, &[0x6f, 0x0e]);
    assert_eq!(fault(&mut cpu, &mut ram, &aligned).vector, 13);
}

#[test]
fn one_element_for_all() {
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    cpu.registers.general[6] = DATA;
    ram.put(DATA, &5u32.to_le_bytes());
    cpu.set_vector(1, &[0xee; 64]);
    cpu.set_vector(2, &[1; 64]);
    cpu.set_opmask(1, 0x8001);
    // vpaddd zmm1{k1}{z}, zmm2, [rsi]{1to16}
    let mut code = evex(1, false, 2, true, 2, &[0xfe, 0x0e]);
    code[3] |= 0x10;
    run(&mut cpu, &mut ram, &code);
    let mut expected = [0; 64];
    for number in [0, 15] {
        expected[4 * number..][..4].copy_from_slice(&0x0101_0106u32.to_le_bytes());
    }
    assert_eq!(cpu.vector(1), expected);
    // vpbroadcastd zmm1{k1}, ebx
    cpu.registers.general[3] = 0x7766_5544;
    run(&mut cpu, &mut ram, &[0x62, 0xf2, 0x7d, 0x49, 0x7c, 0xcb]);
    for number in [0, 15] {
        expected[4 * number..][..4].copy_from_slice(&0x7766_5544u32.to_le_bytes());
    }
    assert_eq!(cpu.vector(1), expected);
    // vbroadcasti64x2 zmm20, [rsi]
    ram.put(DATA, &[0x5a; 16]);
    run(&mut cpu, &mut ram, &[0x62, 0xe2, 0xfd, 0x48, 0x5a, 0x26]);
    assert_eq!(cpu.vector(20), [0x5a; 64]);
}

#[test]
fn comparisons_give_masks() {
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    let mut a = [0; 64];
    (a[0], a[1], a[2], a[63]) = (0x80, 5, 0x7f, 1);
    cpu.set_vector(2, &a);
    cpu.set_vector(3, &[0; 64]);
    cpu.set_opmask(1, !2);
    for (code, expected) in [
        // vpcmpgtb k4, zmm2, zmm3
        (
            &[0x62, 0xf1, 0x6d, 0x48, 0x64, 0xe3][..],
            1 << 63 | 0b110u64,
        ),
        // vpcmpgtb k4{k1}, zmm2, zmm3
        (&[0x62, 0xf1, 0x6d, 0x49, 0x64, 0xe3], 1 << 63 | 0b100),
        // vpcmpub k4, zmm2, zmm3, 6 (not at most)
        (&[0x62, 0xf3, 0x6d, 0x48, 0x3e, 0xe3, 6], 1 << 63 | 0b111),
        // vpcmpb k4, zmm2, zmm3, 1 (below)
        (&[0x62, 0xf3, 0x6d, 0x48, 0x3f, 0xe3, 1], 1),
        // vptestnmb k4, zmm2, zmm2
        (&[0x62, 0xf2, 0x6e, 0x48, 0x26, 0xe2], !(1 << 63 | 0b111)),
    ] {
        run(&mut cpu, &mut ram, code);
        assert_eq!(cpu.opmask(4), expected, "{code:02x?}");
    }
    // vpternlogd zmm1, zmm2, zmm3, 0x96: all three
    cpu.set_vector(1, &[0xf0; 64]);
    run(
        &mut cpu,
        &mut ram,
        &[0x62, 0xf3, 0x6d, 0x48, 0x25, 0xcb, 0x96],
    );
    assert_eq!(cpu.vector(1)[..4], [0x70, 0xf5, 0x8f, 0xf0]);
    // vprold zmm1, zmm2, 4
    run(&mut cpu, &mut ram, &[0x62, 0xf1, 0x75, 0x48, 0x72, 0xca, 4]);
    assert_eq!(cpu.vector(1)[..4], [0x00, 0x58, 0xf0, 0x07]);
}
