//! An open disk image: a raw file, a block device of the host, or a qcow2 image in one of them.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use crate::host::{self, DirectAlignment};
use crate::iopoll::{self, IoPoll, PollLimits};
use crate::lock::{self, LockOutcome, LockedFile};
use crate::qcow2::{self, Qcow2Image};
use crate::{Engine, EngineKind, OpenError, ResizeError, SECTOR_BYTES};

/// What the host's page cache is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Reads and writes go through the page cache; a flush makes writes durable.
    #[default]
    Writeback,
    /// The page cache is bypassed (O_DIRECT); a flush is needed all the same, for the disk's own cache.
    None,
    /// The page cache is bypassed, and each write is durable before it completes.
    DirectSync,
    /// Through the page cache, and a flush does nothing: what was written is durable when the host likes.
    Unsafe,
}

impl CacheMode {
    /// Whether the page cache is bypassed.
    pub fn is_direct(self) -> bool {
        matches!(self, Self::None | Self::DirectSync)
    }
}

/// What the file of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageFormat {
    /// The bytes of the disk, whatever they look like.
    #[default]
    Raw,
    /// A qcow2 image.
    Qcow2,
    /// What its first bytes say. Not for a disk that a guest has written to as a raw one: it may have
    /// written the head of a qcow2 image there, with any file of the host behind it.
    Auto,
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
    /// What the file is.
    pub format: ImageFormat,
    /// Whether completions are polled for, by engines with io_uring.
    pub iopoll: IoPoll,
    /// Lock the image: against everybody when it is writable, else against writers.
    pub lock: bool,
    /// The name or number of an internal snapshot of a qcow2 image, which is then the disk, for reading
    /// alone.
    pub snapshot: Option<String>,
}

