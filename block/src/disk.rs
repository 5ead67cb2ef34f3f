//! An open disk image: a raw file, or a block device of the host.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::host::{self, DirectAlignment};
use crate::lock::{LockOutcome, lock};
use crate::{Engine, OpenError, SECTOR_BYTES};

/// What the host's page cache is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Reads and writes go through the page cache; a flush makes writes durable.
    #[default]
    Writeback,
    /// The page cache is bypassed (O_DIRECT); a flush is needed all the same, for the disk's own cache.
    None,
}

/// How to open a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// A raw image or a block device.
    pub path: PathBuf,
    /// Open it for reading alone.
    pub readonly: bool,
    /// Use of the page cache.
    pub cache: CacheMode,
    /// Lock the image: against everybody when it is writable, else against writers.
    pub lock: bool,
}

impl DiskOptions {
    /// A writable, locked disk at `path` that uses the page cache.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readonly: false,
            cache: CacheMode::default(),
            lock: true,
        }
    }
}

/// Sizes that make requests fast, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Smallest unit that can be addressed; a power of two, at least 512.
    pub logical_block_bytes: u32,
    /// Smallest unit that is written without being read before; at least the logical block.
    pub physical_block_bytes: u32,
    /// Where the first physical block begins.
    pub alignment_offset_bytes: u32,
    /// Smallest good request.
    pub minimum_io_bytes: u32,
    /// Best size of a request; 0 where the host does not say.
    pub optimal_io_bytes: u32,
    /// Unit in which sectors are discarded.
    pub discard_granularity_bytes: u32,
}

/// An open disk. Clones are the same disk, with the same lock.
#[derive(Debug, Clone)]
pub struct Disk {
    image: Arc<Image>,
}

/// What the engines of a disk share.
#[derive(Debug)]
pub(crate) struct Image {
    pub path: PathBuf,
    /// Uses the page cache; holds the lock.
    pub file: File,
    /// Bypasses the page cache.
    pub direct: Option<DirectFile>,
    pub size_bytes: u64,
    pub readonly: bool,
    pub is_device: bool,
    cache: CacheMode,
    topology: Topology,
    can_discard: bool,
}

/// The same file, opened with O_DIRECT.
#[derive(Debug)]
pub(crate) struct DirectFile {
    pub file: File,
    pub alignment: DirectAlignment,
}

impl Disk {
    /// Opens and locks the disk.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names the path and says what to do.
    pub fn open(options: &DiskOptions) -> Result<Self, OpenError> {
        let path = &options.path;
        let host = |what| move |source| host_error(path, what, source);
        let file = open_file(options)?;
        let metadata = file.metadata().map_err(host("look at it"))?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotADisk { path: path.clone() });
        }
        if options.lock {
            take_lock(&file, options)?;
        }
        // Behind the lock: before, another writer may have changed it.
        let metadata_now = file.metadata().map_err(host("look at it"))?;
        let size_bytes = host::size_bytes(&file, &metadata_now).map_err(host("find its size"))?;
        if !size_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(OpenError::NotMultipleOfSector {
                path: path.clone(),
                size_bytes,
            });
        }
        if size_bytes == 0 {
            return Err(OpenError::Empty { path: path.clone() });
        }
        let direct = match options.cache {
            CacheMode::Writeback => None,
            CacheMode::None => Some(open_direct(&file, options)?),
        };
        Ok(Self {
            image: Arc::new(Image {
                path: path.clone(),
                direct,
                size_bytes,
                readonly: options.readonly,
                is_device: kind.is_block_device(),
                cache: options.cache,
                topology: host::topology(&file, &metadata_now),
                can_discard: !options.readonly
                    && host::can_discard(&file, &metadata_now, size_bytes),
                file,
            }),
        })
    }

    /// An engine, which carries requests out on the thread that calls it.
    ///
    /// # Errors
    ///
    /// What the host answers when there is no memory for it.
    pub fn engine(&self) -> io::Result<Engine> {
        Engine::new(Arc::clone(&self.image))
    }

    /// Where the disk is.
    pub fn path(&self) -> &Path {
        &self.image.path
    }

    /// Size in sectors of [`SECTOR_BYTES`].
    pub fn sectors(&self) -> u64 {
        self.image.size_bytes / SECTOR_BYTES
    }

    /// Whether it can only be read.
    pub fn readonly(&self) -> bool {
        self.image.readonly
    }

    /// Use of the page cache.
    pub fn cache(&self) -> CacheMode {
        self.image.cache
    }

    /// Sizes that make requests fast.
    pub fn topology(&self) -> Topology {
        self.image.topology
    }

    /// Whether sectors can be discarded.
    pub fn can_discard(&self) -> bool {
        self.image.can_discard
    }
}

fn open_file(options: &DiskOptions) -> Result<File, OpenError> {
    let path = &options.path;
    // First a look: opening a pipe would wait for its other end.
    match path.metadata() {
        Ok(metadata) => {
            let kind = metadata.file_type();
            if kind.is_dir() {
                return Err(OpenError::Directory { path: path.clone() });
            }
            if !kind.is_file() && !kind.is_block_device() {
                return Err(OpenError::NotADisk { path: path.clone() });
            }
        }
        Err(error) => return Err(open_error(options, error)),
    }
    OpenOptions::new()
        .read(true)
        .write(!options.readonly)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| open_error(options, error))
}

fn open_error(options: &DiskOptions, error: io::Error) -> OpenError {
    let path = options.path.clone();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => OpenError::Missing { path },
        Some(libc::EROFS) => OpenError::ReadOnlyFile { path },
        Some(libc::EACCES | libc::EPERM) => {
            if !options.readonly && File::open(&path).is_ok() {
                OpenError::ReadOnlyFile { path }
            } else {
                OpenError::Permission { path }
            }
        }
        _ => host_error(&path, "open it", error),
    }
}

fn take_lock(file: &File, options: &DiskOptions) -> Result<(), OpenError> {
    let path = options.path.clone();
    match lock(file, options.readonly) {
        LockOutcome::Held => Ok(()),
        LockOutcome::Taken => Err(OpenError::Locked { path }),
        LockOutcome::Unavailable(source) => Err(OpenError::CannotLock { path, source }),
    }
}

/// Opens the same file again, past the page cache.
fn open_direct(buffered: &File, options: &DiskOptions) -> Result<DirectFile, OpenError> {
    let path = &options.path;
    let host = |what| move |source| host_error(path, what, source);
    let file = OpenOptions::new()
        .read(true)
        .write(!options.readonly)
        .custom_flags(libc::O_CLOEXEC | libc::O_DIRECT)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => OpenError::NoDirectIo { path: path.clone() },
            _ => open_error(options, error),
        })?;
    let first = buffered.metadata().map_err(host("look at it"))?;
    let second = file.metadata().map_err(host("look at it"))?;
    if (first.dev(), first.ino()) != (second.dev(), second.ino()) {
        let replaced = io::Error::other("it was replaced meanwhile");
        return Err(host_error(path, "open it", replaced));
    }
    let alignment = host::direct_alignment(&file, &second)
        .ok_or_else(|| OpenError::NoDirectIo { path: path.clone() })?;
    Ok(DirectFile { file, alignment })
}

fn host_error(path: &Path, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Host {
        path: path.to_owned(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests;
