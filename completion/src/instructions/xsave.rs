//! XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS (Intel SDM volume 1, 13.7 to 13.12).
//!
//! The vCPU's state comes and goes in standard form; guest memory has standard or compacted form. State
//! components of supervisors (IA32_XSS) are not in the vCPU's area: those of control-flow enforcement are
//! model-specific registers, and an instruction that wants another is unknown.

use iced_x86::Mnemonic as M;

use super::fxsave::{aligned, narrow_pointers};
use super::supervisor_state as supervisor;
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
    let is_supervisor = matches!(
        mnemonic,
        M::Xsaves | M::Xsaves64 | M::Xrstors | M::Xrstors64
    );
    if is_supervisor {
        x.require_supervisor(Exception::general_protection())?;
    }
    x.require_device()?;
    let mut enabled = x.xcr0()?;
    if is_supervisor {
        enabled |= x.cpu.msr(msr::XSS)?;
    }
    let requested = edx_eax(x) & enabled;
    let known = x.cpu.xsave_layout().user_components() | supervisor::ALL;
    if requested & !known != 0 {
        return Err(Stop::Unknown);
    }
    match mnemonic {
        M::Xrstor | M::Xrstor64 | M::Xrstors | M::Xrstors64 => {
            restore(x, requested, enabled, is_supervisor)
        }
        _ => save(x, requested),
    }
}

/// Room for the image of all components there are: 8 KiB of tiles and what is before them.
const IMAGE_BYTES_MAX: usize = 12 * 1024;

/// The linear address of the extended region of an area of `bytes`.
fn aligned_extended(x: &Execution<'_>, bytes: usize) -> Step<u64> {
    let linear = aligned(x, bytes, 64, Access::Read)?;
    let address = linear.wrapping_add(crate::word::length(EXTENDED_REGION));
    Ok(if x.system.is_64_bit() {
        address
    } else {
        address & 0xffff_ffff
    })
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
    let registers = supervisor::read(x, requested)?;
    let mut in_use = x.in_use()? & !supervisor::ALL | registers.in_use;
    if compacted && mxcsr != MXCSR_INITIAL {
        // Only for these does MXCSR count as a part of SSE (13.10, 13.11).
        in_use |= SSE;
    }
    let saved = if all { requested } else { requested & in_use };

    // Only what the instruction writes is written; the rest of the area may be somebody else's.
    let mut image = [0; EXTENDED_REGION];
    x.load_pieces(&pieces, &mut image);
    let Some(area) = x.area.take() else {
        return Err(Stop::Unknown);
    };
    let mut pointers: [u8; legacy::MXCSR] = at(&area, 0);
    if !is_wide(x) {
        narrow_pointers(&mut pointers);
    }
    let part = |from: usize, to: usize| area.get(from..to).unwrap_or_default();
    if saved & X87 != 0 {
        x.store_within(&pieces, 0, &pointers);
        x.store_within(&pieces, legacy::ST, part(legacy::ST, legacy::XMM));
    }
    let with_mxcsr = match compacted {
        true => saved & SSE != 0,
        // XSAVEOPT writes MXCSR if it would write either component, as XSAVE does.
        false => requested & (SSE | AVX) != 0,
    };
    if with_mxcsr {
        x.store_within(&pieces, legacy::MXCSR, part(legacy::MXCSR, legacy::ST));
    }
    if saved & SSE != 0 {
        let end = legacy::XMM.saturating_add(xmm_bytes(x));
        x.store_within(&pieces, legacy::XMM, part(legacy::XMM, end));
    }
    for number in extended(saved) {
        let layout = x.cpu.xsave_layout();
        let component = layout.component(number);
        let start = component.offset_bytes;
        let offset = match compacted {
            true => layout.compacted_offset(requested, number),
            false => start,
        };
        let data = match registers.image(number) {
            Some(image) => image,
            None => part(start, start.saturating_add(component.size_bytes)),
        };
        x.store_within(&pieces, offset, data);
    }
    let before = u64::from_le_bytes(at(&image, legacy::HEADER));
    let header = match compacted {
        true => requested & in_use,
        false => before & !requested | requested & in_use,
    };
    x.store_within(&pieces, legacy::HEADER, &header.to_le_bytes());
    if compacted {
        let format = (requested | COMPACTED).to_le_bytes();
        x.store_within(&pieces, XCOMP_BV, &format);
    }
    x.area = Some(area);
    Ok(())
}

