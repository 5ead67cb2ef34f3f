//! Vectors whose parts change places across lanes, grow, or come from and go to general registers (Intel SDM
//! volume 2).

use iced_x86::{EncodingKind, Mnemonic as M, OpKind};

use super::integer::signed;
use super::lane::{element, set_element};
use super::vector_mask::signs;
use super::vector_state::VECTOR_BYTES;
use crate::cpu::bits::{CF, ZF};
use crate::exception::{Step, Stop};
use crate::execution::Execution;
use crate::flags::{STATUS, flag};
use crate::paging::Access;
use crate::word::{at, index, put};

type Vector = [u8; VECTOR_BYTES];

/// Carries out the instruction if it is one of these.
pub fn execute(x: &mut Execution<'_>) -> Step<bool> {
    let mnemonic = x.instruction.mnemonic();
    if let Some((from, to, has_sign)) = extension(mnemonic) {
        x.require_vectors()?;
        extend(x, from, to, has_sign)?;
        return Ok(true);
    }
    let act: fn(&mut Execution<'_>) -> Step = match mnemonic {
        M::Vpbroadcastb
        | M::Vpbroadcastw
        | M::Vpbroadcastd
        | M::Vpbroadcastq
        | M::Vbroadcastss
        | M::Vbroadcastsd
        | M::Vbroadcastf128
        | M::Vbroadcasti128
        | M::Vbroadcastf32x2
        | M::Vbroadcastf32x4
        | M::Vbroadcastf32x8
        | M::Vbroadcastf64x2
        | M::Vbroadcastf64x4
        | M::Vbroadcasti32x2
        | M::Vbroadcasti32x4
        | M::Vbroadcasti32x8
        | M::Vbroadcasti64x2
        | M::Vbroadcasti64x4 => broadcast,
        M::Vinsertf128
        | M::Vinserti128
        | M::Vinsertf32x4
        | M::Vinsertf64x2
        | M::Vinsertf32x8
        | M::Vinsertf64x4
        | M::Vinserti32x4
        | M::Vinserti64x2
        | M::Vinserti32x8
        | M::Vinserti64x4 => insert_part,
        M::Vextractf128
        | M::Vextracti128
        | M::Vextractf32x4
        | M::Vextractf64x2
        | M::Vextractf32x8
        | M::Vextractf64x4
        | M::Vextracti32x4
        | M::Vextracti64x2
        | M::Vextracti32x8
        | M::Vextracti64x4 => extract_part,
        M::Vperm2f128 | M::Vperm2i128 => permute_lanes,
        M::Vpermq | M::Vpermpd | M::Vpermd | M::Vpermps => permute,
        M::Vpermilps | M::Vpermilpd => permute_in_lanes,
        M::Vpblendd | M::Blendps | M::Vblendps | M::Blendpd | M::Vblendpd => blend,
        M::Vpblendmb | M::Vpblendmw | M::Vpblendmd | M::Vpblendmq | M::Vblendmps | M::Vblendmpd => {
            blend_by_mask
        }
        M::Vpmaskmovd | M::Vpmaskmovq | M::Vmaskmovps | M::Vmaskmovpd => move_masked,
        M::Pinsrb | M::Pinsrw | M::Pinsrd | M::Pinsrq => insert_element,
        M::Vpinsrb | M::Vpinsrw | M::Vpinsrd | M::Vpinsrq => insert_element,
        M::Pextrb | M::Pextrw | M::Pextrd | M::Pextrq | M::Extractps => extract_element,
        M::Vpextrb | M::Vpextrw | M::Vpextrd | M::Vpextrq | M::Vextractps => extract_element,
        M::Pmovmskb | M::Vpmovmskb | M::Movmskps | M::Vmovmskps | M::Movmskpd | M::Vmovmskpd => {
            sign_bits
        }
        M::Ptest | M::Vptest | M::Vtestps | M::Vtestpd => test,
        M::Movhlps | M::Vmovhlps | M::Movlhps | M::Vmovlhps => exchange_halves,
        _ => return Ok(false),
    };
    let in_mmx =
        (0..x.instruction.op_count()).any(|number| x.instruction.op_register(number).is_mm());
    match in_mmx {
        true => x.require_mmx()?,
        false => x.require_vectors()?,
    }
    act(x)?;
    if in_mmx {
        // Reading is using, too.
        x.enter_mmx()?;
    }
    Ok(true)
}

