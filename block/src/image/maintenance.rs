//! Images looked after: checked, mended, and their internal snapshots. Only those that nobody uses, with the
//! lock of a machine's disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::{ImageError, host_error};
use crate::lock::{self, LockOutcome, LockedFile};
use crate::{OpenError, qcow2};

/// What is to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repair {
    /// Nothing.
    #[default]
    Nothing,
    /// Space that nothing refers to is given back, where nothing else is wrong.
    Leaks,
    /// All that can be mended without a guess: reference counts, the flags that go with them, and the marks of
    /// an image as damaged and as not closed, if nothing is wrong any more.
    All,
}

/// What a check found, and left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Bytes of a cluster.
    pub cluster_bytes: u64,
    /// Clusters of the file that are used.
    pub used_clusters: u64,
    /// Internal snapshots.
    pub snapshots: u32,
    /// What is wrong, leaks aside.
    pub flaws: Vec<ImageFlaw>,
    /// Clusters that nothing refers to, or less than their reference count says: lost space.
    pub leaked_clusters: u64,
    /// Flaws that there were before.
    pub mended_errors: u64,
    /// Leaked clusters that there were before.
    pub mended_leaks: u64,
    /// It is marked as not closed.
    pub is_dirty: bool,
    /// It is marked as damaged.
    pub is_corrupt: bool,
}

impl CheckReport {
    /// Whether data is, or may come to be, wrong.
    pub fn is_damaged(&self) -> bool {
        self.is_corrupt || !self.flaws.is_empty()
    }
}

/// A kind of flaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageFlaw {
    /// What it is, as a sentence about one of them.
    pub what: &'static str,
    /// How many there are.
    pub count: u64,
    /// Where in the file the first was met, in bytes.
    pub first_offset: u64,
    /// Whether [`Repair::All`] mends it.
    pub is_mended: bool,
}

/// An internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub seconds: u32,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// Bytes of a machine's state, which QEMU stores with the disk.
    pub machine_bytes: u64,
}

/// Checks the qcow2 image at `path`, and mends it.
///
/// # Errors
///
/// [`ImageError`] when it cannot be checked, or is in use.
pub fn check(path: &Path, repair: Repair) -> Result<CheckReport, ImageError> {
    with(path, repair != Repair::Nothing, "check it", |file| {
        qcow2::check(file, repair)
    })
}

/// The internal snapshots of the qcow2 image at `path`.
///
/// # Errors
///
/// [`ImageError`] when it is no image, or in use.
pub fn snapshots(path: &Path) -> Result<Vec<Snapshot>, ImageError> {
    with(path, false, "read its snapshots", qcow2::snapshots::list)
}

/// Keeps the disk in the qcow2 image at `path` as it is, as a snapshot with this name.
///
/// # Errors
///
/// [`ImageError`]; there is then no new snapshot.
pub fn create_snapshot(path: &Path, name: &str) -> Result<(), ImageError> {
    with(path, true, "take a snapshot", |file| {
        qcow2::snapshots::create(file, name)
    })
}

/// Makes the disk in the qcow2 image at `path` what it was when the snapshot was taken. What it is now is
/// lost, unless another snapshot has it.
///
/// # Errors
///
/// [`ImageError`]; the disk is then as before.
pub fn apply_snapshot(path: &Path, name: &str) -> Result<(), ImageError> {
    with(path, true, "go back to the snapshot", |file| {
        qcow2::snapshots::apply(file, name)
    })
}

/// Gives a snapshot of the qcow2 image at `path` up.
///
/// # Errors
///
/// [`ImageError`]; the snapshot is then still there.
pub fn delete_snapshot(path: &Path, name: &str) -> Result<(), ImageError> {
    with(path, true, "delete the snapshot", |file| {
        qcow2::snapshots::delete(file, name)
    })
}

/// Opens and locks the image, and does something with it.
fn with<T>(
    path: &Path,
    writable: bool,
    what: &'static str,
    action: impl FnOnce(&File) -> io::Result<T>,
) -> Result<T, ImageError> {
    let file = OpenOptions::new().read(true).write(writable).open(path);
    let file = file.map_err(|error| host_error(path, "open it", error))?;
    let again = file
        .try_clone()
        .map_err(|error| host_error(path, "open it", error))?;
    let _lock = match lock::lock(&file, !writable) {
        LockOutcome::Held => LockedFile::new(again),
        LockOutcome::Taken => {
            let path = path.to_owned();
            return Err(ImageError::Open(OpenError::Locked { path }));
        }
        LockOutcome::Unavailable(error) => return Err(host_error(path, "lock it", error)),
    };
    action(&file).map_err(|error| host_error(path, what, error))
}
