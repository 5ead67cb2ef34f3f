//! qcow2 images (QEMU, docs/interop/qcow2.txt), by `imago`.
//!
//! The library reads and writes the format, with backing chains and zlib-compressed clusters, and refuses
//! images whose incompatible features it does not know. Here is what a machine needs around it:
//!
//! - An image is marked as not closed from the first request on that may change its tables until it is
//!   closed. One that was not closed is mended before it is written to: a machine that was killed leaves
//!   clusters that it had taken and not used, and a host that crashed may leave wrong reference counts.
//! - Clusters compressed with zstd are read here. A snapshot is shown to the library as the disk.
//! - Guest memory is copied to and from memory of this process: the library works with slices of bytes,
//!   which must not change under it.
//! - The files of a chain are locked: backing files against writers, for as long as the image is open. A
//!   chain that is a loop is refused.
//! - What gives clusters back excludes all other requests, as it takes mappings away from under them.
//!
//! Most requests need nothing of the format but the place of their clusters in the file: an engine asks for
//! it ([`Qcow2Image::hold`]) and transfers there as with a raw disk. All others are carried out on the threads of an
//! engine, several at a time.

mod bitmaps;
mod check;
mod compressed;
mod copied;
mod entry;
mod fields;
mod findings;
mod header;
mod image_file;
mod medium;
mod preflight;
mod rebuild;
mod refcounts;
mod snapshot_table;
pub(crate) mod snapshots;
mod usage;
mod walk;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

use imago::format::gate::ImplicitOpenGate;
use imago::format::{Format, PreallocateMode};
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, ShallowMapping, Storage as _, StorageOpenOptions};

use crate::image::Repair;
use crate::lock::{self, LockOutcome, LockedFile};
use crate::{CacheMode, DiskOptions};
use compressed::{ZstdClusters, ZstdImage};
use header::{Header, L1Table};
use image_file::ImageFile;
use medium::Medium;

pub(crate) use check::check;

/// First bytes of an image.
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Longest backing chain.
const CHAIN_MAX: usize = 64;
/// How long what gives clusters back waits before it looks again whether somebody still transfers there.
const HOLD_CHECK: Duration = Duration::from_micros(50);

/// An open image.
#[derive(Debug)]
pub(crate) struct Qcow2Image {
    access: RwLock<FormatAccess<ImageFile>>,
    /// Its own file, which the library has too.
    file: ImageFile,
    size_bytes: AtomicU64,
    cluster_bytes: u64,
    /// It may have clusters that the library cannot read, and is not to write to.
    has_zstd: bool,
    /// It is marked as not closed, and by whom it is being marked.
    is_marked: AtomicBool,
    marking: Mutex<()>,
    /// Something was not written: it is not closed by being dropped.
    has_failed: AtomicBool,
    /// Transfers that go on at places that `hold` gave.
    held: AtomicUsize,
    /// Clears the data of a backing file that is shorter.
    has_backing: bool,
    /// A flush reaches the file and not the disk.
    is_unsafe: bool,
    /// Locks of the files behind the image.
    _locks: Vec<LockedFile>,
}

