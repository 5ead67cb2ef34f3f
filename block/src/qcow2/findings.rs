//! What is wrong with an image: each kind of flaw once, with how often and where first.

use std::collections::BTreeMap;

use crate::image::ImageFlaw;

/// A kind of flaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flaw {
    Header,
    L1Table,
    L2Table,
    Mapping,
    BehindEnd,
    Overlap,
    SnapshotTable,
    Bitmaps,
    RefcountTable,
    RefcountBlock,
    CountTooLow,
    CopiedFlag,
}

impl Flaw {
    /// Whether making all reference counts anew mends it, after the file was made longer.
    pub(super) fn is_mended(self) -> bool {
        matches!(
            self,
            Self::BehindEnd
                | Self::RefcountTable
                | Self::RefcountBlock
                | Self::CountTooLow
                | Self::CopiedFlag
        )
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Header => "the header is not in the file",
            Self::L1Table => "a mapping table of the first level is not in the file",
            Self::L2Table => "an entry of a first mapping table leads to no table of the second",
            Self::Mapping => "an entry of a mapping table leads to no cluster of the file",
            Self::BehindEnd => {
                "a mapping leads behind the end of the file, as after a crash of the host"
            }
            Self::Overlap => "a cluster is used as a table, and for something else",
            Self::SnapshotTable => "the table of snapshots is not in the file",
            Self::Bitmaps => "a bitmap is not in the file",
            Self::RefcountTable => {
                "the table of reference counts is not in the file, or not alone there"
            }
            Self::RefcountBlock => {
                "a block of reference counts is not in the file, or not alone there"
            }
            Self::CountTooLow => {
                "a cluster's reference count is too low: it may be overwritten while it is in use"
            }
            Self::CopiedFlag => "a mapping says wrongly whether its cluster is shared",
        }
    }
}

/// All flaws found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    flaws: BTreeMap<Flaw, (u64, u64)>,
    /// Clusters whose reference count is too high.
    pub leaks: u64,
    /// To where mappings lead that lead behind the end of the file.
    pub end: u64,
}

impl Findings {
    /// Takes note of a flaw at `offset` in the file.
    pub(super) fn add(&mut self, flaw: Flaw, offset: u64) {
        let (count, _) = self.flaws.entry(flaw).or_insert((0, offset));
        *count = count.saturating_add(1);
    }

    /// How many there are, leaks aside.
    pub(super) fn errors(&self) -> u64 {
        let counts = self.flaws.values().map(|(count, _)| count);
        counts.fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// Takes note of a mapping that leads out of the file, to `end`.
    pub(super) fn add_outside(&mut self, flaw: Flaw, place: u64, end: u64, bytes_max: u64) {
        if end > bytes_max {
            return self.add(flaw, place);
        }
        self.end = self.end.max(end);
        self.add(Flaw::BehindEnd, place);
    }

    /// Whether they can all be mended.
    pub(super) fn are_mended(&self) -> bool {
        self.flaws.keys().all(|flaw| flaw.is_mended())
    }

    pub(super) fn is_clean(&self) -> bool {
        self.flaws.is_empty() && self.leaks == 0
    }

    /// For people.
    pub(super) fn describe(&self) -> Vec<ImageFlaw> {
        let describe = |(flaw, &(count, first_offset)): (&Flaw, &(u64, u64))| ImageFlaw {
            what: flaw.describe(),
            count,
            first_offset,
            is_mended: flaw.is_mended(),
        };
        self.flaws.iter().map(describe).collect()
    }
}
