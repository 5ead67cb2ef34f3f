//! The flags by which the disk's mappings say that a cluster is nobody else's and may be written in place
//! (QEMU, docs/interop/qcow2, "L1 table entry", bit 63): they are to hold where the reference count is 1. Those
//! in the mappings of snapshots mean nothing.

use std::io;

use super::entry::{self, COPIED, Mapping};
use super::findings::{Findings, Flaw};
use super::header::{Header, L1Table};
use super::medium::Medium;
use super::usage::{Usage, kind};

/// Which flags are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// None: wrong ones are found.
    Nothing,
    /// Those that would let a shared cluster be overwritten.
    Clear,
    /// All that are wrong.
    All,
}

/// Looks at the flags of the table `l1` and those to which it leads, where `is_single` says which clusters
/// are nobody else's.
pub(super) fn flags(
    medium: &Medium<'_>,
    header: &Header,
    l1: L1Table,
    usage: &mut Usage,
    is_single: impl Fn(&Usage, u64) -> bool,
    change: Change,
    findings: &mut Findings,
) -> io::Result<()> {
    let bits = header.cluster_bits;
    let mut right = |usage: &Usage, offset: u64, place: u64, entry: u64| {
        let should = is_single(usage, offset.wrapping_shr(bits));
        if should == (entry & COPIED != 0) {
            return entry;
        }
        match change {
            Change::Nothing => findings.add(Flaw::CopiedFlag, place),
            Change::Clear if !should => return entry & !COPIED,
            Change::All => return entry ^ COPIED,
            Change::Clear => {}
        }
        entry
    };
    let mut tables = Vec::new();
    medium.change_entries(l1.offset, u64::from(l1.entries), |index, entry| {
        let Some(offset) = entry::l2_table(entry, bits) else {
            return entry;
        };
        let cluster = offset.wrapping_shr(bits);
        if !usage.is(cluster, kind::L2_TABLE) {
            return entry;
        }
        if !usage.is(cluster, kind::FLAGS_SEEN) {
            usage.mark(cluster, kind::FLAGS_SEEN);
            tables.push(offset);
        }
        let place = l1.offset.saturating_add(index.saturating_mul(8));
        right(usage, offset, place, entry)
    })?;
    let entries = header.cluster_bytes().wrapping_div(8);
    for table in tables {
        medium.change_entries(table, entries, |index, entry| {
            let place = table.saturating_add(index.saturating_mul(8));
            match entry::mapping(entry, header.version, bits) {
                Mapping::Cluster { offset } => right(usage, offset, place, entry),
                _ => entry,
            }
        })?;
        usage.unmark(table.wrapping_shr(bits), kind::FLAGS_SEEN);
    }
    if change == Change::Nothing {
        return Ok(());
    }
    medium.sync()
}
