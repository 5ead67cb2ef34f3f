//! The reference counts of an image (QEMU, docs/interop/qcow2, "Host cluster management"), compared with what
//! uses its clusters, and lowered where they are too high.

use std::io;

use super::findings::{Findings, Flaw};
use super::header::Header;
use super::medium::Medium;
use super::usage::{Usage, kind};

/// How a block of reference counts is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    order: u32,
    cluster_bits: u32,
}

impl Blocks {
    pub(super) fn of(header: &Header) -> Self {
        Self {
            order: header.refcount_order,
            cluster_bits: header.cluster_bits,
        }
    }

    /// Clusters whose counts are in one block.
    pub(super) fn counts(self) -> u64 {
        1_u64.wrapping_shl(self.count_bits())
    }

    /// The block that has a cluster's count.
    pub(super) fn of_cluster(self, cluster: u64) -> u64 {
        cluster.wrapping_shr(self.count_bits())
    }

    fn count_bits(self) -> u32 {
        let bits = self.cluster_bits.saturating_add(3);
        bits.saturating_sub(self.order)
    }

    /// The highest count.
    pub(super) fn most(self) -> u64 {
        u64::MAX.wrapping_shr(64_u32.saturating_sub(1_u32.wrapping_shl(self.order)))
    }

    /// A count in a block.
    pub(super) fn get(self, block: &[u8], index: u64) -> u64 {
        let (at, bytes, shift) = self.place(index);
        let field = block.get(at..at.saturating_add(bytes)).unwrap_or_default();
        let value = field.iter().fold(0_u64, |value, &byte| {
            value.wrapping_shl(8) | u64::from(byte)
        });
        value.wrapping_shr(shift) & self.most()
    }

    /// Changes a count in a block.
    pub(super) fn set(self, block: &mut [u8], index: u64, count: u64) {
        let (at, bytes, shift) = self.place(index);
        let Some(field) = block.get_mut(at..at.saturating_add(bytes)) else {
            return;
        };
        let mut value = field.iter().fold(0_u64, |value, &byte| {
            value.wrapping_shl(8) | u64::from(byte)
        });
        value = value & !self.most().wrapping_shl(shift) | count.wrapping_shl(shift);
        let from = 8_usize.saturating_sub(bytes);
        field.copy_from_slice(value.to_be_bytes().get(from..).unwrap_or_default());
    }

    /// Where a count is: byte, length in bytes, and how far it is to be shifted. Narrow counts fill a byte from
    /// its lowest bit on.
    fn place(self, index: u64) -> (usize, usize, u32) {
        let bit = index.wrapping_shl(self.order);
        let at = usize::try_from(bit.wrapping_shr(3)).unwrap_or(usize::MAX);
        let bytes = 1_usize.wrapping_shl(self.order.saturating_sub(3));
        let shift = match self.order {
            0..3 => u32::try_from(bit & 7).unwrap_or(0),
            _ => 0,
        };
        (at, bytes, shift)
    }
}

/// Compares all reference counts with `usage`, and marks clusters that are counted once. With `lower`, counts
/// that are too high become what they should be; each write makes fewer of them, so that an
/// interruption does no harm.
pub(super) fn compare(
    medium: &Medium<'_>,
    header: &Header,
    usage: &mut Usage,
    findings: &mut Findings,
    lower: bool,
) -> io::Result<()> {
    let blocks = Blocks::of(header);
    let table_entries = header.refcount_table_bytes().wrapping_div(8);
    let mut entries = Vec::new();
    medium.for_each_entry(header.refcount_table, table_entries, |index, entry| {
        entries.push((index, entry));
    })?;
    let cluster_bytes = usize::try_from(header.cluster_bytes()).unwrap_or(0);
    let mut block = vec![0; cluster_bytes];
    // Clusters before this one have been compared.
    let mut done = 0;
    for (index, offset) in entries {
        let cluster = offset.wrapping_shr(header.cluster_bits);
        // Only those that are there, and the second time one is named it is none.
        if !usage.is(cluster, kind::REFCOUNT_BLOCK) || usage.is(cluster, kind::BLOCK_SEEN) {
            continue;
        }
        usage.mark(cluster, kind::BLOCK_SEEN);
        let first = index.saturating_mul(blocks.counts());
        find_uncounted(done, first, header, usage, findings);
        done = first.saturating_add(blocks.counts());
        medium.read(offset, &mut block)?;
        let mut is_lowered = false;
        for (index, cluster) in (first..done).enumerate() {
            let index = u64::try_from(index).unwrap_or(u64::MAX);
            let stored = blocks.get(&block, index);
            let used = u64::from(usage.count(cluster));
            if stored > used {
                findings.leaks = findings.leaks.saturating_add(1);
                if lower {
                    blocks.set(&mut block, index, used);
                    is_lowered = true;
                }
            } else if stored < used {
                let offset = cluster.wrapping_shl(header.cluster_bits);
                findings.add(Flaw::CountTooLow, offset);
            }
            if stored == 1 {
                usage.mark(cluster, kind::COUNTED_ONCE);
            }
        }
        if is_lowered {
            medium.write(offset, &block)?;
        }
    }
    find_uncounted(done, usage.clusters(), header, usage, findings);
    if lower { medium.sync() } else { Ok(()) }
}

/// Clusters that no block has counts for have none.
fn find_uncounted(from: u64, to: u64, header: &Header, usage: &Usage, findings: &mut Findings) {
    for cluster in from..to.min(usage.clusters()) {
        if usage.count(cluster) > 0 {
            let offset = cluster.wrapping_shl(header.cluster_bits);
            findings.add(Flaw::CountTooLow, offset);
        }
    }
}

#[cfg(test)]
mod tests;
