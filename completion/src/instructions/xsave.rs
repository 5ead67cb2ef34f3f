//! XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS (Intel SDM volume 1, 13.7 to 13.12).
//!
//! The vCPU's state comes and goes in standard form; guest memory has standard or compacted form. State
//! components of supervisors (IA32_XSS) are not in the vCPU's area: an instruction that wants one is
//! unknown.

use iced_x86::Mnemonic as M;

use super::fxsave::{aligned, narrow_pointers};
use super::system::{edx_eax, require_xsave};
use super::vector_state::{MXCSR_INITIAL, legacy};
use crate::cpu::msr;
use crate::exception::{Exception, Step, Stop};
use crate::execution::Execution;
use crate::feature::Feature;
use crate::paging::Access;
use crate::word::{at, put};
use crate::xsave_layout::{EXTENDED_REGION, component};

/// XCOMP_BV's bit for the compacted form.
const COMPACTED: u64 = 1 << 63;
const X87: u64 = 1 << component::X87;
const SSE: u64 = 1 << component::SSE;
const AVX: u64 = 1 << component::AVX;
/// Offsets in the header (13.4.2).
const XCOMP_BV: usize = 520;
const RESERVED: usize = 528;

pub fn execute(x: &mut Execution<'_>) -> Step {
    require_xsave(x)?;
    let mnemonic = x.instruction.mnemonic();
    let supervisor = matches!(
        mnemonic,
        M::Xsaves | M::Xsaves64 | M::Xrstors | M::Xrstors64
    );
    if supervisor {
        x.require_supervisor(Exception::general_protection())?;
    }
    x.require_device()?;
    let mut enabled = x.cpu.xcr0()?;
    if supervisor {
        enabled |= x.cpu.msr(msr::XSS)?;
    }
    let requested = edx_eax(x) & enabled;
    if requested & !x.cpu.xsave_layout().user_components() != 0 {
        return Err(Stop::Unknown);
    }
    match mnemonic {
        M::Xrstor | M::Xrstor64 | M::Xrstors | M::Xrstors64 => {
            restore(x, requested, enabled, supervisor)
        }
        _ => save(x, requested),
    }
}

/// The components of the extended region in `map`.
fn extended(map: u64) -> impl Iterator<Item = u32> {
    (2..63u32).filter(move |number| map & 1u64.wrapping_shl(*number) != 0)
}

/// Whether the operand size is 64 bits, which makes x87 pointers as wide.
fn is_wide(x: &Execution<'_>) -> bool {
    matches!(
        x.instruction.mnemonic(),
        M::Xsave64 | M::Xsaveopt64 | M::Xsavec64 | M::Xsaves64 | M::Xrstor64 | M::Xrstors64
    )
}

/// Bytes of the XMM registers that the code's width has.
fn xmm_bytes(x: &Execution<'_>) -> usize {
    if x.system.is_64_bit() { 256 } else { 128 }
}

fn save(x: &mut Execution<'_>, requested: u64) -> Step {
    let (compacted, all) = match x.instruction.mnemonic() {
        M::Xsavec | M::Xsavec64 | M::Xsaves | M::Xsaves64 => (true, false),
        M::Xsaveopt | M::Xsaveopt64 => (false, false),
        _ => (false, true),
    };
    let layout = x.cpu.xsave_layout();
    let bytes = layout.area_bytes(requested, compacted);
    let linear = aligned(x, bytes, 64, Access::Write)?;
    let pieces = x.translate(linear, bytes, Access::Write)?;
    x.settle(requested)?;
    let mxcsr = x.mxcsr()?;
    let mut in_use = x.in_use()?;
    if compacted && mxcsr != MXCSR_INITIAL {
        // Only for these does MXCSR count as a part of SSE (13.10, 13.11).
        in_use |= SSE;
    }
    let saved = if all { requested } else { requested & in_use };

    // Only what the instruction writes is written; the rest of the area may be somebody else's.
    let mut image = [0; EXTENDED_REGION];
    x.load_pieces(&pieces, &mut image);
    let mut source = x.area()?.clone();
    if !is_wide(x) {
        narrow_pointers(&mut source);
    }
    let part = |from: usize, to: usize| source.get(from..to).unwrap_or_default();
    let mut written = Vec::with_capacity(16);
    if saved & X87 != 0 {
        written.push((0, part(0, legacy::MXCSR)));
        written.push((legacy::ST, part(legacy::ST, legacy::XMM)));
    }
    let with_mxcsr = match (compacted, all) {
        (true, _) => saved & SSE != 0,
        (false, true) => requested & (SSE | AVX) != 0,
        // XSAVEOPT writes MXCSR if it would write either component.
        (false, false) => requested & (SSE | AVX) != 0,
    };
    if with_mxcsr {
        written.push((legacy::MXCSR, part(legacy::MXCSR, legacy::ST)));
    }
    if saved & SSE != 0 {
        let end = legacy::XMM.saturating_add(xmm_bytes(x));
        written.push((legacy::XMM, part(legacy::XMM, end)));
    }
    let layout = x.cpu.xsave_layout();
    for number in extended(saved) {
        let component = layout.component(number);
        let start = component.offset_bytes;
        let offset = match compacted {
            true => layout.compacted_offset(requested, number),
            false => start,
        };
        written.push((
            offset,
            part(start, start.saturating_add(component.size_bytes)),
        ));
    }
    let before = u64::from_le_bytes(at(&image, legacy::HEADER));
    let header = match compacted {
        true => requested & in_use,
        false => before & !requested | requested & in_use,
    };
    let header = header.to_le_bytes();
    written.push((legacy::HEADER, &header));
    let format = (requested | COMPACTED).to_le_bytes();
    if compacted {
        written.push((XCOMP_BV, &format));
    }
    for (offset, data) in written {
        x.store_within(&pieces, offset, data);
    }
    Ok(())
}

