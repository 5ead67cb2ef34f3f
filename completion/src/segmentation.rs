//! From an offset in a segment to a linear address (Intel SDM volume 3, 6.3 to 6.5, and volume 1, 3.3.7).

use crate::cpu::{SegmentName, SystemRegisters, bits};
use crate::exception::Exception;
use crate::paging::Access;
use crate::word::length;

/// The linear address of `bytes` at `offset` in the segment `name`.
///
/// # Errors
///
/// #GP(0), or #SS(0) for the stack's segment, when the segment does not allow the access or the address is
/// not canonical.
pub fn linear_address(
    system: &SystemRegisters,
    name: SegmentName,
    offset: u64,
    bytes: usize,
    access: Access,
) -> Result<u64, Exception> {
    let segment = system.segment(name);
    let refused = match name {
        SegmentName::Ss => Exception::stack_fault(),
        _ => Exception::general_protection(),
    };
    let last = length(bytes).saturating_sub(1);
    if system.is_64_bit() {
        let base = match name {
            SegmentName::Fs | SegmentName::Gs => segment.base,
            _ => 0,
        };
        let linear = base.wrapping_add(offset);
        let end = linear.wrapping_add(last);
        return match is_canonical(system, linear) && is_canonical(system, end) {
            true => Ok(linear),
            false => Err(refused),
        };
    }
    if !segment.usable {
        return Err(refused);
    }
    if system.is_protected() {
        let is_code = segment.kind & 8 != 0;
        // The bit that lets code be read and data be written.
        let more = segment.kind & 2 != 0;
        let allowed = match access {
            Access::Read => !is_code || more,
            Access::Write => !is_code && more,
            Access::Fetch => is_code,
        };
        if !allowed {
            return Err(refused);
        }
    }
    let limit = u64::from(segment.limit);
    let expands_down = segment.kind & 0xc == 4;
    let end = offset.saturating_add(last);
    let within = if expands_down {
        let top = match segment.default_32_bit {
            true => 0xffff_ffff,
            false => 0xffff,
        };
        offset > limit && end <= top
    } else {
        end <= limit
    };
    match within {
        true => Ok(segment.base.wrapping_add(offset) & 0xffff_ffff),
        false => Err(refused),
    }
}

/// Whether the bits above the paged ones are copies of the highest of those.
pub const fn is_canonical(system: &SystemRegisters, address: u64) -> bool {
    let unused = if system.cr4 & bits::CR4_LA57 != 0 {
        7
    } else {
        16
    };
    (address.cast_signed() << unused >> unused).cast_unsigned() == address
}
