//! FILD (Intel SDM volume 2; volume 1, 8.1 and 8.5.1): kernels load a zero to overwrite what a processor would
//! else leak of another program's pointers. x87 arithmetic is nobody's at ring 0.

use super::fxsave::pending;
use super::integer::signed;
use super::vector_state::legacy;
use crate::exception::Step;
use crate::execution::Execution;
use crate::word::{at, low_8, low_16, put};
use crate::xsave_layout::component;

/// Offsets of the status and tag words.
const FSW: usize = 2;
const FTW: usize = 4;
/// Bytes of a register in the area.
const REGISTER_BYTES: usize = 16;
/// TOP's place in the status word.
const TOP_SHIFT: u32 = 11;
/// Invalid operation, stack fault, summary, C1, and busy.
const INVALID: u16 = 1;
const STACK: u16 = 1 << 6;
const SUMMARY: u16 = 1 << 7;
const C1: u16 = 1 << 9;
const BUSY: u16 = 1 << 15;
/// The real indefinite (4.8.3.7).
const INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

/// FILD: always exact.
pub fn load_integer(x: &mut Execution<'_>) -> Step {
    pending(x)?;
    let bytes = x.operand_bytes(0);
    let value = signed(x.read(0)?, bytes);
    let area = x.component_mut(component::X87)?;
    let control = u16::from_le_bytes(at(area, 0));
    let status = u16::from_le_bytes(at(area, FSW));
    let [tags]: [u8; 1] = at(area, FTW);
    let top = low_8(u64::from(status >> TOP_SHIFT)).wrapping_sub(1) & 7;
    let bit = 1u8.wrapping_shl(top.into());
    let mut status = status & !C1;
    let mut loaded = extended(value);
    if tags & bit != 0 {
        status |= INVALID | STACK | C1;
        loaded = INDEFINITE;
        if control & INVALID == 0 {
            // The stack stays; the next x87 instruction raises #MF.
            status |= SUMMARY | BUSY;
            put(area, FSW, &status.to_le_bytes());
            return Ok(());
        }
    }
    let status = status & !(7 << TOP_SHIFT) | u16::from(top) << TOP_SHIFT;
    put(area, FSW, &status.to_le_bytes());
    put(area, FTW, &[tags | bit]);
    if let Some(registers) = area.get_mut(legacy::ST..legacy::XMM) {
        registers.rotate_right(REGISTER_BYTES);
    }
    put(area, legacy::ST, &[0; REGISTER_BYTES]);
    put(area, legacy::ST, &loaded);
    Ok(())
}

/// The number in double extended precision (4.2.2).
fn extended(value: i64) -> [u8; 10] {
    const BIAS: u64 = 16383;
    let magnitude = value.unsigned_abs();
    let mut number = [0; 10];
    if magnitude == 0 {
        return number;
    }
    let zeros = magnitude.leading_zeros();
    let exponent = BIAS.wrapping_add(63).wrapping_sub(zeros.into());
    let sign = u64::from(value < 0) << 15;
    put(&mut number, 0, &magnitude.wrapping_shl(zeros).to_le_bytes());
    put(&mut number, 8, &low_16(sign | exponent).to_le_bytes());
    number
}
