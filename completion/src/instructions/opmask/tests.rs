//! Known answers: few hosts of tests have AVX-512.

use crate::cpu::bits;
use crate::testing::{DATA, Ram, TestCpu, fault, run, word};

#[test]
fn masks_move() {
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    cpu.registers.general[0] = 0x8877_6655_4433_2211;
    cpu.registers.general[6] = DATA;
    // kmovq k1, rax; kmovd k2, eax; kmovw k3, eax; kmovb k4, eax
    for (code, number, value) in [
        (
            &[0xc4, 0xe1, 0xfb, 0x92, 0xc8][..],
            1,
            0x8877_6655_4433_2211u64,
        ),
        (&[0xc5, 0xfb, 0x92, 0xd0], 2, 0x4433_2211),
        (&[0xc5, 0xf8, 0x92, 0xd8], 3, 0x2211),
        (&[0xc5, 0xf9, 0x92, 0xe0], 4, 0x11),
        // kmovw k5, k1
        (&[0xc5, 0xf8, 0x90, 0xe9], 5, 0x2211),
    ] {
        run(&mut cpu, &mut ram, code);
        assert_eq!(cpu.opmask(number), value, "{code:02x?}");
    }
    // kmovd [rsi], k1; kmovq k6, [rsi]; kmovb ecx, k6
    ram.put(DATA, &[0xff; 8]);
    run(&mut cpu, &mut ram, &[0xc4, 0xe1, 0xf9, 0x91, 0x0e]);
    assert_eq!(word(&ram, DATA), 0xffff_ffff_4433_2211);
    run(&mut cpu, &mut ram, &[0xc4, 0xe1, 0xf8, 0x90, 0x36]);
    assert_eq!(cpu.opmask(6), 0xffff_ffff_4433_2211);
    cpu.registers.general[1] = u64::MAX;
    run(&mut cpu, &mut ram, &[0xc5, 0xf9, 0x93, 0xce]);
    assert_eq!(cpu.registers.general[1], 0x11);
}

#[test]
fn masks_are_calculated_with() {
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    cpu.set_opmask(1, 0xf0f0_1234);
    cpu.set_opmask(2, 0x0ff0_00ff);
    for (code, value) in [
        (&[0xc5, 0xf4, 0x41, 0xda][..], 0x0034u64), // kandw k3, k1, k2
        (&[0xc5, 0xf4, 0x42, 0xda], 0x00cb),        // kandnw
        (&[0xc5, 0xf4, 0x45, 0xda], 0x12ff),        // korw
        (&[0xc5, 0xf4, 0x46, 0xda], 0xed34),        // kxnorw
        (&[0xc5, 0xf4, 0x47, 0xda], 0x12cb),        // kxorw
        (&[0xc5, 0xf4, 0x4a, 0xda], 0x1333),        // kaddw
        (&[0xc5, 0xf8, 0x44, 0xd9], 0xedcb),        // knotw k3, k1
        (&[0xc5, 0xf5, 0x4b, 0xda], 0x34ff),        // kunpckbw k3, k1, k2
        (&[0xc4, 0xe3, 0xf9, 0x32, 0xd9, 4], 0x2340), // kshiftlw k3, k1, 4
        (&[0xc4, 0xe3, 0xf9, 0x30, 0xd9, 17], 0),   // kshiftrw k3, k1, 17
    ] {
        run(&mut cpu, &mut ram, code);
        assert_eq!(cpu.opmask(3), value, "{code:02x?}");
    }
    // kortestw k1, k2; ktestw k2, k2; kortestw of all ones
    for (code, first, flags) in [
        (&[0xc5, 0xf8, 0x98, 0xca][..], 0u64, 0),
        (&[0xc5, 0xf8, 0x98, 0xca], 0xff00, bits::CF),
        (&[0xc5, 0xf8, 0x99, 0xca], 0xff00, bits::ZF),
        (&[0xc5, 0xf8, 0x99, 0xca], 0x00ff, bits::CF),
    ] {
        cpu.set_opmask(1, first);
        cpu.registers.rflags = 2 | bits::OF;
        run(&mut cpu, &mut ram, code);
        assert_eq!(cpu.registers.rflags, 2 | flags, "{code:02x?} {first:#x}");
    }
}

#[test]
fn masks_are_state_of_avx_512() {
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    cpu.xcr0 = 7;
    assert_eq!(
        fault(&mut cpu, &mut ram, &[0xc5, 0xf8, 0x90, 0xe9]).vector,
        6
    );
    cpu.xcr0 = 0xe7;
    cpu.system.cr0 |= bits::CR0_TS;
    assert_eq!(
        fault(&mut cpu, &mut ram, &[0xc5, 0xf8, 0x90, 0xe9]).vector,
        7
    );
}

#[test]
fn masks_and_vectors() {
    let (mut cpu, mut ram) = (TestCpu::with_avx512(), Ram::new());
    cpu.set_opmask(1, 0x8000_0000_0000_0005);
    // vpmovm2b zmm2, k1; vpmovb2m k3, zmm2
    run(&mut cpu, &mut ram, &[0x62, 0xf2, 0x7e, 0x48, 0x28, 0xd1]);
    let mut expected = [0; 64];
    (expected[0], expected[2], expected[63]) = (0xff, 0xff, 0xff);
    assert_eq!(cpu.vector(2), expected);
    run(&mut cpu, &mut ram, &[0x62, 0xf2, 0x7e, 0x48, 0x29, 0xda]);
    assert_eq!(cpu.opmask(3), 0x8000_0000_0000_0005);
}