/// Whether `file` begins as a qcow2 image does.
pub(crate) fn has_magic(file: &File) -> io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    let mut reader: &File = file;
    match reader.read_exact(&mut start) {
        Ok(()) => Ok(start == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

impl Qcow2Image {
    /// Opens the image that `options` say, and all that it refers to. Its own lock is the caller's business.
    pub(crate) fn open(options: &DiskOptions) -> io::Result<Self> {
        let (path, writable) = (&options.path, !options.readonly);
        let held = Rc::new(RefCell::new(Vec::new()));
        let mut gate = Gate {
            locks: options.lock.then(|| Rc::clone(&held)),
            depth: 0,
            opened: None,
        };
        if writable {
            mend_if_not_closed(path)?;
        }
        let file = File::open(path)?;
        preflight::check(&file, writable)?;
        let snapshot = match &options.snapshot {
            Some(name) => Some(snapshots::find(&file, name)?),
            None => None,
        };
        let storage_options = StorageOpenOptions::new().direct(options.cache.is_direct());
        // An explicit storage object, not a path: the gate is for what the image refers to.
        let own = ImageFile::open(storage_options.clone().filename(path).write(writable))?;
        let shown = show(&own, &file, writable, snapshot)?;
        let builder = Qcow2::<ImageFile>::builder(own.clone())
            .storage_open_options(storage_options)
            .write(writable);
        let image = builder.open(gate.next()?)?;
        let has_backing = image.implicit_backing_file().is_some();
        let has_zstd = shown.zstd.is_some();
        let access = access(image, shown.zstd);
        let size_bytes = shown.size_bytes.unwrap_or_else(|| access.size());
        Ok(Self {
            file: own,
            size_bytes: AtomicU64::new(size_bytes),
            cluster_bytes: shown.cluster_bytes,
            has_zstd,
            is_marked: AtomicBool::new(false),
            marking: Mutex::new(()),
            has_failed: AtomicBool::new(false),
            access: RwLock::new(access),
            held: AtomicUsize::new(0),
            has_backing,
            is_unsafe: options.cache == CacheMode::Unsafe,
            _locks: held.take(),
        })
    }

    /// Size of the disk in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.shared().read(bytes, offset)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.noted(self.change(offset, length, |access| access.write(bytes, offset)))
    }

    /// Has `change` write to a range of the disk. Nobody else uses the disk meanwhile where that is
    /// compressed in a way that the library does not know.
    fn change(
        &self,
        offset: u64,
        length: u64,
        change: impl FnOnce(&FormatAccess<ImageFile>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.mark()?;
        let access = self.shared();
        if !self.has_zstd_at(&access, offset, length)? {
            return change(&access);
        }
        drop(access);
        let access = self.exclusive();
        self.unpack_edges(&access, offset, length)?;
        change(&access)
    }

    /// Where in the image's own file the `length` bytes from `offset` on are, if they are there in one piece
    /// and `writes` need no other place. No cluster goes away from there until [`release`](Self::release),
    /// which has to follow: the library keeps mappings while nobody has exclusive access.
    ///
    /// Reads a table from the file where it is not in memory.
    pub(crate) fn hold(&self, offset: u64, length: u64, writes: bool) -> Option<u64> {
        let access = self.access.try_read().ok()?;
        match access.get_shallow_mapping(offset, length).ok()? {
            (
                ShallowMapping::Raw {
                    offset, writable, ..
                },
                mapped,
            ) if mapped >= length && (writable || !writes) => {
                // Still with the lock.
                self.held.fetch_add(1, Ordering::AcqRel);
                Some(offset)
            }
            _ => None,
        }
    }

    /// The transfer at a place that [`hold`](Self::hold) gave has ended.
    pub(crate) fn release(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }

    /// What was written is in the files, and on the disk where flushes mean that.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.noted(self.try_flush())
    }

    fn try_flush(&self) -> io::Result<()> {
        let access = self.shared();
        access.flush()?;
        if self.is_unsafe {
            return Ok(());
        }
        access.sync()
    }

    /// Gives back clusters that lie in the range; the rest stays as it is.
    pub(crate) fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.noted(self.try_discard(offset, length))
    }

    fn try_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.mark()?;
        let mut access = self.exclusive();
        self.unpack_edges(&access, offset, length)?;
        // To zeros, so that nothing of a backing file comes to light.
        access.discard_to_zero(offset, length)
    }

    pub(crate) fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        match may_unmap {
            true => self.discard(offset, length),
            false => self
                .noted(self.change(offset, length, |access| access.write_zeroes(offset, length))),
        }
    }

    /// Makes the disk larger.
    pub(crate) fn grow(&self, size_bytes: u64) -> io::Result<()> {
        self.noted(self.try_grow(size_bytes))
    }

    fn try_grow(&self, size_bytes: u64) -> io::Result<()> {
        self.mark()?;
        // What lies beyond the end of a shorter disk must not be its backing file's.
        let fill = match self.has_backing {
            true => PreallocateMode::Zero,
            false => PreallocateMode::None,
        };
        let access = self.exclusive();
        let (before, shown) = (self.size_bytes(), access.size());
        if before < shown {
            // The rest of the last cluster, which the library sees as a part of the disk.
            let rest = shown.min(size_bytes).saturating_sub(before);
            self.unpack_edges(&access, before, rest)?;
            let zeros = vec![0; usize::try_from(rest).map_err(io::Error::other)?];
            access.write(&zeros[..], before)?;
        }
        let to_show = match self.has_zstd {
            true => size_bytes
                .checked_next_multiple_of(self.cluster_bytes)
                .unwrap_or(size_bytes),
            false => size_bytes,
        };
        self.file.set_size(size_bytes);
        let grown = match to_show > shown {
            true => access.resize_grow(to_show, fill),
            false => self.file.write_size(),
        };
        if let Err(error) = grown {
            self.file.set_size(before);
            return Err(error);
        }
        self.size_bytes.store(size_bytes, Ordering::Release);
        access.flush()?;
        access.sync()
    }

    /// Before something may change tables, the file says that it is not closed, and the disk too.
    fn mark(&self) -> io::Result<()> {
        if self.is_marked.load(Ordering::Acquire) {
            return Ok(());
        }
        let _others_wait = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_marked.load(Ordering::Acquire) {
            return Ok(());
        }
        self.file.set_dirty(true)?;
        if !self.is_unsafe {
            self.file.sync()?;
        }
        self.is_marked.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes note of what the host refused: clusters may be lost then, and what was written.
    fn noted(&self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Unsupported
        {
            self.has_failed.store(true, Ordering::Release);
        }
        result
    }

    /// Writes all that is to be written, and says that the image is closed.
    fn close(&self) -> io::Result<()> {
        self.flush()?;
        self.file.set_dirty(false)
    }

    /// Whether some of the range is compressed in a way that the library does not know.
    fn has_zstd_at(
        &self,
        access: &FormatAccess<ImageFile>,
        mut offset: u64,
        length: u64,
    ) -> io::Result<bool> {
        let end = offset.saturating_add(length);
        while self.has_zstd && offset < end {
            let (mapping, here) = access.get_shallow_mapping(offset, end.saturating_sub(offset))?;
            match mapping {
                ShallowMapping::Special { .. } => return Ok(true),
                _ if here == 0 => break,
                _ => offset = offset.saturating_add(here),
            }
        }
        Ok(false)
    }

    /// Has the first and the last cluster of a range, where it covers them in part, written as they are: the
    /// library would have to unpack them, and cannot. Nobody reads meanwhile.
    fn unpack_edges(
        &self,
        access: &FormatAccess<ImageFile>,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        let inside = self.cluster_bytes.wrapping_sub(1);
        let end = offset.saturating_add(length);
        for edge in [offset, end] {
            let cluster = edge & !inside;
            if edge == cluster || !self.has_zstd_at(access, cluster, self.cluster_bytes)? {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(self.cluster_bytes).map_err(io::Error::other)?];
            access.read(&mut bytes[..], cluster)?;
            access.write(&bytes[..], cluster)?;
        }
        Ok(())
    }

    fn shared(&self) -> RwLockReadGuard<'_, FormatAccess<ImageFile>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not for a thread that has an engine: transfers end when their engines look at them.
    fn exclusive(&self) -> RwLockWriteGuard<'_, FormatAccess<ImageFile>> {
        let access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        // No other can begin now.
        while self.held.load(Ordering::Acquire) > 0 {
            thread::sleep(HOLD_CHECK);
        }
        access
    }
}

