//! LAR, LSL, VERR and VERW: what a selector's descriptor allows (Intel SDM volume 2; volume 3, 6.10).
//!
//! A selector that does not allow it clears ZF and raises nothing; only the reads of the selector and of the
//! descriptor table can fault.

use iced_x86::Mnemonic as M;

use crate::cpu::{bits, requested_privilege_level};
use crate::exception::{Exception, Step};
use crate::execution::Execution;
use crate::word::low_16;

pub fn execute(x: &mut Execution<'_>) -> Step {
    if !x.system.is_protected() || x.has_flags(bits::VM) {
        return Err(Exception::invalid_opcode().into());
    }
    let mnemonic = x.instruction.mnemonic();
    let is_check = matches!(mnemonic, M::Verr | M::Verw);
    // Only 16 bits of the operand are a selector, whatever its size.
    let selector = low_16(x.read_selector(if is_check { 0 } else { 1 })?);
    let Some(descriptor) = descriptor(x, selector)? else {
        x.set_flags(bits::ZF, 0);
        return Ok(());
    };
    if !allows(x, mnemonic, selector, descriptor) {
        x.set_flags(bits::ZF, 0);
        return Ok(());
    }
    x.set_flags(bits::ZF, bits::ZF);
    match mnemonic {
        M::Lar => x.write(0, descriptor >> 32 & 0x00f0_ff00),
        M::Lsl => {
            let limit = descriptor & 0xffff | descriptor >> 32 & 0xf_0000;
            let granular = descriptor & 1 << 55 != 0;
            x.write(0, if granular { limit << 12 | 0xfff } else { limit })
        }
        _ => Ok(()),
    }
}

/// The descriptor that `selector` names, if it is in its table.
fn descriptor(x: &mut Execution<'_>, selector: u16) -> Step<Option<u64>> {
    if selector & !3 == 0 {
        return Ok(None);
    }
    let system = &x.system;
    let (base, limit) = match selector & 4 {
        0 => (system.gdt_base, u32::from(system.gdt_limit)),
        _ => (system.ldt_base, system.ldt_limit),
    };
    let offset = selector & !7;
    if u32::from(offset | 7) > limit {
        return Ok(None);
    }
    let mut bytes = [0; 8];
    x.load_as_supervisor(base.wrapping_add(offset.into()), &mut bytes)?;
    Ok(Some(u64::from_le_bytes(bytes)))
}

/// Whether `mnemonic` succeeds on the descriptor.
fn allows(x: &Execution<'_>, mnemonic: M, selector: u16, descriptor: u64) -> bool {
    let kind = descriptor >> 40 & 0xf;
    let is_segment = descriptor & 1 << 44 != 0;
    let level = crate::word::low_8(descriptor >> 45 & 3);
    let is_code = kind & 8 != 0;
    let conforming = is_segment && kind & 0xc == 0xc;
    let visible =
        conforming || x.privilege_level().max(requested_privilege_level(selector)) <= level;
    let long = x.system.efer & bits::EFER_LMA != 0;
    let known = match mnemonic {
        M::Verr => is_segment && (!is_code || kind & 2 != 0),
        M::Verw => is_segment && !is_code && kind & 2 != 0,
        _ if is_segment => true,
        M::Lar if long => matches!(kind, 2 | 9 | 0xb | 0xc),
        M::Lar => matches!(kind, 1..=5 | 9 | 0xb | 0xc),
        _ if long => matches!(kind, 2 | 9 | 0xb),
        _ => matches!(kind, 1..=3 | 9 | 0xb),
    };
    visible && known
}

#[cfg(test)]
mod tests;
