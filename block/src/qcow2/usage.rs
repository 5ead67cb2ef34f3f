//! How often each cluster of an image's file is used, and for what.
//!
//! Memory: five bytes for each cluster of the file, which the host gives only for those that are touched.

use std::alloc::{self, Layout};
use std::io;

/// Most clusters that are looked after: 32 TiB with clusters of 64 KiB.
const CLUSTERS_MAX: u64 = 1 << 29;

/// What a cluster is; several may hold.
pub(super) mod kind {
    /// It is a table, or a part of one.
    pub const METADATA: u8 = 1;
    /// It is a mapping table of the second level.
    pub const L2_TABLE: u8 = 1 << 1;
    /// It is a block of reference counts, and
    pub const REFCOUNT_BLOCK: u8 = 1 << 2;
    /// its counts have been looked at.
    pub const BLOCK_SEEN: u8 = 1 << 3;
    /// The image has a reference count of 1 for it.
    pub const COUNTED_ONCE: u8 = 1 << 4;
    /// It is a table of the second level whose flags have been looked at.
    pub const FLAGS_SEEN: u8 = 1 << 5;
}

/// Counts of references, found by following the tables.
#[derive(Debug)]
pub(super) struct Usage {
    counts: Vec<u32>,
    kinds: Vec<u8>,
}

/// How a claim of a range of clusters went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Done,
    /// It is not aligned, or not all in the file.
    Outside,
    /// Some of it is a table already.
    Taken,
}

impl Usage {
    /// Nothing is used yet of a file with so many clusters.
    pub(super) fn new(clusters: u64) -> io::Result<Self> {
        let length = usize::try_from(clusters)
            .ok()
            .filter(|_| clusters <= CLUSTERS_MAX)
            .ok_or_else(|| {
                io::Error::other(
                    "it has more clusters than can be looked after here, 2 to the power of 29",
                )
            })?;
        Ok(Self {
            counts: zeros(length)?,
            kinds: zeros(length)?,
        })
    }

    /// Clusters of the file.
    pub(super) fn clusters(&self) -> u64 {
        u64::try_from(self.counts.len()).unwrap_or(u64::MAX)
    }

    /// References to a cluster; none to one behind the end.
    pub(super) fn count(&self, cluster: u64) -> u32 {
        index(cluster)
            .and_then(|index| self.counts.get(index))
            .copied()
            .unwrap_or(0)
    }

    pub(super) fn is(&self, cluster: u64, kind: u8) -> bool {
        index(cluster)
            .and_then(|index| self.kinds.get(index))
            .is_some_and(|kinds| kinds & kind != 0)
    }

    pub(super) fn mark(&mut self, cluster: u64, kind: u8) {
        if let Some(kinds) = index(cluster).and_then(|index| self.kinds.get_mut(index)) {
            *kinds |= kind;
        }
    }

    pub(super) fn unmark(&mut self, cluster: u64, kind: u8) {
        if let Some(kinds) = index(cluster).and_then(|index| self.kinds.get_mut(index)) {
            *kinds &= !kind;
        }
    }

    /// Adds references to a cluster of the file.
    pub(super) fn add(&mut self, cluster: u64, references: u32) {
        if let Some(count) = index(cluster).and_then(|index| self.counts.get_mut(index)) {
            *count = count.saturating_add(references);
        }
    }

    /// Takes the clusters of a table: all or none of them.
    pub(super) fn claim(&mut self, offset: u64, length: u64, cluster_bits: u32) -> Claim {
        if offset.trailing_zeros() < cluster_bits {
            return Claim::Outside;
        }
        let first = offset.wrapping_shr(cluster_bits);
        let count = length.div_ceil(1_u64.wrapping_shl(cluster_bits));
        let end = first.saturating_add(count);
        if end > self.clusters() {
            return Claim::Outside;
        }
        if (first..end).any(|cluster| self.is(cluster, kind::METADATA)) {
            return Claim::Taken;
        }
        for cluster in first..end {
            self.mark(cluster, kind::METADATA);
            self.add(cluster, 1);
        }
        Claim::Done
    }

    /// The file has become longer.
    pub(super) fn extend_to(&mut self, clusters: u64) -> io::Result<()> {
        let length = usize::try_from(clusters)
            .ok()
            .filter(|_| clusters <= CLUSTERS_MAX)
            .ok_or_else(|| io::Error::other("it would have too many clusters"))?;
        let more = length.saturating_sub(self.counts.len());
        if more > 0 {
            self.counts.try_reserve(more)?;
            self.kinds.try_reserve(more)?;
            self.counts.resize(length, 0);
            self.kinds.resize(length, 0);
        }
        Ok(())
    }

    /// Clusters with references.
    pub(super) fn used(&self) -> u64 {
        let used = self.counts.iter().filter(|&&count| count > 0).count();
        u64::try_from(used).unwrap_or(u64::MAX)
    }
}

/// A number of which all bytes may be zero.
trait Number {}
impl Number for u8 {}
impl Number for u32 {}

/// So many zeros, for which the host gives memory when they are touched; an error where it has none. (`vec!`
/// ends the process, and room that was reserved is touched when it is filled.)
fn zeros<T: Number>(length: usize) -> io::Result<Vec<T>> {
    let layout = Layout::array::<T>(length).map_err(io::Error::other)?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc::alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // SAFETY: the memory is the allocator's, for this many of `T` and no more, and zeros are a `T`.
    Ok(unsafe { Vec::from_raw_parts(memory.cast(), length, length) })
}

fn index(cluster: u64) -> Option<usize> {
    usize::try_from(cluster).ok()
}