/// Bytes of an element before and after, and whether its sign goes with it.
const fn extension(mnemonic: M) -> Option<(usize, usize, bool)> {
    Some(match mnemonic {
        M::Pmovzxbw | M::Vpmovzxbw => (1, 2, false),
        M::Pmovzxbd | M::Vpmovzxbd => (1, 4, false),
        M::Pmovzxbq | M::Vpmovzxbq => (1, 8, false),
        M::Pmovzxwd | M::Vpmovzxwd => (2, 4, false),
        M::Pmovzxwq | M::Vpmovzxwq => (2, 8, false),
        M::Pmovzxdq | M::Vpmovzxdq => (4, 8, false),
        M::Pmovsxbw | M::Vpmovsxbw => (1, 2, true),
        M::Pmovsxbd | M::Vpmovsxbd => (1, 4, true),
        M::Pmovsxbq | M::Vpmovsxbq => (1, 8, true),
        M::Pmovsxwd | M::Vpmovsxwd => (2, 4, true),
        M::Pmovsxwq | M::Vpmovsxwq => (2, 8, true),
        M::Pmovsxdq | M::Vpmovsxdq => (4, 8, true),
        _ => return None,
    })
}

/// Vector operand `number` without a rule of alignment: in memory as many bytes as the decoder says.
fn source(x: &mut Execution<'_>, number: u32) -> Step<Vector> {
    if x.instruction.op_kind(number) == OpKind::Register {
        return x.vector_source(number, None);
    }
    let bytes = x.instruction.memory_size().size();
    let mut value = [0; VECTOR_BYTES];
    let linear = x.linear(number, bytes, Access::Read)?;
    x.load(linear, value.get_mut(..bytes).ok_or(Stop::Unknown)?)?;
    Ok(value)
}

/// Sets the destination, under the instruction's mask, to `value`.
fn finish(x: &mut Execution<'_>, value: &Vector) -> Step {
    let to = x.instruction.op_register(0);
    let element_bytes = match x.instruction.memory_size().element_size() {
        0 => 4,
        bytes => bytes,
    };
    x.finish_vector(to, value, element_bytes)
}

fn extend(x: &mut Execution<'_>, from: usize, to: usize, has_sign: bool) -> Step {
    let value = source(x, 1)?;
    let register = x.instruction.op_register(0);
    let mut result = [0; VECTOR_BYTES];
    for number in 0..register.size().checked_div(to).unwrap_or(0) {
        let narrow = element(&value, number, from);
        let wide = match has_sign {
            true => signed(narrow, from).cast_unsigned(),
            false => narrow,
        };
        set_element(&mut result, number, to, wide);
    }
    x.finish_vector(register, &result, to)
}

fn broadcast(x: &mut Execution<'_>) -> Step {
    // VPBROADCASTB and its kind from a general register; VBROADCASTI32X2 has elements of 4 in parts of 8.
    let part = match x.instruction.mnemonic() {
        M::Vpbroadcastb => 1,
        M::Vpbroadcastw => 2,
        M::Vpbroadcastd | M::Vbroadcastss => 4,
        M::Vpbroadcastq | M::Vbroadcastsd | M::Vbroadcastf32x2 | M::Vbroadcasti32x2 => 8,
        M::Vbroadcastf32x8 | M::Vbroadcasti32x8 | M::Vbroadcastf64x4 | M::Vbroadcasti64x4 => 32,
        _ => 16,
    };
    let from = x.instruction.op_register(1);
    let (value, bytes) = if from.is_gpr() {
        let mut value = [0; VECTOR_BYTES];
        put(&mut value, 0, &x.register(from).to_le_bytes());
        (value, part)
    } else {
        (source(x, 1)?, part)
    };
    let mut result = [0; VECTOR_BYTES];
    let part = value.get(..bytes).ok_or(Stop::Unknown)?;
    for to in result.chunks_exact_mut(bytes.max(1)) {
        to.copy_from_slice(part);
    }
    if from.is_gpr() {
        let to = x.instruction.op_register(0);
        return x.finish_vector(to, &result, bytes);
    }
    finish(x, &result)
}

