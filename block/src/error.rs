//! Why a disk cannot be opened, and why a request failed.

use std::io;
use std::path::PathBuf;

use crate::PollRefused;

/// Why a disk could not be opened: one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing at the path.
    #[error("{}: there is no such file; check the path, or make an image of the size you want with `truncate -s 8G`", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A snapshot of an image is the disk, and could be written to.
    #[error("{}: a snapshot is for reading alone, and of a qcow2 image: add format=qcow2,readonly=on", path.display())]
    SnapshotIsReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// The path is a directory.
    #[error("{}: this is a directory; give a raw image or a block device", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// The path is a pipe, a socket or a character device.
    #[error("{}: this is neither a file nor a block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
    },
    /// The process may not open the file.
    #[error("{}: no permission to open it; change its owner or mode, or run as a user who may", path.display())]
    Permission {
        /// The path.
        path: PathBuf,
    },
    /// The file may be read and not written, and a writable disk was asked for.
    #[error("{}: the file can only be read; make it writable, or open the disk read-only (readonly=on)", path.display())]
    ReadOnlyFile {
        /// The path.
        path: PathBuf,
    },
    /// Another machine, or another disk of this one, has the image.
    #[error("{}: another machine is using it; stop that one, or open the disk read-only (readonly=on) in both", path.display())]
    Locked {
        /// The path.
        path: PathBuf,
    },
    /// The file system has no locks.
    #[error("{}: its file system cannot lock it ({source}); make sure that nobody else uses it and turn locking off (lock=off)", path.display())]
    CannotLock {
        /// The path.
        path: PathBuf,
        /// What the host answered.
        source: io::Error,
    },
    /// The size is no whole number of sectors.
    #[error("{}: its size, {size_bytes} bytes, is not a multiple of 512; enlarge it with `truncate -s %512`", path.display())]
    NotMultipleOfSector {
        /// The path.
        path: PathBuf,
        /// The size in bytes.
        size_bytes: u64,
    },
    /// There is not a single sector.
    #[error("{}: it is empty; give it a size, for example with `truncate -s 8G`", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// The file system does not have O_DIRECT.
    #[error("{}: its file system cannot bypass the page cache; use cache=writeback or unsafe", path.display())]
    NoDirectIo {
        /// The path.
        path: PathBuf,
    },
    /// Completions were to be polled for, and cannot be.
    #[error("{}: cannot poll for its completions: {source}; or use iopoll=auto", path.display())]
    NoPolling {
        /// The path.
        path: PathBuf,
        /// Why.
        source: PollRefused,
    },
    /// The image, or one that it refers to, is damaged, missing, locked, or uses what is not supported.
    #[error("{}: cannot use it as a qcow2 image: {source}; look at it with `cuddy image check` and `cuddy image info`", path.display())]
    Qcow2 {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The host refused something else.
    #[error("{}: cannot {what}: {source}", path.display())]
    Host {
        /// The path.
        path: PathBuf,
        /// What was wanted, to be read after "cannot".
        what: &'static str,
        /// What the host answered.
        source: io::Error,
    },
}

/// Why a disk did not grow.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// It is open for reading alone.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The size is no whole number of sectors.
    #[error("{size_bytes} bytes are not a multiple of 512")]
    NotMultipleOfSector {
        /// The size that was asked for.
        size_bytes: u64,
    },
    /// It would lose what is at its end.
    #[error(
        "{size_bytes} bytes are less than the {current_bytes} that it has: a disk in use only grows"
    )]
    Smaller {
        /// The size that was asked for.
        size_bytes: u64,
        /// The size that it has.
        current_bytes: u64,
    },
    /// A block device has the size that its host gives it.
    #[error("the device has {device_bytes} bytes, not {size_bytes}: enlarge it on the host first")]
    DeviceIsSmaller {
        /// The size that was asked for.
        size_bytes: u64,
        /// The size of the device.
        device_bytes: u64,
    },
    /// The host refused it.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// A part of it is beyond the end of the disk.
    #[error("beyond the end of the disk")]
    OutOfRange,
    /// Its length is no whole number of sectors.
    #[error("not a whole number of sectors")]
    PartialSector,
    /// It would change a read-only disk.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The host has no such operation for this disk.
    #[error("the host cannot do this with this disk")]
    Unsupported,
    /// The host failed.
    #[error(transparent)]
    Host(#[from] io::Error),
}
