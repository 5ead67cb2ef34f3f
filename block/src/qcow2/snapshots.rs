//! Internal snapshots of an image taken, gone back to and given up (QEMU, docs/interop/qcow2, "Snapshots").
//!
//! What changes is written beside what is there: tables, and all reference counts. One write of the header's
//! sector then makes it hold. Whatever interrupts this, the image is the one of before or the one of after;
//! its mark as not closed says that there may be leaks, and the next who writes to it mends them.
//!
//! On a thread that has the image for itself.

use std::fs::File;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::check::{Inspection, inspect};
use super::copied::{self, Change};
use super::entry::COPIED;
use super::findings::Findings;
use super::header::{
    self, AUTOCLEAR, DIRTY, Header, L1_ENTRIES, L1_TABLE, L1Table, REFCOUNT_TABLE,
    REFCOUNT_TABLE_CLUSTERS, RawHeader, SIZE, SNAPSHOT_TABLE, SNAPSHOTS, SNAPSHOTS_MAX,
};
use super::medium::Medium;
use super::rebuild::{self, allocate};
use super::snapshot_table::{Entry, SnapshotTable};
use super::usage::Usage;
use super::walk::{L1Root, Roots, walk};
use crate::image::Snapshot;

/// Longest name, in bytes; QEMU keeps 255.
const NAME_MAX_BYTES: usize = 255;

/// The snapshots of an image.
pub(crate) fn list(file: &File) -> io::Result<Vec<Snapshot>> {
    let medium = Medium::new(file)?;
    let header = Header::read(&medium)?;
    let table = SnapshotTable::read(&medium, &header)?;
    let describe = |entry: Entry| Snapshot {
        id: entry.id,
        name: entry.name,
        seconds: entry.seconds,
        disk_bytes: entry.disk_bytes.unwrap_or(header.size_bytes),
        machine_bytes: entry.machine_bytes,
    };
    Ok(table.entries.into_iter().map(describe).collect())
}

/// Where the first mapping table of a snapshot is, and the size of its disk in bytes.
pub(super) fn find(file: &File, name: &str) -> io::Result<(L1Table, u64)> {
    let medium = Medium::new(file)?;
    let header = Header::read(&medium)?;
    let table = SnapshotTable::read(&medium, &header)?;
    let index = table.find(name).ok_or_else(|| missing(name))?;
    let entry = table.entries.get(index).ok_or_else(|| missing(name))?;
    Ok((entry.l1, entry.disk_bytes.unwrap_or(header.size_bytes)))
}

/// Keeps the disk as it is now under this name.
pub(crate) fn create(file: &File, name: &str) -> io::Result<()> {
    let change = Transaction::begin(file)?;
    let Inspection {
        header, snapshots, ..
    } = &change.before;
    if name.is_empty() || name.len() > NAME_MAX_BYTES {
        return Err(io::Error::other("a snapshot's name has 1 to 255 bytes"));
    }
    if snapshots.entries.iter().any(|entry| entry.name == name) {
        return Err(io::Error::other(format!(
            "it has a snapshot '{name}' already"
        )));
    }
    let count = u32::try_from(snapshots.entries.len()).unwrap_or(u32::MAX);
    if count >= SNAPSHOTS_MAX {
        return Err(io::Error::other("it has as many snapshots as there can be"));
    }
    // The disk's mappings count once more: those of the snapshot will be a copy.
    let mut roots = Roots::of(header, snapshots);
    roots.l1.push(L1Root {
        table: header.l1,
        stays: false,
    });
    let mut usage = change.walk(roots)?;
    let mut entries = snapshots.entries.clone();
    let copy = change.copy_l1(header.l1, &mut usage)?;
    let id = snapshots.next_id();
    let entry = Entry::new(copy, id, name.to_owned(), now(), header.size_bytes);
    entries.push(entry.ok_or_else(|| io::Error::other("its name is too long"))?);
    let mut head = RawHeader::read(&change.medium)?;
    change.write_table(&entries, &mut usage, &mut head)?;
    change.commit(head, header.l1, usage)
}

/// Makes the disk what it was when the snapshot was taken. What it is now is lost.
pub(crate) fn apply(file: &File, name: &str) -> io::Result<()> {
    let change = Transaction::begin(file)?;
    let Inspection {
        header, snapshots, ..
    } = &change.before;
    let index = snapshots.find(name).ok_or_else(|| missing(name))?;
    let entry = snapshots.entries.get(index).ok_or_else(|| missing(name))?;
    let mut roots = Roots::of(header, snapshots);
    // Bitmaps say what has changed of a disk that is no more.
    roots.bitmaps = false;
    if let Some(active) = roots.l1.first_mut() {
        *active = L1Root {
            table: entry.l1,
            stays: false,
        };
    }
    let mut usage = change.walk(roots)?;
    if let Some(bytes) = Some(snapshots.bytes).filter(|&bytes| bytes > 0) {
        // It stays where it is.
        usage.claim(header.snapshot_table, bytes, header.cluster_bits);
    }
    let l1 = change.copy_l1(entry.l1, &mut usage)?;
    let mut head = RawHeader::read(&change.medium)?;
    head.set_u64(L1_TABLE, l1.offset);
    head.set_u32(L1_ENTRIES, l1.entries);
    head.set_u64(SIZE, entry.disk_bytes.unwrap_or(header.size_bytes));
    head.set_u64(AUTOCLEAR, 0);
    change.commit(head, l1, usage)
}