impl Drop for Qcow2Image {
    fn drop(&mut self) {
        if self.is_marked.load(Ordering::Acquire)
            && !self.has_failed.load(Ordering::Acquire)
            && let Err(error) = self.close()
        {
            // Whoever opens it next looks after it.
            tracing::error!("{}: the image cannot be closed: {error}", self.file);
        }
    }
}

/// Mends the image, which is locked, if whoever had it last did not close it.
fn mend_if_not_closed(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    // What is wrong with a header that cannot be read, or with a damaged image, is told by who opens it.
    let header = Header::read(&Medium::new(&file)?);
    if !header.is_ok_and(|header| header.is_dirty() && !header.is_corrupt()) {
        return Ok(());
    }
    let started = Instant::now();
    let report = check(&file, Repair::All)?;
    if report.is_dirty {
        return Err(io::Error::other(
            "it was not closed, and is damaged: `cuddy image check` says what is wrong",
        ));
    }
    tracing::info!(disk = %path.display(), "the image was not closed: {} lost clusters given back and {} reference counts or flags mended in {} ms",
        report.mended_leaks, report.mended_errors, started.elapsed().as_millis());
    Ok(())
}

/// What the library is not told of an image.
struct Shown {
    zstd: Option<ZstdClusters>,
    /// `None` where the library knows it.
    size_bytes: Option<u64>,
    cluster_bytes: u64,
}

