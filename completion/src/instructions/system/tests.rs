use crate::cpu::{SegmentName, bits};
use crate::testing::{DATA, Ram, TestCpu, fault, run, word};
use crate::word::put;
use crate::{Exception, Feature};

const CLAC: &[u8] = &[0x0f, 0x01, 0xca];
const STAC: &[u8] = &[0x0f, 0x01, 0xcb];
const RDTSC: &[u8] = &[0x0f, 0x31];
const RDTSCP: &[u8] = &[0x0f, 0x01, 0xf9];
const RDPID: &[u8] = &[0xf3, 0x0f, 0xc7, 0xf8];
const XGETBV: &[u8] = &[0x0f, 0x01, 0xd0];
const XSETBV: &[u8] = &[0x0f, 0x01, 0xd1];
const SWAPGS: &[u8] = &[0x0f, 0x01, 0xf8];
const RDGSBASE: &[u8] = &[0xf3, 0x48, 0x0f, 0xae, 0xc8];
const WRGSBASE: &[u8] = &[0xf3, 0x48, 0x0f, 0xae, 0xd8];
const INVPCID: &[u8] = &[0x66, 0x0f, 0x38, 0x82, 0x06];
const MONITOR: &[u8] = &[0x0f, 0x01, 0xc8];
const RDRAND: &[u8] = &[0x48, 0x0f, 0xc7, 0xf0];
const RDSEED: &[u8] = &[0x66, 0x0f, 0xc7, 0xf8];

fn machine() -> (TestCpu, Ram) {
    (TestCpu::new(), Ram::new())
}

#[test]
fn the_supervisors_access_flag() {
    let (mut cpu, mut ram) = machine();
    run(&mut cpu, &mut ram, STAC);
    assert_eq!(cpu.registers.rflags, 2 | bits::AC);
    run(&mut cpu, &mut ram, CLAC);
    assert_eq!(cpu.registers.rflags, 2);
    assert_eq!(
        fault(&mut TestCpu::new().at_level(3), &mut ram, STAC).vector,
        6
    );
    cpu.missing = vec![Feature::Smap];
    assert_eq!(fault(&mut cpu, &mut ram, CLAC).vector, 6);
}

#[test]
fn time_and_the_processors_number() {
    let (mut cpu, mut ram) = machine();
    cpu.registers.general[..3].fill(u64::MAX);
    run(&mut cpu, &mut ram, RDTSCP);
    assert_eq!(cpu.registers.general[..3], [2, 7, 1]);
    cpu.registers.general[..3].fill(u64::MAX);
    run(&mut cpu, &mut ram, RDTSC);
    assert_eq!(cpu.registers.general[..3], [2, u64::MAX, 1]);
    run(&mut cpu, &mut ram, RDPID);
    assert_eq!(cpu.registers.general[0], 7);
    let mut user = TestCpu::new().at_level(3);
    run(&mut user, &mut ram, RDTSCP);
    user.system.cr4 |= bits::CR4_TSD;
    assert_eq!(
        fault(&mut user, &mut ram, RDTSCP),
        Exception::general_protection()
    );
}

#[test]
fn extended_control_register() {
    let (mut cpu, mut ram) = machine();
    let all = cpu.layout.user_components();
    run(&mut cpu, &mut ram, XGETBV);
    assert_eq!(cpu.registers.general[0], all & 0xffff_ffff);
    put(&mut cpu.area, 512, &2u64.to_le_bytes());
    cpu.registers.general[1] = 1;
    run(&mut cpu, &mut ram, XGETBV);
    assert_eq!(cpu.registers.general[0], 2, "what is in use");
    cpu.registers.general[1] = 2;
    assert_eq!(fault(&mut cpu, &mut ram, XGETBV).vector, 13);

    cpu.registers.general[1] = 0;
    cpu.registers.general[2] = 0;
    for (value, valid) in [
        (1, true),
        (3, true),
        (0, false),
        (2, false),
        (5, false),
        (1 << 30 | 1, false),
    ] {
        cpu.registers.general[0] = value;
        cpu.xcr0 = 1;
        if valid {
            run(&mut cpu, &mut ram, XSETBV);
            assert_eq!(cpu.xcr0, value);
        } else {
            assert_eq!(fault(&mut cpu, &mut ram, XSETBV).vector, 13, "{value:#x}");
        }
    }
    cpu.registers.general[0] = 1;
    let mut user = cpu.clone().at_level(3);
    assert_eq!(fault(&mut user, &mut ram, XSETBV).vector, 13);
    cpu.system.cr4 &= !bits::CR4_OSXSAVE;
    assert_eq!(fault(&mut cpu, &mut ram, XGETBV).vector, 6);
}

