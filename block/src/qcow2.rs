//! qcow2 images (QEMU, docs/interop/qcow2.txt), by `imago`.
//!
//! The library reads and writes the format, with backing chains, external data files and zlib-compressed
//! clusters, and refuses images whose incompatible features it does not know: those marked corrupt or dirty,
//! and those compressed with zstd. Here is what a machine needs around it:
//!
//! - Guest memory is copied to and from memory of this process: the library works with slices of bytes,
//!   which must not change under it.
//! - The files of a chain are locked: backing files against writers, for as long as the image is open. A
//!   chain that is a loop is refused.
//! - What gives clusters back excludes all other requests, as it takes mappings away from under them.
//!
//! Most requests need nothing of the format but the place of their clusters in the file: an engine asks for
//! it ([`Qcow2Image::hold`]) and transfers there as with a raw disk. All others are carried out on the threads of an
//! engine, several at a time.

mod preflight;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

use imago::file::File as Storage;
use imago::format::PreallocateMode;
use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, ShallowMapping, Storage as _, StorageOpenOptions};

use crate::CacheMode;
use crate::lock::{self, LockOutcome};

/// First bytes of an image.
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Longest backing chain.
const CHAIN_MAX: usize = 64;
/// How long what gives clusters back waits before it looks again whether somebody still transfers there.
const HOLD_CHECK: Duration = Duration::from_micros(50);

/// An open image.
#[derive(Debug)]
pub(crate) struct Qcow2Image {
    access: RwLock<FormatAccess<Storage>>,
    /// Transfers that go on at places that `hold` gave.
    held: AtomicUsize,
    /// Clears the data of a backing file that is shorter.
    has_backing: bool,
    /// A flush reaches the file and not the disk.
    is_unsafe: bool,
    /// Locks of the files behind the image.
    _locks: Vec<File>,
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
    /// Opens the image at `path` and all that it refers to. Its own lock is the caller's business.
    pub(crate) fn open(
        path: &Path,
        readonly: bool,
        cache: CacheMode,
        locks: bool,
    ) -> io::Result<Self> {
        let held = Rc::new(RefCell::new(Vec::new()));
        let gate = Gate {
            locks: locks.then(|| Rc::clone(&held)),
            depth: 0,
        };
        preflight::check(&File::open(path)?, !readonly)?;
        let storage_options = StorageOpenOptions::new().direct(cache.is_direct());
        // An explicit storage object, not a path: the gate is for what the image refers to.
        let own = storage_options.clone().filename(path).write(!readonly);
        let image = Qcow2::<Storage>::builder(Storage::open(own)?)
            .storage_open_options(storage_options)
            .write(!readonly)
            .open(gate)?;
        let has_backing = image.implicit_backing_file().is_some();
        Ok(Self {
            access: RwLock::new(FormatAccess::new(image)),
            held: AtomicUsize::new(0),
            has_backing,
            is_unsafe: cache == CacheMode::Unsafe,
            _locks: held.take(),
        })
    }

    /// Size of the disk in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.shared().size()
    }

    pub(crate) fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.shared().read(bytes, offset)
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.shared().write(bytes, offset)
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
        let access = self.shared();
        access.flush()?;
        if self.is_unsafe {
            return Ok(());
        }
        access.sync()
    }

    /// Gives back clusters that lie in the range; the rest stays as it is.
    pub(crate) fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        // To zeros, so that nothing of a backing file comes to light.
        self.exclusive().discard_to_zero(offset, length)
    }

    pub(crate) fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap {
            return self.discard(offset, length);
        }
        self.shared().write_zeroes(offset, length)
    }

    /// Makes the disk larger.
    pub(crate) fn grow(&self, size_bytes: u64) -> io::Result<()> {
        // What lies beyond the end of a shorter disk must not be its backing file's.
        let fill = match self.has_backing {
            true => PreallocateMode::Zero,
            false => PreallocateMode::None,
        };
        let access = self.exclusive();
        access.resize_grow(size_bytes, fill)?;
        access.flush()?;
        access.sync()
    }

    fn shared(&self) -> RwLockReadGuard<'_, FormatAccess<Storage>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not for a thread that has an engine: transfers end when their engines look at them.
    fn exclusive(&self) -> RwLockWriteGuard<'_, FormatAccess<Storage>> {
        let access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        // No other can begin now.
        while self.held.load(Ordering::Acquire) > 0 {
            thread::sleep(HOLD_CHECK);
        }
        access
    }
}

/// Opens what an image refers to.
struct Gate {
    /// Where the locks go; `None` where none are wanted.
    locks: Option<Rc<RefCell<Vec<File>>>>,
    depth: usize,
}

impl ImplicitOpenGate<Storage> for Gate {
    fn open_format<F: FormatDriverBuilder<Storage>>(
        &mut self,
        builder: F,
    ) -> io::Result<FormatAccess<Storage>> {
        let depth = self.depth.saturating_add(1);
        if depth > CHAIN_MAX {
            return Err(io::Error::other(
                "the backing files are more than 64, or a loop",
            ));
        }
        let gate = Self {
            locks: self.locks.clone(),
            depth,
        };
        Ok(FormatAccess::new(builder.open(gate)?))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<Storage> {
        // Backing files are read. What is to be written is an external data file, whose name an image that
        // is not trusted chooses.
        if options.get_writable() {
            return Err(io::Error::other(
                "it keeps its data in another file, which is not supported: convert it",
            ));
        }
        if let Some(path) = options.get_filename() {
            preflight::check(&File::open(path)?, false)?;
        }
        if let (Some(locks), Some(path)) = (&self.locks, options.get_filename()) {
            let file = File::open(path)?;
            match lock::lock(&file, true) {
                LockOutcome::Held => locks.borrow_mut().push(file),
                LockOutcome::Taken => {
                    return Err(io::Error::other("another machine is writing to it"));
                }
                LockOutcome::Unavailable(error) => return Err(error),
            }
        }
        Storage::open(options)
    }
}
