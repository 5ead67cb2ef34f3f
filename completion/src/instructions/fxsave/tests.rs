use crate::cpu::bits;
use crate::testing::{DATA, Ram, TestCpu, fault, run, word};
use crate::word::{at, put};
use crate::{Exception, vector};

const FWAIT: &[u8] = &[0x9b];
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const FNINIT: &[u8] = &[0xdb, 0xe3];
const EMMS: &[u8] = &[0x0f, 0x77];
/// On [rsi], and the status word to AX.
const FNSTCW: &[u8] = &[0xd9, 0x3e];
const FNSTSW: &[u8] = &[0xdf, 0xe0];
const LDMXCSR: &[u8] = &[0x0f, 0xae, 0x16];
const STMXCSR: &[u8] = &[0x0f, 0xae, 0x1e];

/// A vCPU with an x87 exception pending.
fn machine() -> (TestCpu, Ram) {
    let (mut cpu, ram) = (TestCpu::new(), Ram::new());
    put(&mut cpu.area, 0, &[0x7e, 0x03, 0x81, 0x38, 0xff]);
    put(&mut cpu.area, 512, &1u64.to_le_bytes());
    cpu.registers.general[6] = DATA;
    (cpu, ram)
}

#[test]
fn waiting_for_exceptions() {
    let (mut cpu, mut ram) = machine();
    for code in [FWAIT, EMMS] {
        let exception = fault(&mut cpu, &mut ram, code);
        assert_eq!(exception, Exception::new(vector::FLOATING_POINT));
    }
    run(&mut cpu, &mut ram, FNSTSW);
    assert_eq!(cpu.registers.general[0], 0x3881);
    run(&mut cpu, &mut ram, FNSTCW);
    assert_eq!(word(&ram, DATA), 0x037e);
    run(&mut cpu, &mut ram, FNCLEX);
    assert_eq!(at::<2>(&cpu.area, 2), [0, 0x38]);
    run(&mut cpu, &mut ram, FWAIT);
    run(&mut cpu, &mut ram, EMMS);
    assert_eq!(cpu.area[4], 0);
    run(&mut cpu, &mut ram, FNINIT);
    assert_eq!(cpu.area[..5], [0x7f, 3, 0, 0, 0]);
    run(&mut cpu, &mut ram, FNSTCW);
    assert_eq!(word(&ram, DATA), 0x037f);
}

#[test]
fn a_state_that_is_saved_lazily() {
    let (mut cpu, mut ram) = machine();
    cpu.system.cr0 |= bits::CR0_TS;
    for code in [EMMS, FNINIT, FNSTSW] {
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 7);
    }
    assert_eq!(fault(&mut cpu, &mut ram, FWAIT).vector, 16);
    cpu.system.cr0 |= bits::CR0_MP;
    assert_eq!(fault(&mut cpu, &mut ram, FWAIT).vector, 7);
    cpu.system.cr0 |= bits::CR0_EM;
    assert_eq!(fault(&mut cpu, &mut ram, EMMS).vector, 6);
    assert_eq!(fault(&mut cpu, &mut ram, FNINIT).vector, 7);
}

#[test]
fn control_of_vectors() {
    let (mut cpu, mut ram) = machine();
    ram.put(DATA, &0x3f80u32.to_le_bytes());
    run(&mut cpu, &mut ram, LDMXCSR);
    assert_eq!(cpu.area[512], 3, "in use, to be kept");
    ram.put(DATA, &[0; 4]);
    run(&mut cpu, &mut ram, STMXCSR);
    assert_eq!(word(&ram, DATA), 0x3f80);
    ram.put(DATA, &0x8000_0000u32.to_le_bytes());
    assert_eq!(fault(&mut cpu, &mut ram, LDMXCSR).vector, 13);
}
