//! Looking for what is wrong with an image, and mending it.
//!
//! Leaks, clusters with a reference count that is too high, are lost space. They come of a process that was
//! killed, and are mended by lowering counts. Other wrong counts, and wrong flags, are mended by making
//! all counts anew. What a mapping table says is taken for right, and where it cannot be, nothing is mended.
//!
//! On a thread that has the image for itself.

use std::io;

use super::copied::{self, Change};
use super::findings::Findings;
use super::header::{
    self, CORRUPT, DIRTY, Header, REFCOUNT_TABLE, REFCOUNT_TABLE_CLUSTERS, RawHeader,
};
use super::medium::Medium;
use super::rebuild::{RefcountTable, rebuild};
use super::refcounts;
use super::snapshot_table::SnapshotTable;
use super::usage::{Usage, kind};
use super::walk::{Roots, walk};
use crate::image::{CheckReport, Repair};

/// What was found.
#[derive(Debug)]
pub(super) struct Inspection {
    pub header: Header,
    pub snapshots: SnapshotTable,
    pub usage: Usage,
    pub findings: Findings,
}

/// Finds what is wrong.
pub(super) fn inspect(medium: &Medium<'_>) -> io::Result<Inspection> {
    let header = Header::read(medium)?;
    let snapshots = SnapshotTable::read(medium, &header)?;
    let mut findings = Findings::default();
    let roots = Roots::of(&header, &snapshots);
    let mut usage = walk(medium, &header, &roots, &mut findings)?;
    refcounts::compare(medium, &header, &mut usage, &mut findings, false)?;
    let single = |usage: &Usage, cluster| usage.is(cluster, kind::COUNTED_ONCE);
    let (l1, change) = (header.l1, Change::Nothing);
    copied::flags(
        medium,
        &header,
        l1,
        &mut usage,
        single,
        change,
        &mut findings,
    )?;
    Ok(Inspection {
        header,
        snapshots,
        usage,
        findings,
    })
}

/// Finds what is wrong, and mends what `repair` says, if it can be.
pub(crate) fn check(file: &std::fs::File, repair: Repair) -> io::Result<CheckReport> {
    let mut medium = Medium::new(file)?;
    let mut found = inspect(&medium)?;
    let (errors, leaks) = (found.findings.errors(), found.findings.leaks);
    let length = medium.bytes;
    if repair == Repair::All && found.findings.are_mended() && found.findings.end > length {
        // What was not written there is zero.
        file.set_len(found.findings.end)?;
        medium = Medium::new(file)?;
        let longer = inspect(&medium)?;
        if longer.findings.are_mended() {
            found = longer;
        } else {
            file.set_len(length)?;
            return Ok(report_of(&found, (errors, leaks)));
        }
    }
    let has_errors = found.findings.errors() > 0;
    let is_to_be_mended = match repair {
        Repair::Nothing => false,
        Repair::Leaks => !has_errors,
        Repair::All => found.findings.are_mended(),
    };
    if !is_to_be_mended {
        return Ok(report_of(&found, (errors, leaks)));
    }
    if has_errors {
        mend_all(&medium, &found)?;
    } else if found.findings.leaks > 0 {
        mend_leaks(&medium, &found)?;
    }
    // A file may have become longer.
    let medium = Medium::new(file)?;
    let left = match found.findings.is_clean() {
        true => None,
        false => Some(inspect(&medium)?),
    };
    let is_clean = left.as_ref().is_none_or(|left| left.findings.is_clean());
    let marks = match (repair, is_clean) {
        (Repair::All, true) => DIRTY | CORRUPT,
        (Repair::Leaks, true) => DIRTY,
        _ => 0,
    };
    header::change_features(&medium, 0, marks)?;
    let mut report = report_of(left.as_ref().unwrap_or(&found), (errors, leaks));
    report.is_dirty &= marks & DIRTY == 0;
    report.is_corrupt &= marks & CORRUPT == 0;
    Ok(report)
}

/// What is left of so many errors and leaks.
fn report_of(left: &Inspection, (errors, leaks): (u64, u64)) -> CheckReport {
    CheckReport {
        cluster_bytes: left.header.cluster_bytes(),
        used_clusters: left.usage.used(),
        snapshots: left.header.snapshots,
        flaws: left.findings.describe(),
        leaked_clusters: left.findings.leaks,
        mended_errors: errors.saturating_sub(left.findings.errors()),
        mended_leaks: leaks.saturating_sub(left.findings.leaks),
        is_dirty: left.header.is_dirty(),
        is_corrupt: left.header.is_corrupt(),
    }
}

/// Lowers counts. A mapping that is nobody else's from then on says so.
fn mend_leaks(medium: &Medium<'_>, found: &Inspection) -> io::Result<()> {
    let Inspection {
        header, snapshots, ..
    } = found;
    let mut unused = Findings::default();
    let roots = Roots::of(header, snapshots);
    let mut usage = walk(medium, header, &roots, &mut unused)?;
    refcounts::compare(medium, header, &mut usage, &mut unused, true)?;
    set_flags(medium, header, &mut usage, Change::All)
}

/// Makes all counts anew. Nothing that may be in use is overwritten before.
fn mend_all(medium: &Medium<'_>, found: &Inspection) -> io::Result<()> {
    let Inspection {
        header, snapshots, ..
    } = found;
    let mut unused = Findings::default();
    let roots = Roots {
        refcounts: false,
        ..Roots::of(header, snapshots)
    };
    let mut usage = walk(medium, header, &roots, &mut unused)?;
    let end = usage.clusters();
    // Counts are wrong, so that nothing within the file is known to be free.
    let table = rebuild(medium, header, &mut usage, |_, cluster| cluster >= end)?;
    medium.sync()?;
    // Before counts that are right let nobody overwrite what is shared.
    set_flags(medium, header, &mut usage, Change::Clear)?;
    switch(medium, table)?;
    set_flags(medium, header, &mut usage, Change::All)
}

fn set_flags(
    medium: &Medium<'_>,
    header: &Header,
    usage: &mut Usage,
    change: Change,
) -> io::Result<()> {
    let single = |usage: &Usage, cluster| usage.count(cluster) == 1;
    let mut unused = Findings::default();
    copied::flags(
        medium,
        header,
        header.l1,
        usage,
        single,
        change,
        &mut unused,
    )
}

/// Has the header name the new counts.
fn switch(medium: &Medium<'_>, table: RefcountTable) -> io::Result<()> {
    let mut head = RawHeader::read(medium)?;
    head.set_u64(REFCOUNT_TABLE, table.offset);
    head.set_u32(REFCOUNT_TABLE_CLUSTERS, table.clusters);
    head.write(medium)
}

#[cfg(test)]
mod tests;
