//! MMX registers, which are the low 8 bytes of the x87 registers (Intel SDM volume 1, 9.2 and 9.5).
//!
//! The XSAVE area has the x87 registers in the order of the stack, MMX ones are physical: R0 is MM0. The first
//! MMX instruction makes the two orders one by setting TOP to 0.

use iced_x86::{Mnemonic as M, Register};

use super::fxsave::pending;
use super::vector_state::{VECTOR_BYTES, legacy};
use crate::cpu::bits;
use crate::exception::{Exception, Step};
use crate::execution::Execution;
use crate::word::{at, put};
use crate::xsave_layout::component;

/// Bytes of an x87 register in the area.
const REGISTER_BYTES: usize = 16;
/// Offset of the status word, and of the tags.
const FSW: usize = 2;
const FTW: usize = 4;
/// TOP in the status word.
const TOP: u16 = 7 << 11;

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let [to, from] = [0, 1].map(|number| match x.instruction.op_count() > number {
        true => x.instruction.op_register(number),
        false => Register::None,
    });
    if !to.is_mm() && !from.is_mm() {
        return Ok(false);
    }
    let mnemonic = x.instruction.mnemonic();
    if !matches!(
        mnemonic,
        M::Movd | M::Movq | M::Movntq | M::Movq2dq | M::Movdq2q
    ) {
        return Ok(false);
    }
    x.require_mmx()?;
    let value = if from.is_mm() {
        x.mmx(from)?
    } else if from.is_xmm() {
        u64::from_le_bytes(at(&x.vector(from)?, 0))
    } else {
        x.read(1)?
    };
    if to.is_mm() {
        x.set_mmx(to, value)?;
        return Ok(true);
    }
    if to.is_xmm() {
        let mut vector = [0; VECTOR_BYTES];
        put(&mut vector, 0, &value.to_le_bytes());
        x.set_vector(to, &vector)?;
    } else {
        x.write(0, value)?;
    }
    // Reading is using, too.
    x.enter_mmx()?;
    Ok(true)
}

impl Execution<'_> {
    /// Whether MMX instructions may be used now: #UD, #NM or #MF if not.
    pub fn require_mmx(&mut self) -> Step {
        if self.system.cr0 & bits::CR0_EM != 0 {
            return Err(Exception::invalid_opcode().into());
        }
        self.require_device()?;
        pending(self)
    }

    /// TOP, which says where in the area R0 is.
    fn top(&mut self) -> Step<usize> {
        let status = u16::from_le_bytes(at(self.area()?, FSW));
        Ok(usize::from((status & TOP) >> 11))
    }

    /// An MMX register.
    pub fn mmx(&mut self, register: Register) -> Step<u64> {
        self.settle(1 << component::X87)?;
        let place = register.number().wrapping_sub(self.top()?) & 7;
        let offset = legacy::ST.saturating_add(place.wrapping_mul(REGISTER_BYTES));
        Ok(u64::from_le_bytes(at(self.area()?, offset)))
    }

    /// Sets an MMX register; the rest of the x87 register becomes ones.
    pub fn set_mmx(&mut self, register: Register, value: u64) -> Step {
        self.enter_mmx()?;
        let offset = legacy::ST.saturating_add(register.number().wrapping_mul(REGISTER_BYTES));
        let area = self.component_mut(component::X87)?;
        put(area, offset, &value.to_le_bytes());
        put(area, offset.saturating_add(8), &[0xff; 2]);
        Ok(())
    }

    /// What every MMX instruction but EMMS does: TOP is 0, and no register is empty.
    pub fn enter_mmx(&mut self) -> Step {
        self.component_mut(component::X87)?;
        let top = self.top()?;
        let area = self.component_mut(component::X87)?;
        let status = u16::from_le_bytes(at(area, FSW)) & !TOP;
        put(area, FSW, &status.to_le_bytes());
        put(area, FTW, &[0xff]);
        if let Some(registers) = area.get_mut(legacy::ST..legacy::XMM) {
            // ST0 was at TOP, R0 is at the front.
            registers.rotate_right(top.wrapping_mul(REGISTER_BYTES));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