/// The place of the part of `bytes` in `whole` that the constant names.
fn place(x: &Execution<'_>, bytes: usize, whole: usize) -> usize {
    let count = whole.checked_div(bytes).unwrap_or(1).max(1);
    (index(x.constant()) & count.wrapping_sub(1)).wrapping_mul(bytes)
}

fn insert_part(x: &mut Execution<'_>) -> Step {
    let bytes = x.instruction.memory_size().size();
    let mut value = source(x, 1)?;
    let part = source(x, 2)?;
    let whole = x.instruction.op_register(0).size();
    put(
        &mut value,
        place(x, bytes, whole),
        part.get(..bytes).unwrap_or_default(),
    );
    finish(x, &value)
}

fn extract_part(x: &mut Execution<'_>) -> Step {
    let bytes = x.instruction.memory_size().size();
    let element_bytes = x.instruction.memory_size().element_size();
    let whole = x.instruction.op_register(1).size();
    let value = source(x, 1)?;
    let from: Vector = at(&value, place(x, bytes, whole));
    let mut part = [0; VECTOR_BYTES];
    put(&mut part, 0, from.get(..bytes).unwrap_or_default());
    if x.is_memory(0) {
        let mask = x.mask()?;
        return x.store_masked(0, mask, element_bytes, bytes, &part);
    }
    finish(x, &part)
}

/// VPERM2F128 and VPERM2I128.
fn permute_lanes(x: &mut Execution<'_>) -> Step {
    let (a, b) = (source(x, 1)?, source(x, 2)?);
    let mut both = [0; VECTOR_BYTES];
    put(&mut both, 0, a.get(..32).unwrap_or_default());
    put(&mut both, 32, b.get(..32).unwrap_or_default());
    let constant = x.constant();
    let mut result = [0; VECTOR_BYTES];
    for (to, control) in [(0, constant), (16, constant >> 4)] {
        if control & 8 == 0 {
            let lane: [u8; 16] = at(&both, index(control & 3).wrapping_mul(16));
            put(&mut result, to, &lane);
        }
    }
    finish(x, &result)
}

/// VPERMD and VPERMQ, by a constant or by a register.
fn permute(x: &mut Execution<'_>) -> Step {
    let bytes = match x.instruction.mnemonic() {
        M::Vpermd | M::Vpermps => 4usize,
        _ => 8,
    };
    let whole = x.instruction.op_register(0).size();
    let count = whole.checked_div(bytes).unwrap_or(1);
    let by_constant = x.instruction.try_immediate(2).is_ok();
    let (selectors, value) = match by_constant {
        true => ([0; VECTOR_BYTES], x.vector_source(1, None)?),
        false => (x.vector_source(1, None)?, x.vector_source(2, None)?),
    };
    let constant = x.constant();
    let mut result = [0; VECTOR_BYTES];
    for number in 0..count {
        let from = match by_constant {
            true => {
                let shift = u32::try_from((number & 3).wrapping_mul(2)).unwrap_or(0);
                // Of four quad words.
                number & !3 | index(constant.wrapping_shr(shift) & 3)
            }
            false => index(element(&selectors, number, bytes)) & count.wrapping_sub(1),
        };
        set_element(&mut result, number, bytes, element(&value, from, bytes));
    }
    finish(x, &result)
}

