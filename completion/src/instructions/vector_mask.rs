//! AVX-512 masks (Intel SDM volume 1, 15.6): opmask registers, and what they do to loads, stores and results.
//!
//! An element whose bit is clear is neither read nor written and cannot fault (15.6.4).

use iced_x86::{CpuidFeature, EncodingKind, OpKind, Register};

use super::lane::{element, set_element};
use super::vector_state::VECTOR_BYTES;
use crate::exception::{Exception, Step, Stop};
use crate::execution::Execution;
use crate::memory::Pieces;
use crate::paging::Access;
use crate::word::{at, mask, put};
use crate::xsave_layout::component;

/// Bytes of an opmask register.
const OPMASK_BYTES: usize = 8;

/// Elements one after the other that a mask has: where they begin, in bytes, and how many bytes they are.
type Run = (usize, usize);

/// The runs of elements of `element_bytes` in the first `bytes` that `mask` has.
pub fn runs(mask: u64, element_bytes: usize, bytes: usize) -> impl Iterator<Item = Run> {
    let count = bytes.checked_div(element_bytes).unwrap_or(0).min(64);
    let active = move |number: usize| {
        number < count && mask.wrapping_shr(u32::try_from(number).unwrap_or(0)) & 1 != 0
    };
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = (next..count).find(|number| active(*number))?;
        let end = (start..=count).find(|number| !active(*number))?;
        next = end;
        Some((
            start.wrapping_mul(element_bytes),
            end.wrapping_sub(start).wrapping_mul(element_bytes),
        ))
    })
}

