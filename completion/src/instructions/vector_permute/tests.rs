//! What the host's processor is not asked: EVEX forms. All others are compared with it.

use crate::testing::{DATA, Ram, TestCpu, run};

#[test]
fn parts_of_wide_vectors() {
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    cpu.registers.general[6] = DATA;
    let mut whole = [0; 64];
    for (byte, number) in whole.iter_mut().zip(0..) {
        *byte = number;
    }
    cpu.set_vector(2, &whole);
    cpu.set_vector(3, &[0xaa; 64]);
    cpu.set_opmask(1, 0b0101);
    // vextracti32x4 xmm1, zmm2, 3
    run(&mut cpu, &mut ram, &[0x62, 0xf3, 0x7d, 0x48, 0x39, 0xd1, 3]);
    assert_eq!(cpu.vector(1)[..16], whole[48..]);
    assert_eq!(cpu.vector(1)[16..], [0; 48]);
    // vextracti32x4 [rsi]{k1}, zmm2, 1
    ram.put(DATA, &[0xee; 16]);
    run(&mut cpu, &mut ram, &[0x62, 0xf3, 0x7d, 0x49, 0x39, 0x16, 1]);
    let mut bytes = [0; 16];
    ram.get(DATA, &mut bytes);
    assert_eq!(bytes[..8], [16, 17, 18, 19, 0xee, 0xee, 0xee, 0xee]);
    // vinserti64x4 zmm1, zmm2, ymm3, 1
    run(&mut cpu, &mut ram, &[0x62, 0xf3, 0xed, 0x48, 0x3a, 0xcb, 1]);
    assert_eq!(cpu.vector(1)[..32], whole[..32]);
    assert_eq!(cpu.vector(1)[32..], [0xaa; 32]);
    // vpblendmd zmm1{k1}, zmm2, zmm3
    run(&mut cpu, &mut ram, &[0x62, 0xf2, 0x6d, 0x49, 0x64, 0xcb]);
    assert_eq!(cpu.vector(1)[..8], [0xaa, 0xaa, 0xaa, 0xaa, 4, 5, 6, 7]);
    // vpermd zmm1, zmm4, zmm2
    let mut selectors = [0; 64];
    selectors[0] = 15;
    selectors[4] = 0x11;
    cpu.set_vector(4, &selectors);
    run(&mut cpu, &mut ram, &[0x62, 0xf2, 0x5d, 0x48, 0x36, 0xca]);
    assert_eq!(cpu.vector(1)[..8], [60, 61, 62, 63, 4, 5, 6, 7]);
    // vpmovzxbw zmm1, [rsi]
    ram.put(DATA, &[0x80; 32]);
    run(&mut cpu, &mut ram, &[0x62, 0xf2, 0x7d, 0x48, 0x30, 0x0e]);
    assert_eq!(cpu.vector(1)[60..], [0x80, 0, 0x80, 0]);
}
