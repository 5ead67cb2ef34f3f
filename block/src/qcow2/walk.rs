//! Following all tables of an image, to find what it uses (QEMU, docs/interop/qcow2, "Cluster mapping",
//! "Snapshots", "Bitmaps").
//!
//! A table of the second level counts as often as tables of the first lead to it, and is read once, with that
//! weight: snapshots share most of theirs. A table that lies where another does is not followed. So the time
//! is bounded by what the file takes on the host's disk.

use std::io;

use super::bitmaps;
use super::entry::{self, Mapping};
use super::findings::{Findings, Flaw};
use super::header::{Header, L1Table};
use super::medium::Medium;
use super::snapshot_table::SnapshotTable;
use super::usage::{Claim, Usage, kind};

/// From where all is found that an image uses.
#[derive(Debug)]
pub(super) struct Roots<'a> {
    /// Tables of the first level, of the disk and of its snapshots.
    pub l1: Vec<L1Root>,
    pub snapshot_table: Option<&'a SnapshotTable>,
    /// The reference counts have to be where they are.
    pub refcounts: bool,
    pub bitmaps: bool,
}

/// A table of the first level.
#[derive(Debug, Clone, Copy)]
pub(super) struct L1Root {
    pub table: L1Table,
    /// It stays there; else only what it leads to counts.
    pub stays: bool,
}

impl L1Root {
    pub(super) fn staying(table: L1Table) -> Self {
        Self { table, stays: true }
    }
}

impl<'a> Roots<'a> {
    /// Those of the image as it is.
    pub(super) fn of(header: &Header, snapshots: &'a SnapshotTable) -> Self {
        let l1 = [header.l1]
            .into_iter()
            .chain(snapshots.entries.iter().map(|snapshot| snapshot.l1));
        Self {
            l1: l1.map(L1Root::staying).collect(),
            snapshot_table: Some(snapshots),
            refcounts: true,
            bitmaps: header.has_bitmaps(),
        }
    }
}

/// Finds what is used from `roots` on.
pub(super) fn walk(
    medium: &Medium<'_>,
    header: &Header,
    roots: &Roots<'_>,
    findings: &mut Findings,
) -> io::Result<Usage> {
    let clusters = medium.bytes.div_ceil(header.cluster_bytes());
    let mut walk = Walk {
        medium,
        header,
        usage: Usage::new(clusters)?,
        findings,
    };
    walk.claim(0, header.cluster_bytes(), Flaw::Header);
    let mut tables = Vec::new();
    for root in &roots.l1 {
        let bytes = u64::from(root.table.entries).saturating_mul(8);
        // A table without entries may be anywhere.
        if bytes > 0 && (!root.stays || walk.claim(root.table.offset, bytes, Flaw::L1Table)) {
            tables.push(root.table);
        }
    }
    if let Some(table) = roots.snapshot_table
        && table.bytes > 0
    {
        walk.claim(header.snapshot_table, table.bytes, Flaw::SnapshotTable);
    }
    if roots.refcounts {
        walk.refcounts()?;
    }
    if roots.bitmaps {
        walk.bitmaps()?;
    }
    for table in tables {
        walk.l1_table(table)?;
    }
    walk.l2_tables()?;
    Ok(walk.usage)
}

struct Walk<'a, 'b> {
    medium: &'a Medium<'b>,
    header: &'a Header,
    usage: Usage,
    findings: &'a mut Findings,
}

impl Walk<'_, '_> {
    /// Takes the place of a table, and returns whether it can be followed.
    fn claim(&mut self, offset: u64, length: u64, flaw: Flaw) -> bool {
        match self.usage.claim(offset, length, self.header.cluster_bits) {
            Claim::Done => true,
            Claim::Outside => {
                self.findings.add(flaw, offset);
                false
            }
            Claim::Taken => {
                let is_mended = flaw.is_mended();
                let flaw = if is_mended { flaw } else { Flaw::Overlap };
                self.findings.add(flaw, offset);
                false
            }
        }
    }

    fn refcounts(&mut self) -> io::Result<()> {
        let (offset, bytes) = (
            self.header.refcount_table,
            self.header.refcount_table_bytes(),
        );
        if bytes == 0 || !self.claim(offset, bytes, Flaw::RefcountTable) {
            if bytes == 0 {
                self.findings.add(Flaw::RefcountTable, offset);
            }
            return Ok(());
        }
        let mut blocks = Vec::new();
        self.medium
            .for_each_entry(offset, bytes.wrapping_div(8), |_, entry| blocks.push(entry))?;
        for block in blocks {
            // Bits 0 to 8 are reserved; none of them is in an aligned offset.
            if self.claim(block, self.header.cluster_bytes(), Flaw::RefcountBlock) {
                let cluster = block.wrapping_shr(self.header.cluster_bits);
                self.usage.mark(cluster, kind::REFCOUNT_BLOCK);
            }
        }
        Ok(())
    }

