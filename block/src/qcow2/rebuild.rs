//! All reference counts of an image made anew, beside the old ones: until the header names them, the image is
//! what it was, and from then on it is what it should be (QEMU, docs/interop/qcow2, "Host cluster
//! management").

use std::io;

use super::header::{Header, REFCOUNT_TABLE_BYTES_MAX};
use super::medium::Medium;
use super::refcounts::Blocks;
use super::usage::{Claim, Usage};

/// Where a table of reference counts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RefcountTable {
    pub offset: u64,
    pub clusters: u32,
}

/// Takes room for `length` bytes, in clusters that `is_free` names, or behind all of them. Returns its offset.
pub(super) fn allocate(
    header: &Header,
    usage: &mut Usage,
    is_free: impl Fn(&Usage, u64) -> bool,
    length: u64,
) -> io::Result<u64> {
    let count = length.div_ceil(header.cluster_bytes());
    let first = find_run(usage, &is_free, count);
    usage.extend_to(first.saturating_add(count))?;
    let offset = first.wrapping_shl(header.cluster_bits);
    match usage.claim(offset, length, header.cluster_bits) {
        Claim::Done => Ok(offset),
        Claim::Outside | Claim::Taken => Err(io::Error::other("no room was found in the image")),
    }
}

/// The first of so many free clusters in a row.
fn find_run(usage: &Usage, is_free: &impl Fn(&Usage, u64) -> bool, count: u64) -> u64 {
    let mut first = 1;
    for cluster in 1..usage.clusters() {
        if cluster.saturating_sub(first) >= count {
            break;
        }
        if usage.count(cluster) > 0 || !is_free(usage, cluster) {
            first = cluster.saturating_add(1);
        }
    }
    first
}

/// Writes reference counts for all of `usage`, and for what they take themselves, and returns where they
/// are. They are not on the disk yet.
pub(super) fn rebuild(
    medium: &Medium<'_>,
    header: &Header,
    usage: &mut Usage,
    is_free: impl Fn(&Usage, u64) -> bool,
) -> io::Result<RefcountTable> {
    let blocks = Blocks::of(header);
    let too_large = || io::Error::other("its reference counts would need more room than can be");
    let mut needed = needed_blocks(usage, blocks);
    // More blocks need more room, which needs more blocks.
    let (first, table_clusters) = loop {
        let last = needed.last().copied().unwrap_or(0);
        let table_bytes = last.saturating_add(1).saturating_mul(8);
        if table_bytes > REFCOUNT_TABLE_BYTES_MAX {
            return Err(too_large());
        }
        let table_clusters = table_bytes.div_ceil(header.cluster_bytes());
        let block_count = u64::try_from(needed.len()).unwrap_or(u64::MAX);
        let count = table_clusters.saturating_add(block_count);
        let first = find_run(usage, &is_free, count);
        let end = first.saturating_add(count);
        let before = needed.len();
        let own = blocks.of_cluster(first)..=blocks.of_cluster(end.saturating_sub(1));
        needed.extend(own);
        needed.sort_unstable();
        needed.dedup();
        if needed.len() == before {
            usage.extend_to(end)?;
            break (first, table_clusters);
        }
    };
    let bits = header.cluster_bits;
    let offset = first.wrapping_shl(bits);
    let first_block = first.saturating_add(table_clusters);
    let block_count = u64::try_from(needed.len()).unwrap_or(u64::MAX);
    for cluster in first..first_block.saturating_add(block_count) {
        usage.add(cluster, 1);
    }
    let cluster_bytes = usize::try_from(header.cluster_bytes()).map_err(|_| too_large())?;
    let table_bytes = table_clusters.wrapping_shl(bits);
    let mut table = vec![0; usize::try_from(table_bytes).map_err(|_| too_large())?];
    for (block_index, cluster) in needed.iter().zip(first_block..) {
        let block_offset = cluster.wrapping_shl(bits);
        let mut block = vec![0; cluster_bytes];
        let first_count = block_index.saturating_mul(blocks.counts());
        for index in 0..blocks.counts() {
            let count = u64::from(usage.count(first_count.saturating_add(index)));
            if count > blocks.most() {
                return Err(io::Error::other(format!(
                    "its reference counts are too narrow: a cluster is used {count} times, and they go to {}",
                    blocks.most()
                )));
            }
            if count > 0 {
                blocks.set(&mut block, index, count);
            }
        }
        medium.write(block_offset, &block)?;
        let at = usize::try_from(block_index.saturating_mul(8)).map_err(|_| too_large())?;
        if let Some(entry) = table.get_mut(at..at.saturating_add(8)) {
            entry.copy_from_slice(&block_offset.to_be_bytes());
        }
    }
    medium.write(offset, &table)?;
    Ok(RefcountTable {
        offset,
        clusters: u32::try_from(table_clusters).map_err(|_| too_large())?,
    })
}

/// Blocks that have counts.
fn needed_blocks(usage: &Usage, blocks: Blocks) -> Vec<u64> {
    let mut needed = Vec::new();
    for cluster in 0..usage.clusters() {
        let block = blocks.of_cluster(cluster);
        if usage.count(cluster) > 0 && needed.last() != Some(&block) {
            needed.push(block);
        }
    }
    needed
}
