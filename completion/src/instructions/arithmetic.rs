//! ADCX, ADOX, CRC32, MOVBE, RDRAND and RDSEED (Intel SDM volume 2).

use iced_x86::Mnemonic as M;

use crate::cpu::bits::{AF, CF, OF, PF, SF, ZF};
use crate::exception::Step;
use crate::execution::Execution;
use crate::word::{low_32, mask};

/// The polynomial 0x11edc6f41, its bits in the order in which CRC32 takes them.
const CASTAGNOLI: u32 = 0x82f6_3b78;

pub fn execute(x: &mut Execution<'_>) -> Step {
    match x.instruction.mnemonic() {
        M::Adcx => add(x, CF),
        M::Adox => add(x, OF),
        M::Crc32 => checksum(x),
        M::Movbe => {
            let bytes = x.operand_bytes(0);
            let value = x.read(1)?;
            let shift = 64u32.wrapping_sub(crate::word::bits(bytes));
            x.write(0, value.swap_bytes().wrapping_shr(shift))
        }
        _ => {
            let random = x.cpu.random();
            x.set_flags(CF | PF | AF | ZF | SF | OF, random.map_or(0, |_| CF));
            x.write(0, random.unwrap_or(0))
        }
    }
}

/// Adds with the carry in the flag `carry`, and leaves all others.
fn add(x: &mut Execution<'_>, carry: u64) -> Step {
    let bytes = x.operand_bytes(0);
    let (first, second) = (x.read(0)?, x.read(1)?);
    let sum = u128::from(first)
        .wrapping_add(second.into())
        .wrapping_add(x.has_flags(carry).into());
    let result = first
        .wrapping_add(second)
        .wrapping_add(x.has_flags(carry).into());
    let overflow = sum > u128::from(mask(bytes));
    x.set_flags(carry, if overflow { carry } else { 0 });
    x.write(0, result & mask(bytes))
}

fn checksum(x: &mut Execution<'_>) -> Step {
    let bytes = x.operand_bytes(1);
    let source = x.read(1)?;
    let mut sum = low_32(x.read(0)?);
    for byte in source.to_le_bytes().into_iter().take(bytes) {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 != 0 { CASTAGNOLI } else { 0 };
        }
    }
    x.write(0, sum.into())
}