fn restore(x: &mut Execution<'_>, requested: u64, enabled: u64, is_supervisor: bool) -> Step {
    let fault = || Err(Exception::general_protection().into());
    let linear = aligned(x, EXTENDED_REGION, 64, Access::Read)?;
    let mut buffer = [0; IMAGE_BYTES_MAX];
    let head = buffer.get_mut(..EXTENDED_REGION).ok_or(Stop::Unknown)?;
    x.load(linear, head)?;
    let image = &*head;
    let saved = u64::from_le_bytes(at(image, legacy::HEADER));
    let format = u64::from_le_bytes(at(image, XCOMP_BV));
    let compacted = format & COMPACTED != 0;
    let map = format & !COMPACTED;
    let zero = |from: usize| {
        let rest = image.get(from..EXTENDED_REGION).unwrap_or_default();
        rest.iter().all(|byte| *byte == 0)
    };
    let valid = if compacted {
        (is_supervisor || x.cpu.has(Feature::Xsavec))
            && map & !enabled == 0
            && saved & !map == 0
            && zero(RESERVED)
    } else {
        !is_supervisor
            && saved & !enabled == 0
            && format == 0
            && u64::from_le_bytes(at(image, RESERVED)) == 0
    };
    if !valid {
        return fault();
    }
    let loaded = requested & saved;
    let layout = x.cpu.xsave_layout();
    let bytes = layout.area_bytes(if compacted { map } else { loaded }, compacted);
    let image = buffer
        .get_mut(..bytes.max(EXTENDED_REGION))
        .ok_or(Stop::Unknown)?;
    if bytes > EXTENDED_REGION {
        let (_, extended) = image
            .split_at_mut_checked(EXTENDED_REGION)
            .ok_or(Stop::Unknown)?;
        let behind = aligned_extended(x, bytes)?;
        x.load(behind, extended)?;
    }
    if !is_wide(x) {
        narrow_pointers(image);
    }
    let image = &*image;
    let mxcsr = match compacted {
        // Part of SSE, and like it at its initial value where that is.
        true if requested & SSE == 0 => None,
        true if loaded & SSE == 0 => Some(MXCSR_INITIAL),
        false if requested & (SSE | AVX) == 0 => None,
        _ => Some(u32::from_le_bytes(at(image, legacy::MXCSR))),
    };
    if let Some(mxcsr) = mxcsr {
        x.check_mxcsr(mxcsr)?;
    }

    let registers = supervisor::from_image(x, requested, loaded, map, image)?;

    // Nothing faults from here on.
    supervisor::write(x, &registers)?;
    let (requested, loaded) = (requested & !supervisor::ALL, loaded & !supervisor::ALL);
    let in_use = x.in_use()?;
    for number in (0..63u32).filter(|number| requested & 1u64.wrapping_shl(*number) != 0) {
        x.initialise_component(number)?;
    }
    x.set_in_use(in_use & !requested | loaded)?;
    let xmm_end = legacy::XMM.saturating_add(xmm_bytes(x));
    let part = |from: usize, to: usize| image.get(from..to).unwrap_or_default();
    let area = x.area()?;
    if loaded & X87 != 0 {
        put(area, 0, part(0, legacy::MXCSR));
        put(area, legacy::ST, part(legacy::ST, legacy::XMM));
    }
    if loaded & SSE != 0 {
        put(area, legacy::XMM, part(legacy::XMM, xmm_end));
    }
    for number in extended(loaded) {
        let layout = x.cpu.xsave_layout();
        let component = layout.component(number);
        let from = match compacted {
            true => layout.compacted_offset(map, number),
            false => component.offset_bytes,
        };
        let data = part(from, from.saturating_add(component.size_bytes));
        put(x.area()?, component.offset_bytes, data);
    }
    match mxcsr {
        Some(mxcsr) => x.set_mxcsr(mxcsr),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
