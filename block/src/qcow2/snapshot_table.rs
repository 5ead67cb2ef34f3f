//! The table of an image's internal snapshots (QEMU, docs/interop/qcow2, "Snapshots").

use std::io;

use super::fields::{u16_at, u32_at, u64_at};
use super::header::{Header, L1_ENTRIES_MAX, L1Table};
use super::medium::Medium;

/// Bytes of an entry before its extra data, and of the extra data that are looked at and written.
const FIXED_BYTES: usize = 40;
const EXTRA_BYTES: u32 = 24;
/// Most bytes of extra data of an entry, and of the table, as QEMU has them.
const EXTRA_BYTES_MAX: u32 = 1024;
const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Most tables are shorter.
const FIRST_READ_BYTES: u64 = 64 << 10;

/// The table, as far as it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SnapshotTable {
    pub entries: Vec<Entry>,
    /// Bytes in the file.
    pub bytes: u64,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub l1: L1Table,
    pub id: String,
    pub name: String,
    /// When it was taken, since 1970.
    pub seconds: u32,
    /// Bytes of a machine's state, which is stored behind the disk.
    pub machine_bytes: u64,
    /// Size of the disk then; `None` where it is not said.
    pub disk_bytes: Option<u64>,
    /// As it is in the table, padded.
    raw: Vec<u8>,
}

impl SnapshotTable {
    pub(super) fn read(medium: &Medium<'_>, header: &Header) -> io::Result<Self> {
        let broken = || io::Error::other("its table of snapshots is broken");
        if header.snapshots == 0 {
            return Ok(Self::default());
        }
        if header.snapshot_table >= medium.bytes {
            return Err(broken());
        }
        let most = medium.bytes.saturating_sub(header.snapshot_table);
        let most = most.min(TABLE_BYTES_MAX);
        // Its length is not known before.
        let mut length = FIRST_READ_BYTES.min(most);
        loop {
            let mut bytes = vec![0; usize::try_from(length).map_err(|_| broken())?];
            medium.read(header.snapshot_table, &mut bytes)?;
            match Self::parse(&bytes, header.snapshots) {
                Some(table) => return Ok(table),
                None if length == most => return Err(broken()),
                None => length = length.saturating_mul(16).min(most),
            }
        }
    }

    fn parse(bytes: &[u8], count: u32) -> Option<Self> {
        let mut table = Self::default();
        let mut rest = bytes;
        for _ in 0..count {
            let entry = Entry::parse(rest)?;
            rest = rest.get(entry.raw.len()..).unwrap_or_default();
            let length = u64::try_from(entry.raw.len()).ok()?;
            table.bytes = table.bytes.checked_add(length)?;
            table.entries.push(entry);
        }
        Some(table)
    }

    /// As it is to be in the file.
    pub(super) fn to_bytes(entries: &[Entry]) -> Vec<u8> {
        entries.iter().flat_map(|entry| entry.raw.clone()).collect()
    }

    /// The first with this name; else the one with this number.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let position = |is: &dyn Fn(&Entry) -> bool| self.entries.iter().position(is);
        position(&|entry| entry.name == name).or_else(|| position(&|entry| entry.id == name))
    }

    /// A number that no snapshot has.
    pub(super) fn next_id(&self) -> String {
        let numbers = self
            .entries
            .iter()
            .filter_map(|entry| entry.id.parse().ok());
        let last: u64 = numbers.max().unwrap_or(0);
        last.saturating_add(1).to_string()
    }
}

impl Entry {
    /// A new one of a disk alone, without a machine.
    pub(super) fn new(
        l1: L1Table,
        id: String,
        name: String,
        (seconds, nanoseconds): (u32, u32),
        disk_bytes: u64,
    ) -> Option<Self> {
        let length = |text: &str| u16::try_from(text.len()).ok();
        let mut raw = Vec::new();
        raw.extend(l1.offset.to_be_bytes());
        raw.extend(l1.entries.to_be_bytes());
        raw.extend(length(&id)?.to_be_bytes());
        raw.extend(length(&name)?.to_be_bytes());
        raw.extend(seconds.to_be_bytes());
        raw.extend(nanoseconds.to_be_bytes());
        // No time has passed for a guest, and there is no state of a machine.
        raw.extend(0_u64.to_be_bytes());
        raw.extend(0_u32.to_be_bytes());
        raw.extend(EXTRA_BYTES.to_be_bytes());
        raw.extend(0_u64.to_be_bytes());
        raw.extend(disk_bytes.to_be_bytes());
        // No instructions were counted.
        raw.extend(u64::MAX.to_be_bytes());
        raw.extend(id.as_bytes());
        raw.extend(name.as_bytes());
        raw.resize(raw.len().next_multiple_of(8), 0);
        Some(Self {
            l1,
            id,
            name,
            seconds,
            machine_bytes: 0,
            disk_bytes: Some(disk_bytes),
            raw,
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let l1 = L1Table {
            offset: u64_at(bytes, 0)?,
            entries: u32_at(bytes, 8)?,
        };
        let id_bytes = usize::from(u16_at(bytes, 12)?);
        let name_bytes = usize::from(u16_at(bytes, 14)?);
        let extra_bytes = u32_at(bytes, 36)?;
        if l1.entries > L1_ENTRIES_MAX || extra_bytes > EXTRA_BYTES_MAX {
            return None;
        }
        let extra_bytes = usize::try_from(extra_bytes).ok()?;
        let id_at = FIXED_BYTES.checked_add(extra_bytes)?;
        let name_at = id_at.checked_add(id_bytes)?;
        let end = name_at.checked_add(name_bytes)?;
        let text = |from, to| Some(String::from_utf8_lossy(bytes.get(from..to)?).into_owned());
        let machine_bytes = match extra_bytes {
            0..8 => u64::from(u32_at(bytes, 32)?),
            _ => u64_at(bytes, 40)?,
        };
        Some(Self {
            l1,
            id: text(id_at, name_at)?,
            name: text(name_at, end)?,
            seconds: u32_at(bytes, 16)?,
            machine_bytes,
            disk_bytes: match extra_bytes {
                0..16 => None,
                _ => Some(u64_at(bytes, 48)?),
            },
            raw: {
                let mut raw = bytes.get(..end)?.to_vec();
                // The last need not be padded in the file.
                raw.resize(end.checked_next_multiple_of(8)?, 0);
                raw
            },
        })
    }
}

#[cfg(test)]
mod tests;
