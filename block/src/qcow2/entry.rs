//! Entries of the mapping tables (QEMU, docs/interop/qcow2, "Cluster mapping"), taken apart.

/// The cluster is nobody else's: its reference count is 1, and it may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// In an entry of the second level: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// In an entry of the second level, from version 3 on: the cluster reads as zeros.
const ZERO: u64 = 1;
/// Where a cluster is.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// A compressed cluster is counted in such sectors.
const SECTOR_BYTES: u64 = 512;

/// What an entry of the second level says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapping {
    /// Nothing that is in the file.
    Nothing,
    /// A cluster, possibly one that is kept for later and reads as zeros.
    Cluster { offset: u64 },
    /// So many bytes at most, of compressed data.
    Compressed { offset: u64, length: u64 },
    /// What no image has.
    Invalid,
}

/// Takes an entry of the second level apart.
pub(super) fn mapping(entry: u64, version: u32, cluster_bits: u32) -> Mapping {
    if entry & COMPRESSED != 0 {
        if entry & COPIED != 0 {
            return Mapping::Invalid;
        }
        return compressed(entry, cluster_bits);
    }
    let flags = if version < 3 { COPIED } else { COPIED | ZERO };
    if entry & !(OFFSET | flags) != 0 {
        return Mapping::Invalid;
    }
    match entry & OFFSET {
        0 => Mapping::Nothing,
        offset if is_aligned(offset, cluster_bits) => Mapping::Cluster { offset },
        _ => Mapping::Invalid,
    }
}

/// "Compressed Clusters Descriptor": the offset's width depends on the cluster's size.
fn compressed(entry: u64, cluster_bits: u32) -> Mapping {
    let offset_bits = 70_u32.saturating_sub(cluster_bits);
    let offset = entry & 1_u64.wrapping_shl(offset_bits).wrapping_sub(1);
    let more_sectors = (entry & (COMPRESSED.wrapping_sub(1))).wrapping_shr(offset_bits);
    let length = more_sectors
        .saturating_add(1)
        .saturating_mul(SECTOR_BYTES)
        .saturating_sub(offset & SECTOR_BYTES.wrapping_sub(1));
    Mapping::Compressed { offset, length }
}

/// The table of the second level to which an entry of the first leads, if it is one that can be.
pub(super) fn l2_table(entry: u64, cluster_bits: u32) -> Option<u64> {
    let offset = entry & OFFSET;
    (entry & !(OFFSET | COPIED) == 0 && offset != 0 && is_aligned(offset, cluster_bits))
        .then_some(offset)
}

fn is_aligned(offset: u64, cluster_bits: u32) -> bool {
    offset.trailing_zeros() >= cluster_bits
}

#[cfg(test)]
mod tests;