/// Has the library see the image that is in both files as one that it knows.
fn show(
    image: &ImageFile,
    file: &File,
    writable: bool,
    snapshot: Option<(L1Table, u64)>,
) -> io::Result<Shown> {
    // The library says what is wrong with a header that cannot be read.
    let Ok(header) = Header::read(&Medium::new(file)?) else {
        return Ok(Shown {
            zstd: None,
            size_bytes: None,
            cluster_bytes: 1,
        });
    };
    image.show(&header, writable, snapshot);
    let l1 = snapshot.map_or(header.l1, |(l1, _)| l1);
    let size_bytes = snapshot.map_or(header.size_bytes, |(_, size_bytes)| size_bytes);
    Ok(Shown {
        zstd: ZstdClusters::of(file, &header, l1)?,
        size_bytes: Some(size_bytes),
        cluster_bytes: header.cluster_bytes(),
    })
}

/// The format with what it may need to be read.
fn access<D>(image: D, zstd: Option<ZstdClusters>) -> FormatAccess<ImageFile>
where
    D: imago::format::drivers::FormatDriverInstance<Storage = ImageFile>,
{
    match zstd {
        Some(clusters) => FormatAccess::new(ZstdImage {
            inner: image,
            clusters,
        }),
        None => FormatAccess::new(image),
    }
}

/// Opens what an image refers to.
struct Gate {
    /// Where the locks go; `None` where none are wanted.
    locks: Option<Rc<RefCell<Vec<LockedFile>>>>,
    depth: usize,
    /// The file opened last: it is not known yet what it is.
    opened: Option<(ImageFile, File)>,
}

impl Gate {
    /// The gate of the next image in the chain.
    fn next(&mut self) -> io::Result<Self> {
        Ok(Self {
            locks: self.locks.clone(),
            depth: self.depth.saturating_add(1),
            opened: None,
        })
    }
}

impl ImplicitOpenGate<ImageFile> for Gate {
    fn open_format<F: FormatDriverBuilder<ImageFile>>(
        &mut self,
        builder: F,
    ) -> io::Result<FormatAccess<ImageFile>> {
        if self.depth > CHAIN_MAX {
            return Err(io::Error::other(
                "the backing files are more than 64, or a loop",
            ));
        }
        let zstd = match self.opened.take() {
            Some((image, file)) if F::FORMAT == Format::Qcow2 => {
                show(&image, &file, false, None)?.zstd
            }
            _ => None,
        };
        Ok(access(builder.open(self.next()?)?, zstd))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<ImageFile> {
        // Backing files are read. What is to be written is an external data file, whose name an image that
        // is not trusted chooses.
        if options.get_writable() {
            return Err(io::Error::other(
                "it keeps its data in another file, which is not supported: convert it",
            ));
        }
        let Some(path) = options.get_filename().map(Path::to_owned) else {
            return ImageFile::open(options);
        };
        let file = File::open(&path)?;
        preflight::check(&file, false)?;
        if let Some(locks) = &self.locks {
            let file = File::open(&path)?;
            match lock::lock(&file, true) {
                LockOutcome::Held => locks.borrow_mut().push(LockedFile::new(file)),
                LockOutcome::Taken => {
                    return Err(io::Error::other("another machine is writing to it"));
                }
                LockOutcome::Unavailable(error) => return Err(error),
            }
        }
        let image = ImageFile::open(options)?;
        self.opened = Some((image.clone(), file));
        Ok(image)
    }
}
