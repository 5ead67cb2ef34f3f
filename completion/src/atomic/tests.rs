use std::thread;

use super::*;
use crate::testing::{DATA, DEVICE, Ram, TestCpu, run, word};

/// In a whole page and across two, as pieces.
fn pieces(address: u64, bytes: usize) -> Vec<Piece> {
    let left = 0x1000 - usize::try_from(address & 0xfff).expect("a page");
    let first = bytes.min(left);
    let mut pieces = vec![Piece {
        physical: address,
        bytes: first,
    }];
    if first < bytes {
        pieces.push(Piece {
            physical: address + crate::word::length(first),
            bytes: bytes - first,
        });
    }
    pieces
}

/// At offsets that 8 bytes hold, that 16 do, and that nothing does. An optimised build once took its own
/// operand for the address at the second.
#[test]
fn every_size_at_every_offset() {
    for bytes in [1usize, 2, 4, 8] {
        for offset in (0..32).chain(0xff0..0x1000) {
            let mut ram = Ram::new();
            let address = DATA + offset;
            ram.put(address - 8, &[0x55; 24]);
            let pieces = pieces(address, bytes);
            let found = update(&mut ram, &pieces, bytes, |value| value.wrapping_add(0x0102));
            assert_eq!(found, 0x5555_5555_5555_5555 & mask(bytes));
            let expected = found.wrapping_add(0x0102) & mask(bytes);
            assert_eq!(word(&ram, address) & mask(bytes), expected);
            assert_eq!(word(&ram, address - 8), 0x5555_5555_5555_5555);
            let behind = word(&ram, address + crate::word::length(bytes)) & 0xff;
            assert_eq!(behind, 0x55);
        }
    }
}

#[test]
fn two_vcpus_count_together() {
    const TIMES: u64 = 2000;
    for offset in [0, 3, 6] {
        let ram = Ram::new();
        ram.put(DATA, &[0; 16]);
        thread::scope(|scope| {
            for _ in 0..2 {
                let mut view = ram.share();
                scope.spawn(move || {
                    let mut cpu = TestCpu::new();
                    cpu.registers.general[6] = DATA + offset;
                    for _ in 0..TIMES {
                        cpu.registers.rip = crate::testing::CODE;
                        // lock inc dword ptr [rsi]
                        let code = &[0xf0, 0xff, 0x06];
                        crate::complete(&mut cpu, &mut view, code).expect("a state");
                    }
                    std::mem::forget(view);
                });
            }
        });
        assert_eq!(word(&ram, DATA + offset), 2 * TIMES);
    }
}

#[test]
fn devices_are_read_and_written_once() {
    let (mut cpu, mut ram) = (TestCpu::new(), Ram::new());
    cpu.registers.general[6] = DEVICE;
    // lock xadd [rsi], eax
    cpu.registers.general[0] = 0x10;
    run(&mut cpu, &mut ram, &[0xf0, 0x0f, 0xc1, 0x06]);
    assert_eq!(ram.reads, [(DEVICE, 4)]);
    assert_eq!(ram.writes, [(DEVICE, vec![0x11, 1, 1, 1])]);
    assert_eq!(cpu.registers.general[0], 0x0101_0101);
}