    fn bitmaps(&mut self) -> io::Result<()> {
        let mut tables = bitmaps::places(self.medium, self.header)?;
        tables
            .retain(|place| self.claim(place.offset, place.bytes, Flaw::Bitmaps) && place.is_table);
        let (medium, cluster_bytes) = (self.medium, self.header.cluster_bytes());
        for table in tables {
            medium.for_each_entry(table.offset, table.bytes.wrapping_div(8), |_, entry| {
                if let Some(offset) = bitmaps::cluster(entry) {
                    self.refer(offset, cluster_bytes, 1, Flaw::Bitmaps);
                }
            })?;
        }
        Ok(())
    }

    /// Counts the tables of the second level to which one of the first leads.
    fn l1_table(&mut self, table: L1Table) -> io::Result<()> {
        let Self {
            medium,
            header,
            usage,
            findings,
        } = self;
        medium.for_each_entry(table.offset, u64::from(table.entries), |index, entry| {
            let place = table.offset.saturating_add(index.saturating_mul(8));
            // An entry may say nothing but that it is nobody else's.
            if entry == entry::COPIED {
                return;
            }
            let Some(offset) = entry::l2_table(entry, header.cluster_bits) else {
                return findings.add(Flaw::L2Table, place);
            };
            let cluster = offset.wrapping_shr(header.cluster_bits);
            if cluster >= usage.clusters() {
                let end = offset.saturating_add(header.cluster_bytes());
                findings.add_outside(Flaw::L2Table, place, end, medium.bytes_max);
            } else if usage.is(cluster, kind::METADATA) && !usage.is(cluster, kind::L2_TABLE) {
                findings.add(Flaw::Overlap, offset);
            } else {
                usage.mark(cluster, kind::METADATA | kind::L2_TABLE);
                usage.add(cluster, 1);
            }
        })
    }

    /// Counts what the tables of the second level lead to.
    fn l2_tables(&mut self) -> io::Result<()> {
        let entries = self.header.cluster_bytes().wrapping_div(8);
        for cluster in 0..self.usage.clusters() {
            if !self.usage.is(cluster, kind::L2_TABLE) {
                continue;
            }
            let references = self.usage.count(cluster);
            let offset = cluster.wrapping_shl(self.header.cluster_bits);
            let medium = self.medium;
            medium.for_each_entry(offset, entries, |index, entry| {
                let place = offset.saturating_add(index.saturating_mul(8));
                self.l2_entry(entry, references, place);
            })?;
        }
        Ok(())
    }

    fn l2_entry(&mut self, entry: u64, references: u32, place: u64) {
        let Header {
            version,
            cluster_bits,
            ..
        } = *self.header;
        match entry::mapping(entry, version, cluster_bits) {
            Mapping::Nothing => {}
            Mapping::Invalid => self.findings.add(Flaw::Mapping, place),
            Mapping::Cluster { offset } => {
                let first = offset.wrapping_shr(cluster_bits);
                if first >= self.usage.clusters() {
                    let end = offset.saturating_add(self.header.cluster_bytes());
                    let most = self.medium.bytes_max;
                    self.findings.add_outside(Flaw::Mapping, place, end, most);
                } else {
                    self.refer(offset, 1, references, Flaw::Overlap);
                }
            }
            Mapping::Compressed { offset, length } => {
                // Counted in sectors, the last of which need not be there.
                let last = offset.saturating_add(length).saturating_sub(1);
                if last.wrapping_shr(cluster_bits) >= self.usage.clusters() {
                    self.findings.add(Flaw::Mapping, place);
                } else {
                    self.refer(offset, length, references, Flaw::Overlap);
                }
            }
        }
    }

    /// Counts data, which must not be where a table is.
    fn refer(&mut self, offset: u64, length: u64, references: u32, flaw: Flaw) {
        let bits = self.header.cluster_bits;
        let last = offset.saturating_add(length).saturating_sub(1);
        for cluster in offset.wrapping_shr(bits)..=last.wrapping_shr(bits) {
            if cluster >= self.usage.clusters() {
                return self.findings.add(flaw, offset);
            }
            if self.usage.is(cluster, kind::METADATA) {
                self.findings.add(Flaw::Overlap, offset);
            } else {
                self.usage.add(cluster, references);
            }
        }
    }
}