#[test]
fn segment_bases() {
    let (mut cpu, mut ram) = machine();
    assert_eq!(fault(&mut cpu, &mut ram, RDGSBASE).vector, 6);
    cpu.system.cr4 |= bits::CR4_FSGSBASE;
    cpu.registers.general[0] = 0xffff_8000_0000_1000;
    run(&mut cpu, &mut ram, WRGSBASE);
    cpu.registers.general[0] = 0;
    run(&mut cpu, &mut ram, RDGSBASE);
    assert_eq!(cpu.registers.general[0], 0xffff_8000_0000_1000);
    cpu.kernel_gs_base = 0x1234;
    run(&mut cpu, &mut ram, SWAPGS);
    assert_eq!(cpu.system.segment(SegmentName::Gs).base, 0x1234);
    assert_eq!(cpu.kernel_gs_base, 0xffff_8000_0000_1000);
    cpu.registers.general[0] = 1 << 62;
    assert_eq!(fault(&mut cpu, &mut ram, WRGSBASE).vector, 13);
    assert_eq!(
        fault(&mut cpu.clone().at_level(3), &mut ram, SWAPGS).vector,
        13
    );
}

#[test]
fn translations_are_forgotten() {
    let (mut cpu, mut ram) = machine();
    cpu.registers.general[6] = DATA;
    for (kind, context, address, valid) in [
        (0u64, 0xfffu64, 0u64, true),
        (2, 0, 1 << 62, true),
        (3, 1, 0, true),
        (4, 0, 0, false),
        (0, 0x1000, 0, false),
        (0, 0, 1 << 62, false),
    ] {
        cpu.registers.general[0] = kind;
        ram.put(DATA, &context.to_le_bytes());
        ram.put(DATA + 8, &address.to_le_bytes());
        let before = cpu.flushes;
        if valid {
            run(&mut cpu, &mut ram, INVPCID);
        } else {
            assert_eq!(fault(&mut cpu, &mut ram, INVPCID).vector, 13);
        }
        assert_eq!(cpu.flushes - before, u32::from(valid));
    }
}

#[test]
fn random_numbers_may_be_out() {
    let (mut cpu, mut ram) = machine();
    cpu.registers.rflags |= bits::OF | bits::ZF;
    run(&mut cpu, &mut ram, RDRAND);
    assert_eq!(cpu.registers.general[0], 0x1234_5678_9abc_def0);
    assert_eq!(cpu.registers.rflags, 2 | bits::CF);
    cpu.random = None;
    run(&mut cpu, &mut ram, RDSEED);
    assert_eq!(
        cpu.registers.general[0], 0x1234_5678_9abc_0000,
        "16 bits of it"
    );
    assert_eq!(cpu.registers.rflags, 2);
}

#[test]
fn caches_and_hints() {
    let (mut cpu, mut ram) = machine();
    cpu.registers.general[6] = DATA;
    for code in [
        &[0x0f, 0x09][..],         // wbinvd
        &[0x0f, 0xae, 0x3e],       // clflush [rsi]
        &[0x66, 0x0f, 0xae, 0x3e], // clflushopt [rsi]
        &[0x66, 0x0f, 0xae, 0x36], // clwb [rsi]
        &[0x0f, 0x18, 0x0e],       // prefetcht0 [rsi]
        &[0x0f, 0x0d, 0x0e],       // prefetchw [rsi]
        &[0x0f, 0xae, 0xf0],       // mfence
        &[0x0f, 0xae, 0xe8],       // lfence
        &[0x0f, 0xae, 0xf8],       // sfence
        &[0xf3, 0x0f, 0x1e, 0xfa], // endbr64
        &[0x0f, 0x1f, 0x06],       // nop [rsi]
    ] {
        let before = cpu.registers.general;
        run(&mut cpu, &mut ram, code);
        assert_eq!(cpu.registers.general, before);
    }
    assert_eq!(
        fault(&mut cpu.at_level(3), &mut ram, &[0x0f, 0x09]).vector,
        13
    );
    // A flush can fault, a prefetch cannot.
    let mut cpu = TestCpu::new();
    cpu.registers.general[6] = 1 << 62;
    assert_eq!(fault(&mut cpu, &mut ram, &[0x0f, 0xae, 0x3e]).vector, 13);
    run(&mut cpu, &mut ram, &[0x0f, 0x18, 0x0e]);
}

