//! Each instruction beside the processor's own, on random operands and flags.
#![expect(unsafe_code, reason = "the processor is the reference")]

use proptest::prelude::*;

use crate::Feature;
use crate::cpu::bits;
use crate::testing::native::{FLAGS, Native, native};
use crate::testing::{DATA, Ram, TestCpu, fault, run, word};

/// Values in which something is at an edge more often than by chance.
fn operand() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        Just(0),
        Just(1),
        Just(u64::MAX),
        (0..64u32).prop_map(|bit| 1 << bit),
        (0..64u32).prop_map(|bit| u64::MAX >> bit),
        0..0x10000u64,
    ]
}

fn state() -> impl Strategy<Value = Native> {
    (operand(), operand(), operand(), operand(), any::<u64>()).prop_map(
        |(rax, rcx, rdx, rsi, flags)| Native {
            rax,
            rcx,
            rdx,
            rsi,
            flags: flags & FLAGS,
        },
    )
}

/// Runs `native` here and there, and compares registers, memory and the flags of `defined`.
fn compare(native: fn(&mut Native) -> &'static [u8], state: Native, defined: u64) {
    // RSI points to its own value in memory on both sides.
    let mut memory = state.rsi.to_le_bytes();
    let mut here = state;
    here.rsi = u64::try_from((&raw mut memory).expose_provenance()).expect("an address");
    let code = native(&mut here);

    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    ram.put(DATA, &state.rsi.to_le_bytes());
    cpu.registers.general[..3].copy_from_slice(&[state.rax, state.rcx, state.rdx]);
    cpu.registers.general[6] = DATA;
    cpu.registers.rflags = state.flags | 2;
    run(&mut cpu, &mut ram, code);
    assert_eq!(
        cpu.registers.general[..3],
        [here.rax, here.rcx, here.rdx],
        "{code:02x?} on {state:x?}"
    );
    assert_eq!(word(&ram, DATA), u64::from_le_bytes(memory), "memory");
    assert_eq!(
        cpu.registers.rflags & defined,
        here.flags & defined,
        "flags of {code:02x?} on {state:x?}"
    );
    // What is not defined is at least not made up.
    assert_eq!(cpu.registers.rflags & !FLAGS, 2);
}

const ALL: u64 = FLAGS;
const COUNT: u64 = bits::CF | bits::ZF;
const SIGNED: u64 = bits::CF | bits::ZF | bits::SF | bits::OF;

macro_rules! against_host {
    ($($name:ident $host:tt $defined:expr => $($text:literal),+;)*) => {
        $(#[test]
        fn $name() {
            if !std::is_x86_feature_detected!($host) {
                return;
            }
            $({
                native!(instruction, $text);
                proptest!(|(state in state())| compare(instruction, state, $defined));
            })+
        })*
    };
}

against_host! {
    popcnt "popcnt" ALL => "popcnt rax, rcx", "popcnt eax, ecx", "popcnt ax, cx", "popcnt rdx, [rsi]", "popcnt ax, [rsi + 2]";
    lzcnt "lzcnt" COUNT => "lzcnt rax, rcx", "lzcnt eax, ecx", "lzcnt ax, cx", "lzcnt edx, [rsi + 4]";
    tzcnt "bmi1" COUNT => "tzcnt rax, rcx", "tzcnt eax, ecx", "tzcnt ax, cx", "tzcnt rdx, [rsi]";
    andn "bmi1" SIGNED => "andn rax, rcx, rdx", "andn eax, ecx, edx", "andn eax, ecx, [rsi]";
    bextr "bmi1" bits::CF | bits::ZF | bits::OF => "bextr rax, rcx, rdx", "bextr eax, ecx, edx", "bextr rax, [rsi], rdx";
    blsi "bmi1" SIGNED => "blsi rax, rcx", "blsi eax, ecx", "blsi eax, [rsi]";
    blsmsk "bmi1" SIGNED => "blsmsk rax, rcx", "blsmsk eax, ecx";
    blsr "bmi1" SIGNED => "blsr rax, rcx", "blsr eax, ecx";
    bzhi "bmi2" SIGNED => "bzhi rax, rcx, rdx", "bzhi eax, ecx, edx";
    mulx "bmi2" ALL => "mulx rax, rcx, rax", "mulx eax, ecx, ecx", "mulx rax, rax, rcx", "mulx rax, rcx, [rsi]";
    pdep "bmi2" ALL => "pdep rax, rcx, rdx", "pdep eax, ecx, edx", "pdep eax, ecx, [rsi]";
    pext "bmi2" ALL => "pext rax, rcx, rdx", "pext eax, ecx, edx";
    rorx "bmi2" ALL => "rorx rax, rcx, 13", "rorx eax, ecx, 45", "rorx rax, [rsi], 63";
    sarx "bmi2" ALL => "sarx rax, rcx, rdx", "sarx eax, ecx, edx";
    shlx "bmi2" ALL => "shlx rax, rcx, rdx", "shlx eax, ecx, edx";
    shrx "bmi2" ALL => "shrx rax, rcx, rdx", "shrx eax, ecx, edx";
    adcx "adx" ALL => "adcx rax, rcx", "adcx eax, ecx", "adcx rax, [rsi]";
    adox "adx" ALL => "adox rax, rcx", "adox eax, ecx", "adox eax, [rsi]";
    crc32 "sse4.2" ALL => "crc32 rax, rcx", "crc32 eax, ecx", "crc32 eax, cx", "crc32 eax, cl", "crc32 eax, ch", "crc32 rax, qword ptr [rsi]", "crc32 eax, byte ptr [rsi]";
    movbe "movbe" ALL => "movbe rax, [rsi]", "movbe eax, [rsi]", "movbe ax, [rsi]", "movbe [rsi], rcx", "movbe [rsi], ecx", "movbe [rsi + 2], cx";
}

#[test]
fn without_the_feature_counts_are_bit_scans() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.missing = vec![Feature::Lzcnt, Feature::Bmi1];
    cpu.registers.general[1] = 0x40_0000;
    // lzcnt eax, ecx; tzcnt edx, ecx
    run(&mut cpu, &mut ram, &[0xf3, 0x0f, 0xbd, 0xc1]);
    assert_eq!(cpu.registers.general[0], 22);
    run(&mut cpu, &mut ram, &[0xf3, 0x0f, 0xbc, 0xd1]);
    assert_eq!(cpu.registers.general[2], 22);
    cpu.registers.general[1] = 0;
    run(&mut cpu, &mut ram, &[0xf3, 0x0f, 0xbd, 0xc1]);
    assert_eq!(
        cpu.registers.general[0], 22,
        "a zero leaves the destination"
    );
    assert_ne!(cpu.registers.rflags & bits::ZF, 0);
}

#[test]
fn without_the_feature_the_others_do_not_exist() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.missing = vec![Feature::Popcnt, Feature::Bmi1, Feature::Bmi2];
    for code in [
        [0xf3, 0x48, 0x0f, 0xb8, 0xc1].as_slice(),
        &[0xc4, 0xe2, 0xf0, 0xf2, 0xc2],
        &[0xc4, 0xe2, 0xf3, 0xf5, 0xc2],
    ] {
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 6, "{code:02x?}");
    }
}