fn restore(x: &mut Execution<'_>, requested: u64, enabled: u64, supervisor: bool) -> Step {
    let fault = || Err(Exception::general_protection().into());
    let linear = aligned(x, EXTENDED_REGION, 64, Access::Read)?;
    let mut image = vec![0; EXTENDED_REGION];
    x.load(linear, &mut image)?;
    let saved = u64::from_le_bytes(at(&image, legacy::HEADER));
    let format = u64::from_le_bytes(at(&image, XCOMP_BV));
    let compacted = format & COMPACTED != 0;
    let map = format & !COMPACTED;
    let zero = |from: usize| {
        let rest = image.get(from..EXTENDED_REGION).unwrap_or_default();
        rest.iter().all(|byte| *byte == 0)
    };
    let valid = if compacted {
        (supervisor || x.cpu.has(Feature::Xsavec))
            && map & !enabled == 0
            && saved & !map == 0
            && zero(RESERVED)
    } else {
        !supervisor
            && saved & !enabled == 0
            && format == 0
            && u64::from_le_bytes(at(&image, RESERVED)) == 0
    };
    if !valid {
        return fault();
    }
    let loaded = requested & saved;
    let layout = x.cpu.xsave_layout();
    let bytes = layout.area_bytes(if compacted { map } else { loaded }, compacted);
    image.resize(bytes.max(EXTENDED_REGION), 0);
    if bytes > EXTENDED_REGION {
        x.load(linear, &mut image)?;
    }
    if !is_wide(x) {
        narrow_pointers(&mut image);
    }
    let mxcsr = match compacted {
        // Part of SSE, and like it at its initial value where that is.
        true if requested & SSE == 0 => None,
        true if loaded & SSE == 0 => Some(MXCSR_INITIAL),
        false if requested & (SSE | AVX) == 0 => None,
        _ => Some(u32::from_le_bytes(at(&image, legacy::MXCSR))),
    };
    if let Some(mxcsr) = mxcsr {
        x.check_mxcsr(mxcsr)?;
    }

    // Nothing faults from here on.
    let in_use = x.in_use()?;
    for number in (0..63u32).filter(|number| requested & 1u64.wrapping_shl(*number) != 0) {
        x.initialise_component(number)?;
    }
    x.set_in_use(in_use & !requested | loaded)?;
    let xmm_end = legacy::XMM.saturating_add(xmm_bytes(x));
    let mut copied = Vec::with_capacity(16);
    if loaded & X87 != 0 {
        copied.push((0, 0, legacy::MXCSR));
        copied.push((
            legacy::ST,
            legacy::ST,
            legacy::XMM.saturating_sub(legacy::ST),
        ));
    }
    if loaded & SSE != 0 {
        copied.push((
            legacy::XMM,
            legacy::XMM,
            xmm_end.saturating_sub(legacy::XMM),
        ));
    }
    let layout = x.cpu.xsave_layout();
    for number in extended(loaded) {
        let component = layout.component(number);
        let from = match compacted {
            true => layout.compacted_offset(map, number),
            false => component.offset_bytes,
        };
        copied.push((from, component.offset_bytes, component.size_bytes));
    }
    let area = x.area()?;
    for (from, to, bytes) in copied {
        let from = image
            .get(from..from.saturating_add(bytes))
            .unwrap_or_default();
        put(area, to, from);
    }
    match mxcsr {
        Some(mxcsr) => x.set_mxcsr(mxcsr),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
