//! CMPXCHG8B and CMPXCHG16B, locked and not (Intel SDM volume 2; volume 3, 10.1.2).
//!
//! Without the prefix they are atomic all the same, which nobody can tell. Both always write: a page that
//! cannot be written faults whatever the comparison gives.

use iced_x86::Mnemonic as M;

use crate::cpu::bits;
use crate::exception::{Exception, Step, Stop};
use crate::execution::Execution;
use crate::memory::{compare_exchange_16, one_at_a_time};
use crate::paging::Access;
use crate::word::{high_32, low_32};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;

pub fn execute(x: &mut Execution<'_>) -> Step {
    let wide = x.instruction.mnemonic() == M::Cmpxchg16b;
    let [a, b, c, d] = [RAX, RBX, RCX, RDX].map(|number| x.registers.get(number));
    if !wide {
        let [old, new] =
            [(d, a), (c, b)].map(|(high, low)| (high & 0xffff_ffff) << 32 | low & 0xffff_ffff);
        let found = x.update(0, |found| if found == old { new } else { found })?;
        x.set_flags(bits::ZF, if found == old { bits::ZF } else { 0 });
        if found != old {
            x.registers.set(RAX, low_32(found).into());
            x.registers.set(RDX, high_32(found).into());
        }
        return Ok(());
    }
    let [old, new] = [(d, a), (c, b)].map(|(high, low)| u128::from(high) << 64 | u128::from(low));
    let linear = x.linear(0, 16, Access::Write)?;
    if !linear.is_multiple_of(16) {
        return Err(Exception::general_protection().into());
    }
    let pieces = x.translate(linear, 16, Access::Write)?;
    let address = pieces.first().ok_or(Stop::Unknown)?.physical;
    let found = match compare_exchange_16(x.memory, address, old, new) {
        Some(found) => found,
        None => one_at_a_time(|| {
            let mut bytes = [0; 16];
            x.load_pieces(&pieces, &mut bytes);
            let found = u128::from_le_bytes(bytes);
            let stored = if found == old { new } else { found };
            x.store_pieces(&pieces, &stored.to_le_bytes());
            found
        }),
    };
    x.set_flags(bits::ZF, if found == old { bits::ZF } else { 0 });
    if found != old {
        let bytes = found.to_le_bytes();
        x.registers
            .set(RAX, u64::from_le_bytes(crate::word::at(&bytes, 0)));
        x.registers
            .set(RDX, u64::from_le_bytes(crate::word::at(&bytes, 8)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
