use crate::cpu::bits;
use crate::testing::{DATA, Ram, TestCpu, fault, run, word};
use crate::word::{at, put};

/// movq mm1, [rsi]
const LOAD: &[u8] = &[0x0f, 0x6f, 0x0e];
/// movntq [rsi], mm1
const STORE: &[u8] = &[0x0f, 0xe7, 0x0e];

fn machine() -> (TestCpu, Ram) {
    let (mut cpu, ram) = (TestCpu::new(), Ram::new());
    cpu.registers.general[6] = DATA;
    // TOP is 3, ST0 (which is R3) has a value, and all registers are empty.
    put(&mut cpu.area, 0, &[0x7f, 3, 0, 3 << 3, 0]);
    put(&mut cpu.area, 32, &[0x33; 10]);
    put(&mut cpu.area, 512, &1u64.to_le_bytes());
    (cpu, ram)
}

#[test]
fn registers_are_physical() {
    let (mut cpu, mut ram) = machine();
    ram.put(DATA, &0x1122_3344_5566_7788u64.to_le_bytes());
    run(&mut cpu, &mut ram, LOAD);
    assert_eq!(cpu.area[2..5], [0, 0, 0xff], "TOP is 0, nothing is empty");
    let value: [u8; 10] = at(&cpu.area, 32 + 16);
    assert_eq!(
        value,
        [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff]
    );
    assert_eq!(cpu.area[32 + 16 * 3..][..10], [0x33; 10], "R3 is ST3 now");
    ram.put(DATA, &[0; 8]);
    run(&mut cpu, &mut ram, STORE);
    assert_eq!(word(&ram, DATA), 0x1122_3344_5566_7788);
}

#[test]
fn faults_are_those_of_the_x87() {
    for code in [LOAD, STORE, &[0x0f, 0xef, 0xc9]] {
        let (mut cpu, mut ram) = machine();
        put(&mut cpu.area, 2, &[0x80]);
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 16, "pending");
        cpu.system.cr0 |= bits::CR0_TS;
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 7);
        cpu.system.cr0 |= bits::CR0_EM;
        assert_eq!(fault(&mut cpu, &mut ram, code).vector, 6);
    }
}
