//! Each instruction beside the processor's own, on random vectors.
#![expect(unsafe_code, reason = "the processor is the reference")]

use proptest::prelude::*;

use crate::testing::{DATA, Ram, TestCpu, fault, native, run};
use crate::word::{at, put};

type Vectors = [[u8; 32]; 3];

/// Executes one instruction on YMM0 to YMM2, and gives its bytes. YMM2 is also at [rsi].
macro_rules! vector_native {
    ($name:ident, $text:literal) => {
        fn $name(vectors: &mut Vectors) -> &'static [u8] {
            let (start, end): (u64, u64);
            let memory = Aligned(vectors[2]);
            // SAFETY: the instruction uses three vector registers, and 32 aligned bytes at RSI; the tests
            // that call this look for AVX2.
            unsafe {
                std::arch::asm!(
                    "lea r8, [rip + 2f]",
                    "lea r9, [rip + 3f]",
                    "vmovdqu ymm0, [rdi]",
                    "vmovdqu ymm1, [rdi + 32]",
                    "vmovdqu ymm2, [rdi + 64]",
                    "2:",
                    $text,
                    "3:",
                    "vmovdqu [rdi], ymm0",
                    "vzeroupper",
                    in("rdi") vectors.as_mut_ptr(),
                    in("rsi") &raw const memory,
                    out("r8") start,
                    out("r9") end,
                    out("xmm0") _,
                    out("xmm1") _,
                    out("xmm2") _,
                );
            }
            native::code(start, end)
        }
    };
}

#[repr(align(32))]
struct Aligned(#[expect(dead_code, reason = "read by the instruction")] [u8; 32]);

fn compare(instruction: fn(&mut Vectors) -> &'static [u8], vectors: Vectors) {
    let mut here = vectors;
    let code = instruction(&mut here);
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.xcr0 = 7;
    cpu.registers.general[6] = DATA;
    ram.put(DATA, &vectors[2]);
    let upper = cpu.layout.component(2).offset_bytes;
    for (number, vector) in vectors.iter().enumerate() {
        put(&mut cpu.area, 160 + 16 * number, &vector[..16]);
        put(&mut cpu.area, upper + 16 * number, &vector[16..]);
    }
    put(&mut cpu.area, 512, &7u64.to_le_bytes());
    run(&mut cpu, &mut ram, code);
    let mut found = [0; 32];
    found[..16].copy_from_slice(&at::<16>(&cpu.area, 160));
    found[16..].copy_from_slice(&at::<16>(&cpu.area, upper));
    assert_eq!(found, here[0], "{code:02x?} on {vectors:02x?}");
}

/// Vectors in which counts and selectors are small and elements equal more often than by chance.
fn vectors() -> impl Strategy<Value = Vectors> {
    (any::<Vectors>(), any::<bool>(), any::<bool>(), 0..70u8).prop_map(
        |(mut vectors, same, small, count)| {
            if same {
                let half: [u8; 16] = at(&vectors[1], 8);
                put(&mut vectors[2], 8, &half);
                vectors[0] = vectors[1];
            }
            if small {
                put(&mut vectors[2], 0, &[count, 0, 0, 0, 0, 0, 0, 0]);
            }
            vectors
        },
    )
}

macro_rules! against_host {
    ($($name:ident => $($text:literal),+;)*) => {
        $(#[test]
        fn $name() {
            if !std::is_x86_feature_detected!("avx2") {
                return;
            }
            $({
                vector_native!(instruction, $text);
                proptest!(ProptestConfig::with_cases(64), |(vectors in vectors())| compare(instruction, vectors));
            })+
        })*
    };
}

against_host! {
    logic => "pxor xmm0, xmm2", "por xmm0, xmm2", "pand xmm0, [rsi]", "pandn xmm0, xmm2", "vpxor ymm0, ymm1, ymm2",
        "vpandn ymm0, ymm1, [rsi]", "xorps xmm0, xmm2", "andnpd xmm0, xmm2", "vorps ymm0, ymm1, ymm2", "vpxor xmm0, xmm1, xmm2";
    addition => "paddb xmm0, xmm2", "paddw xmm0, xmm2", "paddd xmm0, [rsi]", "paddq xmm0, xmm2", "vpaddd ymm0, ymm1, ymm2",
        "psubb xmm0, xmm2", "psubw xmm0, xmm2", "psubd xmm0, xmm2", "vpsubq ymm0, ymm1, [rsi]";
    comparison => "pcmpeqb xmm0, xmm2", "pcmpeqw xmm0, xmm2", "pcmpeqd xmm0, xmm2", "vpcmpeqq ymm0, ymm1, ymm2",
        "pcmpgtb xmm0, xmm2", "pcmpgtw xmm0, xmm2", "pcmpgtd xmm0, xmm2", "vpcmpgtq ymm0, ymm1, ymm2", "pminub xmm0, xmm2",
        "vpmaxub ymm0, ymm1, ymm2";
    multiplication => "pmuludq xmm0, xmm2", "vpmuludq ymm0, ymm1, ymm2", "pmullw xmm0, xmm2", "vpmulld ymm0, ymm1, ymm2";
    shifts => "psllw xmm0, xmm2", "pslld xmm0, xmm2", "psllq xmm0, [rsi]", "psrlw xmm0, xmm2", "psrld xmm0, xmm2",
        "vpsrlq ymm0, ymm1, xmm2", "psraw xmm0, xmm2", "vpsrad ymm0, ymm1, [rsi]", "pslld xmm0, 7", "psrld xmm0, 12",
        "psraw xmm0, 200", "vpsrlq ymm0, ymm1, 33", "psllw xmm0, 16", "pslldq xmm0, 5", "psrldq xmm0, 11", "vpslldq ymm0, ymm1, 20",
        "vpsrldq ymm0, ymm1, 3";
    shuffles => "pshufb xmm0, xmm2", "vpshufb ymm0, ymm1, ymm2", "pshufd xmm0, xmm2, 0x39", "pshufd xmm0, [rsi], 0x1b",
        "vpshufd ymm0, ymm2, 0x93", "pshuflw xmm0, xmm2, 0x1b", "vpshufhw ymm0, ymm2, 0x4e", "shufps xmm0, xmm2, 0x9c",
        "vshufps ymm0, ymm1, ymm2, 0x72", "palignr xmm0, xmm2, 5", "vpalignr ymm0, ymm1, ymm2, 21", "palignr xmm0, xmm2, 40";
    interleaving => "punpcklbw xmm0, xmm2", "punpcklwd xmm0, xmm2", "punpckldq xmm0, xmm2", "punpcklqdq xmm0, [rsi]",
        "punpckhbw xmm0, xmm2", "vpunpckhwd ymm0, ymm1, ymm2", "punpckhdq xmm0, xmm2", "vpunpckhqdq ymm0, ymm1, ymm2";
}

#[test]
fn legacy_operands_in_memory_are_aligned() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.registers.general[6] = DATA + 8;
    // pxor xmm0, [rsi]; vpxor xmm0, xmm1, [rsi]
    assert_eq!(
        fault(&mut cpu, &mut ram, &[0x66, 0x0f, 0xef, 0x06]).vector,
        13
    );
    run(&mut cpu, &mut ram, &[0xc5, 0xf1, 0xef, 0x06]);
}