/// VPERMILPS and VPERMILPD, by a constant or by a register.
fn permute_in_lanes(x: &mut Execution<'_>) -> Step {
    let double = x.instruction.mnemonic() == M::Vpermilpd;
    let bytes = if double { 8usize } else { 4 };
    let in_lane = 16usize.checked_div(bytes).unwrap_or(1);
    let value = x.vector_source(1, None)?;
    let selectors = match x.instruction.try_immediate(2) {
        Ok(constant) => {
            let mut selectors = [0; VECTOR_BYTES];
            for number in 0..VECTOR_BYTES.checked_div(bytes).unwrap_or(0) {
                let selector = match double {
                    // A bit for each quad word; two bits for each double word, the same in all lanes.
                    true => constant.wrapping_shr(u32::try_from(number).unwrap_or(0)) << 1,
                    false => {
                        let shift = (number & 3).wrapping_mul(2);
                        constant.wrapping_shr(u32::try_from(shift).unwrap_or(0))
                    }
                };
                set_element(&mut selectors, number, bytes, selector);
            }
            selectors
        }
        Err(_) => x.vector_source(2, None)?,
    };
    let mut result = [0; VECTOR_BYTES];
    for number in 0..VECTOR_BYTES.checked_div(bytes).unwrap_or(0) {
        let selector = element(&selectors, number, bytes);
        let selector = if double {
            selector >> 1 & 1
        } else {
            selector & 3
        };
        let from = number & !in_lane.wrapping_sub(1) | index(selector);
        set_element(&mut result, number, bytes, element(&value, from, bytes));
    }
    finish(x, &result)
}

/// VPBLENDD, BLENDPS and BLENDPD: a bit of the constant for each element.
fn blend(x: &mut Execution<'_>) -> Step {
    let legacy = x.instruction.encoding() == EncodingKind::Legacy;
    let first = if legacy { 0 } else { 1 };
    let bytes = match x.instruction.mnemonic() {
        M::Blendpd | M::Vblendpd => 8usize,
        _ => 4,
    };
    let mut value = x.vector_source(first, None)?;
    let other = x.vector_source(first.wrapping_add(1), None)?;
    let constant = x.constant();
    for number in 0..VECTOR_BYTES.checked_div(bytes).unwrap_or(0) {
        if constant.wrapping_shr(u32::try_from(number).unwrap_or(0)) & 1 != 0 && number < 8 {
            set_element(&mut value, number, bytes, element(&other, number, bytes));
        }
    }
    finish(x, &value)
}

/// VPBLENDM: the second source where the mask has the element, else the first.
fn blend_by_mask(x: &mut Execution<'_>) -> Step {
    let to = x.instruction.op_register(0);
    let element_bytes = x.instruction.memory_size().element_size();
    let zeroing = x.instruction.zeroing_masking();
    let a = match zeroing {
        true => [0; VECTOR_BYTES],
        false => x.vector_source(1, Some(element_bytes))?,
    };
    let b = x.vector_source(2, Some(element_bytes))?;
    let mask = x.mask()?;
    let mut value = [0; VECTOR_BYTES];
    for number in 0..to.size().checked_div(element_bytes).unwrap_or(0) {
        let chosen = mask.wrapping_shr(u32::try_from(number).unwrap_or(0)) & 1 != 0;
        let from = if chosen { &b } else { &a };
        let from = element(from, number, element_bytes);
        set_element(&mut value, number, element_bytes, from);
    }
    let widest = x.widest(to)?;
    x.set_vector(widest, &value)
}