/// Gives a snapshot up, and what nothing else uses.
pub(crate) fn delete(file: &File, name: &str) -> io::Result<()> {
    let change = Transaction::begin(file)?;
    let Inspection {
        header, snapshots, ..
    } = &change.before;
    let index = snapshots.find(name).ok_or_else(|| missing(name))?;
    let mut entries = snapshots.entries.clone();
    entries.remove(index);
    let mut roots = Roots::of(header, snapshots);
    // The first is the disk's.
    roots.l1.remove(index.saturating_add(1));
    let mut usage = change.walk(roots)?;
    let mut head = RawHeader::read(&change.medium)?;
    change.write_table(&entries, &mut usage, &mut head)?;
    change.commit(head, header.l1, usage)
}

fn missing(name: &str) -> io::Error {
    io::Error::other(format!("it has no snapshot '{name}'"))
}

/// Seconds since 1970, and nanoseconds.
fn now() -> (u32, u32) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = time.unwrap_or_default();
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    (seconds, time.subsec_nanos())
}

/// A change of all that an image consists of.
struct Transaction<'a> {
    medium: Medium<'a>,
    before: Inspection,
}

impl<'a> Transaction<'a> {
    fn begin(file: &'a File) -> io::Result<Self> {
        let medium = Medium::new(file)?;
        let before = inspect(&medium)?;
        if before.findings.errors() > 0 || before.header.is_corrupt() {
            return Err(io::Error::other(
                "it is damaged: see `cuddy image check`, which mends what can be mended",
            ));
        }
        Ok(Self { medium, before })
    }

    /// What is used from `roots` on, without the table of snapshots and the reference counts, which are
    /// written anew.
    fn walk(&self, mut roots: Roots<'_>) -> io::Result<Usage> {
        roots.snapshot_table = None;
        roots.refcounts = false;
        let mut unused = Findings::default();
        walk(&self.medium, &self.before.header, &roots, &mut unused)
    }

    /// Room that nobody has, neither before nor after.
    fn allocate(&self, usage: &mut Usage, length: u64) -> io::Result<u64> {
        let before = &self.before.usage;
        let is_free = |_: &Usage, cluster| before.count(cluster) == 0;
        allocate(&self.before.header, usage, is_free, length)
    }

    /// Copies a mapping table. What it leads to is shared from then on.
    fn copy_l1(&self, from: L1Table, usage: &mut Usage) -> io::Result<L1Table> {
        let length = u64::from(from.entries).saturating_mul(8);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.medium.read(from.offset, &mut bytes)?;
        for entry in bytes.as_chunks_mut::<8>().0 {
            *entry = (u64::from_be_bytes(*entry) & !COPIED).to_be_bytes();
        }
        let offset = self.allocate(usage, length)?;
        self.medium.write(offset, &bytes)?;
        Ok(L1Table {
            offset,
            entries: from.entries,
        })
    }

    /// Writes a table of snapshots; the header is to name it.
    fn write_table(
        &self,
        entries: &[Entry],
        usage: &mut Usage,
        head: &mut RawHeader,
    ) -> io::Result<()> {
        let bytes = SnapshotTable::to_bytes(entries);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let offset = match length {
            0 => 0,
            _ => self.allocate(usage, length)?,
        };
        self.medium.write(offset, &bytes)?;
        head.set_u32(SNAPSHOTS, u32::try_from(entries.len()).unwrap_or(u32::MAX));
        head.set_u64(SNAPSHOT_TABLE, offset);
        Ok(())
    }

    /// Makes it hold: `usage` is what the image uses from then on, and `active` the disk's first table.
    fn commit(&self, mut head: RawHeader, active: L1Table, mut usage: Usage) -> io::Result<()> {
        let Self { medium, before } = self;
        let header = &before.header;
        let is_free = |_: &Usage, cluster| before.usage.count(cluster) == 0;
        let table = rebuild::rebuild(medium, header, &mut usage, is_free)?;
        head.set_u64(REFCOUNT_TABLE, table.offset);
        head.set_u32(REFCOUNT_TABLE_CLUSTERS, table.clusters);
        medium.sync()?;
        header::change_features(medium, DIRTY, 0)?;
        head.set_u64(header::INCOMPATIBLE, header.incompatible | DIRTY);
        let single = |usage: &Usage, cluster| usage.count(cluster) == 1;
        let mut unused = Findings::default();
        let mut flags = |change| {
            copied::flags(
                medium,
                header,
                active,
                &mut usage,
                single,
                change,
                &mut unused,
            )
        };
        // Before it holds, nothing that will be shared can be overwritten any more.
        flags(Change::Clear)?;
        head.write(medium)?;
        flags(Change::All)?;
        header::change_features(medium, 0, DIRTY)
    }
}