impl Execution<'_> {
    /// An opmask register.
    pub fn opmask(&mut self, register: Register) -> Step<u64> {
        if self.in_use()? & 1 << component::OPMASK == 0 {
            return Ok(0);
        }
        let offset = self.opmask_offset(register);
        Ok(u64::from_le_bytes(at(self.area()?, offset)))
    }

    /// Sets an opmask register.
    pub fn set_opmask(&mut self, register: Register, value: u64) -> Step {
        if value == 0 && self.in_use()? & 1 << component::OPMASK == 0 {
            return Ok(());
        }
        let offset = self.opmask_offset(register);
        put(
            self.component_mut(component::OPMASK)?,
            offset,
            &value.to_le_bytes(),
        );
        Ok(())
    }

    fn opmask_offset(&self, register: Register) -> usize {
        self.cpu
            .xsave_layout()
            .component(component::OPMASK)
            .offset_bytes
            .saturating_add(register.number().wrapping_mul(OPMASK_BYTES))
    }

    /// The mask that the instruction is under: all ones without one.
    pub fn mask(&mut self) -> Step<u64> {
        match self.instruction.op_mask() {
            Register::None => Ok(u64::MAX),
            register => self.opmask(register),
        }
    }

    /// Sets an opmask to the elements of `value` that are not zero, of those that the instruction's mask has.
    pub fn set_opmask_from(
        &mut self,
        to: Register,
        value: &[u8],
        element_bytes: usize,
        bytes: usize,
    ) -> Step {
        let mut result = 0;
        for number in 0..bytes.checked_div(element_bytes).unwrap_or(0) {
            if element(value, number, element_bytes) != 0 {
                result |= 1u64.wrapping_shl(u32::try_from(number).unwrap_or(0));
            }
        }
        let result = result & self.mask()?;
        self.set_opmask(to, result)
    }

    /// Sets `to` to `result`, element by element where the instruction has a mask: others keep their values
    /// or are cleared. Bits above are kept by a legacy encoding, and cleared by others.
    pub fn finish_vector(
        &mut self,
        to: Register,
        result: &[u8; VECTOR_BYTES],
        element_bytes: usize,
    ) -> Step {
        if to.is_mm() {
            return self.set_mmx(to, element(result, 0, 8));
        }
        if self.instruction.encoding() == EncodingKind::Legacy {
            return self.set_vector(to, result);
        }
        let widest = self.widest(to)?;
        let bytes = to.size();
        let mut value = [0; VECTOR_BYTES];
        if self.instruction.op_mask() == Register::None {
            put(&mut value, 0, result.get(..bytes).unwrap_or_default());
            return self.set_vector(widest, &value);
        }
        if !self.instruction.zeroing_masking() {
            value = self.vector(to)?;
        }
        let mask = self.mask()?;
        for (start, count) in runs(mask, element_bytes, bytes) {
            let from: [u8; VECTOR_BYTES] = at(result, start);
            put(&mut value, start, from.get(..count).unwrap_or_default());
        }
        self.set_vector(widest, &value)
    }

    /// Vector operand `number`: a register, memory, or an element of memory for all. Where faults are
    /// `suppressed` by elements of so many bytes, only those that the mask has are read.
    pub fn vector_source(
        &mut self,
        number: u32,
        suppressed: Option<usize>,
    ) -> Step<[u8; VECTOR_BYTES]> {
        if self.instruction.op_kind(number) == OpKind::Register {
            let register = self.instruction.op_register(number);
            if register.is_mm() {
                let value = self.mmx(register)?;
                let mut both = [0; VECTOR_BYTES];
                put(&mut both, 0, &value.to_le_bytes());
                put(&mut both, 8, &value.to_le_bytes());
                return Ok(both);
            }
            return self.vector(register);
        }
        if !self.is_memory(number) {
            return Err(Stop::Unknown);
        }
        let size = self.instruction.memory_size();
        let (bytes, element_bytes) = (size.size(), size.element_size());
        let mut value = [0; VECTOR_BYTES];
        let masked = suppressed.filter(|_| self.instruction.op_mask() != Register::None);
        let (mask, chosen_bytes) = match masked {
            Some(chosen_bytes) => (self.mask()?, chosen_bytes),
            None => (u64::MAX, bytes),
        };
        if self.instruction.is_broadcast() {
            // One element, if anything wants it.
            let width = self.operand_bytes(0);
            if masked.is_some() && runs(mask, chosen_bytes, width).next().is_none() {
                return Ok(value);
            }
            let linear = self.linear(number, element_bytes, Access::Read)?;
            let mut one = [0; 8];
            let one = one.get_mut(..element_bytes).ok_or(Stop::Unknown)?;
            self.load(linear, one)?;
            for to in value.chunks_exact_mut(element_bytes.max(1)) {
                to.copy_from_slice(one);
            }
            return Ok(value);
        }
        let legacy = self.instruction.encoding() == EncodingKind::Legacy;
        if bytes == 8 && legacy {
            // An operand of MMX, or half of one of SSE.
            let linear = self.linear(number, 8, Access::Read)?;
            let mut half = [0; 8];
            self.load(linear, &mut half)?;
            put(&mut value, 0, &half);
            put(&mut value, 8, &half);
            return Ok(value);
        }
        // Those of the SHA extensions are aligned by Intel's manual; AMD's processors take any.
        let anywhere = self
            .instruction
            .cpuid_features()
            .contains(&CpuidFeature::SHA);
        if legacy && bytes == 16 && !anywhere {
            let linear = self.linear(number, bytes, Access::Read)?;
            if !linear.is_multiple_of(16) {
                return Err(Exception::general_protection().into());
            }
        }
        self.load_masked(number, mask, chosen_bytes, bytes, &mut value)?;
        Ok(value)
    }

    /// Reads the elements of memory operand `number` that `mask` has.
    pub fn load_masked(
        &mut self,
        number: u32,
        mask: u64,
        element_bytes: usize,
        bytes: usize,
        value: &mut [u8; VECTOR_BYTES],
    ) -> Step {
        for (start, count) in runs(mask, element_bytes, bytes) {
            let linear = self.linear_in(number, start, count, Access::Read)?;
            let to = value
                .get_mut(start..start.saturating_add(count))
                .ok_or(Stop::Unknown)?;
            self.load(linear, to)?;
        }
        Ok(())
    }

    /// Writes the elements of memory operand `number` that `mask` has, if all of them can be.
    pub fn store_masked(
        &mut self,
        number: u32,
        mask: u64,
        element_bytes: usize,
        bytes: usize,
        value: &[u8; VECTOR_BYTES],
    ) -> Step {
        let mut places: [(Run, Pieces); 32] = [Default::default(); 32];
        let mut count = 0usize;
        for (run, place) in runs(mask, element_bytes, bytes).zip(&mut places) {
            let linear = self.linear_in(number, run.0, run.1, Access::Write)?;
            *place = (run, self.translate(linear, run.1, Access::Write)?);
            count = count.saturating_add(1);
        }
        for ((start, bytes), pieces) in places.iter().take(count) {
            let from = value.get(*start..start.saturating_add(*bytes));
            self.store_pieces(pieces, from.unwrap_or_default());
        }
        Ok(())
    }

    /// The linear address of `bytes` from byte `start` of memory operand `number`.
    fn linear_in(&self, number: u32, start: usize, bytes: usize, access: Access) -> Step<u64> {
        let beyond = i64::try_from(start).map_err(|_| Stop::Unknown)?;
        self.linear_beyond(number, beyond, bytes, access)
    }
}

/// The elements of `bytes` of a register that have their sign, as a mask.
pub fn signs(value: &[u8], element_bytes: usize, bytes: usize) -> u64 {
    let mut result = 0;
    for number in 0..bytes.checked_div(element_bytes).unwrap_or(0) {
        if crate::word::is_negative(element(value, number, element_bytes), element_bytes) {
            result |= 1u64.wrapping_shl(u32::try_from(number).unwrap_or(0));
        }
    }
    result
}

/// Elements of `bytes` that are all ones where `mask` has their bit, and zero elsewhere.
pub fn spread(mask_bits: u64, element_bytes: usize) -> [u8; VECTOR_BYTES] {
    let mut value = [0; VECTOR_BYTES];
    for number in 0..VECTOR_BYTES.checked_div(element_bytes).unwrap_or(0) {
        let bit = mask_bits.wrapping_shr(u32::try_from(number).unwrap_or(0)) & 1;
        if bit != 0 {
            set_element(&mut value, number, element_bytes, mask(element_bytes));
        }
    }
    value
}

/// The low bits of a mask of `bits`.
pub fn low_bits(bits: usize) -> u64 {
    match bits {
        64.. => u64::MAX,
        bits => 1u64
            .wrapping_shl(u32::try_from(bits).unwrap_or(0))
            .wrapping_sub(1),
    }
}

#[cfg(test)]
mod tests;
