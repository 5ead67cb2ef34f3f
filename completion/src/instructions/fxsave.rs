//! FXSAVE, FXRSTOR, MXCSR, and the x87 control instructions that need no arithmetic (Intel SDM volume 2;
//! volume 1, 10.5).

use iced_x86::Mnemonic as M;

use super::vector_state::{FCW_INITIAL, legacy};
use crate::cpu::bits;
use crate::exception::{Exception, Step, Stop, vector};
use crate::execution::Execution;
use crate::paging::Access;
use crate::word::{at, low_32, put};
use crate::xsave_layout::component;

/// Offsets of the x87 status and tag words.
const FSW: usize = 2;
const FTW: usize = 4;
/// The status word's summary of exceptions that are not masked.
const SUMMARY: u16 = 1 << 7;
/// The same, where processors before the 80387 told that they were busy.
const BUSY: u16 = 1 << 15;

/// Components of the legacy region.
const LEGACY: u64 = 1 << component::X87 | 1 << component::SSE;

pub fn execute(x: &mut Execution<'_>) -> Step {
    match x.instruction.mnemonic() {
        M::Fxsave | M::Fxsave64 => save(x),
        M::Fxrstor | M::Fxrstor64 => restore(x),
        M::Ldmxcsr | M::Vldmxcsr => {
            x.require_vectors()?;
            let value = low_32(x.read(0)?);
            x.check_mxcsr(value)?;
            x.set_mxcsr(value)
        }
        M::Stmxcsr | M::Vstmxcsr => {
            x.require_vectors()?;
            let value = x.mxcsr()?;
            x.write(0, value.into())
        }
        M::Wait => {
            if x.system.cr0 & (bits::CR0_MP | bits::CR0_TS) == bits::CR0_MP | bits::CR0_TS {
                return Err(Exception::device_not_available().into());
            }
            pending(x)
        }
        mnemonic => {
            if x.system.cr0 & bits::CR0_EM != 0 {
                return Err(match mnemonic {
                    M::Emms => Exception::invalid_opcode(),
                    _ => Exception::device_not_available(),
                }
                .into());
            }
            x.require_device()?;
            control(x, mnemonic)
        }
    }
}

/// #MF where an x87 instruction left an exception that is not masked (Intel SDM volume 1, 8.7).
pub fn pending(x: &mut Execution<'_>) -> Step {
    let in_use = x.in_use()? & 1 << component::X87 != 0;
    let status = u16::from_le_bytes(at(x.area()?, FSW));
    match in_use && status & SUMMARY != 0 {
        true => Err(Exception::new(vector::FLOATING_POINT).into()),
        false => Ok(()),
    }
}

fn control(x: &mut Execution<'_>, mnemonic: M) -> Step {
    match mnemonic {
        M::Fild => return super::x87::load_integer(x),
        M::Fnstcw | M::Fnstsw => {
            x.settle(1 << component::X87)?;
            let offset = if mnemonic == M::Fnstcw { 0 } else { FSW };
            let word = u16::from_le_bytes(at(x.area()?, offset));
            return x.write(0, word.into());
        }
        M::Emms => pending(x)?,
        _ => {}
    }
    if mnemonic == M::Fldcw {
        let control = u16::from_le_bytes(at(&x.read(0)?.to_le_bytes(), 0));
        pending(x)?;
        let area = x.component_mut(component::X87)?;
        // Bit 6 is always set, and those that do not exist are clear.
        let control = control & 0x1f3f | 0x40;
        put(area, 0, &control.to_le_bytes());
        // What is not masked any more is pending from now on.
        let status = u16::from_le_bytes(at(area, FSW));
        let status = match status & !control & 0x3f {
            0 => status & !(SUMMARY | BUSY),
            _ => status | SUMMARY | BUSY,
        };
        put(area, FSW, &status.to_le_bytes());
        return Ok(());
    }
    if mnemonic == M::Fninit {
        // The registers stay, and are empty; TOP, by which the area has them in order, becomes 0.
        x.enter_mmx()?;
    }
    let area = x.component_mut(component::X87)?;
    match mnemonic {
        M::Fnclex => {
            let status = u16::from_le_bytes(at(area, FSW)) & 0x7f00;
            put(area, FSW, &status.to_le_bytes());
        }
        M::Fninit => {
            area.get_mut(..legacy::MXCSR).unwrap_or_default().fill(0);
            put(area, 0, &FCW_INITIAL.to_le_bytes());
        }
        _ => put(area, FTW, &[0]),
    }
    Ok(())
}

/// Bytes of XMM registers that FXSAVE and FXRSTOR move: none for a supervisor's fast variant, half of
/// them outside 64-bit code.
fn xmm_bytes(x: &Execution<'_>) -> usize {
    let wide = x.system.is_64_bit();
    if wide && x.privilege_level() == 0 && x.system.efer & bits::EFER_FFXSR != 0 {
        0
    } else if wide {
        256
    } else {
        128
    }
}

/// The area's address, which is to be a multiple of `alignment`.
pub fn aligned(x: &Execution<'_>, bytes: usize, alignment: u64, access: Access) -> Step<u64> {
    let linear = x.linear(0, bytes, access)?;
    match linear.is_multiple_of(alignment) {
        true => Ok(linear),
        false => Err(Exception::general_protection().into()),
    }
}

fn check(x: &Execution<'_>) -> Step {
    match x.system.cr0 & (bits::CR0_EM | bits::CR0_TS) {
        0 => Ok(()),
        _ => Err(Exception::device_not_available().into()),
    }
}

/// Turns x87 instruction and data pointers of 64 bits into those of 32 with selectors, which processors
/// no longer keep.
pub fn narrow_pointers(image: &mut [u8]) {
    for offset in [12, 20] {
        put(image, offset, &[0; 4]);
    }
}

fn save(x: &mut Execution<'_>) -> Step {
    check(x)?;
    let linear = aligned(x, legacy::BYTES, 16, Access::Write)?;
    x.settle(LEGACY)?;
    let mut image: [u8; legacy::BYTES] = at(x.area()?, 0);
    if x.instruction.mnemonic() == M::Fxsave {
        narrow_pointers(&mut image);
    }
    let end = legacy::XMM.saturating_add(xmm_bytes(x));
    // What is beyond is not written at all.
    let pieces = x.translate(linear, legacy::BYTES, Access::Write)?;
    let image = image.get(..end).ok_or(Stop::Unknown)?;
    x.store_pieces(&pieces, image);
    Ok(())
}

fn restore(x: &mut Execution<'_>) -> Step {
    check(x)?;
    let linear = aligned(x, legacy::BYTES, 16, Access::Read)?;
    let mut image = [0; legacy::BYTES];
    x.load(linear, &mut image)?;
    let mxcsr = u32::from_le_bytes(at(&image, legacy::MXCSR));
    x.check_mxcsr(mxcsr)?;
    if x.instruction.mnemonic() == M::Fxrstor {
        narrow_pointers(&mut image);
    }
    let xmm_bytes = xmm_bytes(x);
    let area = x.component_mut(component::X87)?;
    put(area, 0, image.get(..legacy::MXCSR).unwrap_or_default());
    let registers = image.get(legacy::ST..legacy::XMM).unwrap_or_default();
    put(area, legacy::ST, registers);
    let area = x.component_mut(component::SSE)?;
    put(area, legacy::MXCSR, &mxcsr.to_le_bytes());
    let end = legacy::XMM.saturating_add(xmm_bytes);
    let registers = image.get(legacy::XMM..end).unwrap_or_default();
    put(area, legacy::XMM, registers);
    Ok(())
}

#[cfg(test)]
mod tests;