/// VMASKMOV and VPMASKMOV: the signs of the second operand are the mask of a load or a store.
fn move_masked(x: &mut Execution<'_>) -> Step {
    let element_bytes = match x.instruction.mnemonic() {
        M::Vpmaskmovd | M::Vmaskmovps => 4,
        _ => 8,
    };
    let mask_register = x.instruction.op_register(1);
    let bytes = mask_register.size();
    let mask = signs(&x.vector(mask_register)?, element_bytes, bytes);
    if x.is_memory(0) {
        let register = x.instruction.op_register(2);
        let value = x.vector(register)?;
        return x.store_masked(0, mask, element_bytes, bytes, &value);
    }
    let mut value = [0; VECTOR_BYTES];
    x.load_masked(2, mask, element_bytes, bytes, &mut value)?;
    finish(x, &value)
}

/// PINSRB, PINSRW, PINSRD, PINSRQ.
fn insert_element(x: &mut Execution<'_>) -> Step {
    let to = x.instruction.op_register(0);
    let bytes = x.instruction.memory_size().size();
    let legacy = x.instruction.encoding() == EncodingKind::Legacy;
    let first = if legacy { 0 } else { 1 };
    let mut value = x.vector_source(first, None)?;
    let inserted = x.read(first.wrapping_add(1))?;
    let whole = to.size().min(16);
    let start = place(x, bytes, whole);
    put(
        &mut value,
        start,
        inserted.to_le_bytes().get(..bytes).unwrap_or_default(),
    );
    if to.is_mm() {
        return x.set_mmx(to, element(&value, 0, 8));
    }
    finish(x, &value)
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS.
fn extract_element(x: &mut Execution<'_>) -> Step {
    let bytes = match x.instruction.mnemonic() {
        M::Pextrb | M::Vpextrb => 1,
        M::Pextrw | M::Vpextrw => 2,
        M::Pextrd | M::Vpextrd | M::Extractps | M::Vextractps => 4,
        _ => 8,
    };
    let from = x.instruction.op_register(1);
    let value = x.vector_source(1, None)?;
    let start = place(x, bytes, from.size().min(16));
    let value = element(value.get(start..).unwrap_or_default(), 0, bytes);
    x.write(0, value)
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD.
fn sign_bits(x: &mut Execution<'_>) -> Step {
    let element_bytes = match x.instruction.mnemonic() {
        M::Movmskps | M::Vmovmskps => 4,
        M::Movmskpd | M::Vmovmskpd => 8,
        _ => 1,
    };
    let from = x.instruction.op_register(1);
    let value = x.vector_source(1, None)?;
    let to = x.instruction.op_register(0);
    x.set_register(to, signs(&value, element_bytes, from.size()));
    Ok(())
}

/// PTEST, VTESTPS, VTESTPD.
fn test(x: &mut Execution<'_>) -> Step {
    let bytes = x.instruction.op_register(0).size();
    let (a, b) = (x.vector_source(0, None)?, x.vector_source(1, None)?);
    let seen = match x.instruction.mnemonic() {
        M::Vtestps => 0x8000_0000_8000_0000,
        M::Vtestpd => 1 << 63,
        _ => u64::MAX,
    };
    let (mut common, mut beyond) = (0, 0);
    for number in 0..bytes >> 3 {
        let [a, b] = [&a, &b].map(|value| element(value, number, 8) & seen);
        common |= a & b;
        beyond |= !a & b;
    }
    x.set_flags(STATUS, flag(common == 0, ZF) | flag(beyond == 0, CF));
    Ok(())
}

/// MOVHLPS and MOVLHPS.
fn exchange_halves(x: &mut Execution<'_>) -> Step {
    let last = x.instruction.op_count().wrapping_sub(1);
    let first = last.saturating_sub(1);
    let [to, from] = [first, last].map(|number| x.instruction.op_register(number));
    let mut value = x.vector(to)?;
    let other = x.vector(from)?;
    let (to, from) = match x.instruction.mnemonic() {
        M::Movhlps | M::Vmovhlps => (0, 8),
        _ => (8, 0),
    };
    put(&mut value, to, &at::<8>(&other, from));
    // Whole quad words, and never under a mask.
    let register = x.instruction.op_register(0);
    x.finish_vector(register, &value, 8)
}

#[cfg(test)]
mod tests;