#[test]
fn protection_keys() {
    const RDPKRU: &[u8] = &[0x0f, 0x01, 0xee];
    const WRPKRU: &[u8] = &[0x0f, 0x01, 0xef];
    let (mut cpu, mut ram) = machine();
    assert_eq!(fault(&mut cpu, &mut ram, RDPKRU).vector, 6);
    cpu.system.cr4 |= bits::CR4_PKE;
    cpu.registers.general[0] = 0xffff;
    run(&mut cpu, &mut ram, RDPKRU);
    assert_eq!(cpu.registers.general[0], 0);
    cpu.registers.general[1] = 1;
    assert_eq!(fault(&mut cpu, &mut ram, WRPKRU).vector, 13);
}

#[test]
fn waiting_for_a_while() {
    let (mut cpu, mut ram) = machine();
    cpu.registers.general[0] = DATA;
    // umonitor rax; umwait ecx; tpause ecx
    run(&mut cpu, &mut ram, &[0xf3, 0x0f, 0xae, 0xf0]);
    for code in [[0xf2, 0x0f, 0xae, 0xf1], [0x66, 0x0f, 0xae, 0xf1]] {
        cpu.registers.rflags = 2 | bits::CF | bits::ZF;
        cpu.registers.general[1] = 1;
        let done = run(&mut cpu, &mut ram, &code);
        assert_eq!(done.hint, Some(crate::Hint::Wait));
        assert_eq!(cpu.registers.rflags, 2);
        cpu.registers.general[1] = 2;
        assert_eq!(fault(&mut cpu, &mut ram, &code).vector, 13);
        let mut user = cpu.clone().at_level(3);
        user.system.cr4 |= bits::CR4_TSD;
        assert_eq!(fault(&mut user, &mut ram, &code).vector, 13);
        user.missing = vec![Feature::Waitpkg];
        assert_eq!(fault(&mut user, &mut ram, &code).vector, 6);
    }
    cpu.registers.general[0] = 1 << 62;
    assert_eq!(
        fault(&mut cpu, &mut ram, &[0xf3, 0x0f, 0xae, 0xf0]).vector,
        13
    );
}

#[test]
fn one_translation_is_forgotten() {
    let (mut cpu, mut ram) = machine();
    // invlpg [rsi], of an address that is none
    cpu.registers.general[6] = DATA;
    run(&mut cpu, &mut ram, &[0x0f, 0x01, 0x3e]);
    assert_eq!(cpu.flushes, 1);
    let mut user = cpu.at_level(3);
    assert_eq!(fault(&mut user, &mut ram, &[0x0f, 0x01, 0x3e]).vector, 13);
}

#[test]
fn lines_are_cleared() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    ram.put(DATA, &[7; 256]);
    cpu.registers.general[0] = DATA + 0x7f;
    // clzero
    run(&mut cpu, &mut ram, &[0x0f, 0x01, 0xfc]);
    assert_eq!(word(&ram, DATA + 0x38), 0x0707_0707_0707_0707);
    assert_eq!((word(&ram, DATA + 0x40), word(&ram, DATA + 0x78)), (0, 0));
    assert_eq!(word(&ram, DATA + 0x80), 0x0707_0707_0707_0707);
}

#[test]
fn what_is_monitored_is_there() {
    let (mut cpu, mut ram) = machine();
    run(&mut cpu, &mut ram, MONITOR);
    cpu.registers.general[0] = 1 << 62;
    assert_eq!(fault(&mut cpu, &mut ram, MONITOR).vector, 13);
    // With an address of 32 bits it is another.
    run(&mut cpu, &mut ram, &[0x67, 0x0f, 0x01, 0xc8]);
    // ss: monitor
    assert_eq!(
        fault(&mut cpu, &mut ram, &[0x36, 0x0f, 0x01, 0xc8]).vector,
        12
    );
    cpu.registers.general[1] = 1;
    assert_eq!(
        fault(&mut cpu, &mut ram, MONITOR).vector,
        13,
        "no extensions"
    );
    assert_eq!(fault(&mut cpu.at_level(3), &mut ram, MONITOR).vector, 6);
}