impl DiskOptions {
    /// A writable, locked disk at `path` that uses the page cache.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readonly: false,
            cache: CacheMode::default(),
            format: ImageFormat::default(),
            iopoll: IoPoll::default(),
            lock: true,
            snapshot: None,
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
    /// Uses the page cache.
    pub file: File,
    /// Bypasses the page cache.
    pub direct: Option<DirectFile>,
    /// The transfers past the page cache whose completions are polled for.
    pub polls: Option<PollLimits>,
    /// What is in the file, where that is not the disk itself; the files are then used only where it says that
    /// data is.
    pub qcow2: Option<Qcow2Image>,
    /// Grows while engines are at work.
    pub size_bytes: AtomicU64,
    pub readonly: bool,
    pub is_device: bool,
    pub cache: CacheMode,
    /// The file system has no way to make a range of a file zero and keep its blocks.
    pub no_zero_range: AtomicBool,
    /// The error number by which the host said that it lost what was written; 0 while it did not.
    pub lost: AtomicI32,
    topology: Topology,
    can_discard: bool,
    /// Holds the lock: another description of the same file, which no engine uses. The kernel gives up a
    /// description that was registered with io_uring only some time after the process has ended. The last
    /// of all: an image writes what is left when it is closed.
    _lock: Option<LockedFile>,
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
        let lock = match options.lock {
            true => Some(take_lock(&file, options)?),
            false => None,
        };
        if options.snapshot.is_some() && !options.readonly {
            return Err(OpenError::SnapshotIsReadOnly { path: path.clone() });
        }
        // Behind the lock: before, another writer may have changed it.
        let metadata_now = file.metadata().map_err(host("look at it"))?;
        let qcow2 = match is_qcow2(&file, options)? {
            true => Some(open_qcow2(options)?),
            false if options.snapshot.is_some() => {
                return Err(OpenError::SnapshotIsReadOnly { path: path.clone() });
            }
            false => None,
        };
        let size_bytes = match &qcow2 {
            Some(image) => image.size_bytes(),
            None => host::size_bytes(&file, &metadata_now).map_err(host("find its size"))?,
        };
        if !size_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(OpenError::NotMultipleOfSector {
                path: path.clone(),
                size_bytes,
            });
        }
        if size_bytes == 0 {
            return Err(OpenError::Empty { path: path.clone() });
        }
        let direct = match options.cache.is_direct() {
            true => Some(open_direct(&file, options)?),
            false => None,
        };
        let polls = polls(direct.as_ref(), &metadata_now, options)?;
        Ok(Self {
            image: Arc::new(Image {
                polls,
                path: path.clone(),
                _lock: lock,
                direct,
                size_bytes: AtomicU64::new(size_bytes),
                readonly: options.readonly,
                no_zero_range: AtomicBool::new(false),
                lost: AtomicI32::new(0),
                is_device: kind.is_block_device(),
                cache: options.cache,
                topology: host::topology(&file, &metadata_now),
                can_discard: !options.readonly
                    && (qcow2.is_some() || host::can_discard(&file, &metadata_now, size_bytes)),
                qcow2,
                file,
            }),
        })
    }

    /// An engine for `depth` requests at a time. Where the host refuses io_uring, it works with threads,
    /// and says so.
    ///
    /// # Errors
    ///
    /// What the host answers when there is no memory or no event for it.
    pub fn engine(&self, kind: EngineKind, depth: usize) -> io::Result<Engine> {
        Engine::new(Arc::clone(&self.image), kind, depth)
    }

    /// Makes a file as large as `size_bytes`, or takes the size that a block device has meanwhile, and
    /// returns it. All engines of the disk know it from then on; whoever has told a guest of the
    /// size tells it again.
    ///
    /// # Errors
    ///
    /// [`ResizeError`]; the size is then as before.
    pub fn grow(&self, size_bytes: u64) -> Result<u64, ResizeError> {
        let image = &*self.image;
        if image.readonly {
            return Err(ResizeError::ReadOnly);
        }
        if !size_bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(ResizeError::NotMultipleOfSector { size_bytes });
        }
        let before = image.size_bytes.load(Ordering::Acquire);
        if size_bytes < before {
            return Err(ResizeError::Smaller {
                size_bytes,
                current_bytes: before,
            });
        }
        let now = match &image.qcow2 {
            Some(qcow2) => {
                if size_bytes > before {
                    qcow2.grow(size_bytes)?;
                }
                qcow2.size_bytes()
            }
            None => {
                // Somebody may have made it larger already, and must not find it cut.
                if !image.is_device && image.file.metadata()?.len() < size_bytes {
                    host::retry(|| image.file.set_len(size_bytes))?;
                }
                host::size_bytes(&image.file, &image.file.metadata()?)?
            }
        };
        if now < size_bytes {
            return Err(ResizeError::DeviceIsSmaller {
                size_bytes,
                device_bytes: now,
            });
        }
        image.size_bytes.store(size_bytes, Ordering::Release);
        Ok(size_bytes)
    }

    /// Where the disk is.
    pub fn path(&self) -> &Path {
        &self.image.path
    }

    /// Size in sectors of [`SECTOR_BYTES`].
    pub fn sectors(&self) -> u64 {
        self.image.size_bytes.load(Ordering::Acquire) / SECTOR_BYTES
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

    /// Whether engines with io_uring poll for completions, which keeps a processor busy while there are
    /// requests under way.
    pub fn polls(&self) -> bool {
        self.image.polls.is_some()
    }

    /// Has engines poll for completions although nobody has asked whether they may.
    #[cfg(test)]
    pub(crate) fn poll_regardless(&mut self) {
        Arc::get_mut(&mut self.image).unwrap().polls = Some(PollLimits {
            max_bytes: 64 << 10,
            max_segments: 16,
        });
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

/// Whether the file is to be used as a qcow2 image.
fn is_qcow2(file: &File, options: &DiskOptions) -> Result<bool, OpenError> {
    let path = &options.path;
    let looks_like_it =
        || qcow2::has_magic(file).map_err(|error| host_error(path, "read its first bytes", error));
    match options.format {
        ImageFormat::Qcow2 => Ok(true),
        ImageFormat::Auto => looks_like_it(),
        ImageFormat::Raw => {
            if looks_like_it()? {
                tracing::warn!(disk = %path.display(),
                    "the disk is used as a raw one and begins like a qcow2 image; if it is one, say format=qcow2");
            }
            Ok(false)
        }
    }
}

fn open_qcow2(options: &DiskOptions) -> Result<Qcow2Image, OpenError> {
    Qcow2Image::open(options).map_err(|source| OpenError::Qcow2 {
        path: options.path.clone(),
        source,
    })
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

/// Opens the same file again and locks that.
fn take_lock(file: &File, options: &DiskOptions) -> Result<LockedFile, OpenError> {
    let again = open_again(file, options, 0)?;
    let path = options.path.clone();
    match lock::lock(&again, options.readonly) {
        LockOutcome::Held => Ok(LockedFile::new(again)),
        LockOutcome::Taken => Err(OpenError::Locked { path }),
        LockOutcome::Unavailable(source) => Err(OpenError::CannotLock { path, source }),
    }
}

/// Opens the same file again, past the page cache.
fn open_direct(buffered: &File, options: &DiskOptions) -> Result<DirectFile, OpenError> {
    let path = &options.path;
    let file = open_again(buffered, options, libc::O_DIRECT)?;
    let metadata = file
        .metadata()
        .map_err(|error| host_error(path, "look at it", error))?;
    let alignment = host::direct_alignment(&file, &metadata)
        .ok_or_else(|| OpenError::NoDirectIo { path: path.clone() })?;
    Ok(DirectFile { file, alignment })
}

/// The transfers whose completions are to be polled for.
fn polls(
    direct: Option<&DirectFile>,
    metadata: &Metadata,
    options: &DiskOptions,
) -> Result<Option<PollLimits>, OpenError> {
    if options.iopoll == IoPoll::Off {
        return Ok(None);
    }
    match iopoll::probe(direct, metadata) {
        Ok(limits) => Ok(Some(limits)),
        Err(refused) if options.iopoll == IoPoll::Auto => {
            tracing::debug!(disk = %options.path.display(), "no polling for completions: {refused}");
            Ok(None)
        }
        Err(source) => Err(OpenError::NoPolling {
            path: options.path.clone(),
            source,
        }),
    }
}

/// Another description of the file that is `first`, opened with `flags`.
fn open_again(first: &File, options: &DiskOptions, flags: libc::c_int) -> Result<File, OpenError> {
    let path = &options.path;
    let host = |what| move |source| host_error(path, what, source);
    let second = OpenOptions::new()
        .read(true)
        .write(!options.readonly)
        .custom_flags(libc::O_CLOEXEC | flags)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP) if flags & libc::O_DIRECT != 0 => {
                OpenError::NoDirectIo { path: path.clone() }
            }
            _ => open_error(options, error),
        })?;
    let one = first.metadata().map_err(host("look at it"))?;
    let other = second.metadata().map_err(host("look at it"))?;
    if (one.dev(), one.ino()) != (other.dev(), other.ino()) {
        let replaced = io::Error::other("it was replaced meanwhile");
        return Err(host_error(path, "open it", replaced));
    }
    Ok(second)
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
