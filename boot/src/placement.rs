//! Whether what a kernel wants to occupy is free RAM.

use std::ops::Range;

use arch::layout;
use arch::memory_map::MemoryMap;

use crate::elf::Segment;

/// Why a kernel cannot lie where it wants to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PlacementError {
    /// RAM ends too early.
    #[error(
        "it needs RAM up to {end:#x}, but there are {have_mib} MiB: give the machine at least {needed_mib} MiB of memory"
    )]
    TooLittleMemory {
        end: u64,
        have_mib: u64,
        needed_mib: u64,
    },
    /// More memory would not help.
    #[error(
        "it wants to lie at {start:#x}..{end:#x}, where no machine has RAM: use a kernel that is linked for addresses from 0x100000 to 0xc0000000"
    )]
    Outside { start: u64, end: u64 },
    /// Something else lies there.
    #[error(
        "it wants to lie at {start:#x}..{end:#x}, but {reserved_start:#x}..{reserved_end:#x} is {what}: use a kernel that is linked for addresses from 0x100000 on"
    )]
    Reserved {
        start: u64,
        end: u64,
        reserved_start: u64,
        reserved_end: u64,
        what: &'static str,
    },
    /// Two segments have the same addresses.
    #[error(
        "its segments {first} and {second} both want the address {address:#x}: the physical addresses that it was linked for are wrong"
    )]
    Overlap {
        first: usize,
        second: usize,
        address: u64,
    },
}

/// What no kernel may overlap although there is RAM behind it.
const RESERVED: [(Range<u64>, &str); 2] = [
    (
        0..layout::COMMAND_LINE.end,
        "where the boot loader leaves its tables and the command line",
    ),
    (
        layout::CONVENTIONAL_END..layout::EXTENDED_START,
        "the hole of the PC with the ACPI tables",
    ),
];

/// Checks the segments of an ELF image; gives the addresses from the lowest to the highest of them.
pub(crate) fn check_segments(
    segments: &[Segment],
    map: &MemoryMap,
) -> Result<Range<u64>, PlacementError> {
    let mut by_address: Vec<&Segment> = segments.iter().collect();
    by_address.sort_by_key(|segment| segment.address);
    for pair in by_address.windows(2) {
        if let [first, second] = pair
            && second.address < first.end()
        {
            return Err(PlacementError::Overlap {
                first: first.index,
                second: second.index,
                address: second.address,
            });
        }
    }
    for segment in &by_address {
        check(&(segment.address..segment.end()), map)?;
    }
    let start = by_address.first().map_or(0, |segment| segment.address);
    let end = by_address.last().map_or(0, |segment| segment.end());
    Ok(start..end)
}

/// Checks that a kernel may occupy `range`.
pub(crate) fn check(range: &Range<u64>, map: &MemoryMap) -> Result<(), PlacementError> {
    let Range { start, end } = *range;
    for (reserved, what) in RESERVED {
        if start < reserved.end && reserved.start < end {
            return Err(PlacementError::Reserved {
                start,
                end,
                reserved_start: reserved.start,
                reserved_end: reserved.end,
                what,
            });
        }
    }
    if map
        .ram()
        .iter()
        .any(|ram| ram.start <= start && end <= ram.end)
    {
        Ok(())
    } else if end <= layout::LOW_RAM_END {
        Err(PlacementError::TooLittleMemory {
            end,
            have_mib: map.size_bytes() >> 20,
            needed_mib: end.div_ceil(1 << 20),
        })
    } else {
        Err(PlacementError::Outside { start, end })
    }
}

#[cfg(test)]
mod tests;
