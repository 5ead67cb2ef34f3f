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
//! Requests are carried out on the threads of an engine, several at a time.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use imago::file::File as Storage;
use imago::format::PreallocateMode;
use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, Storage as _, StorageOpenOptions};

use crate::CacheMode;
use crate::lock::{self, LockOutcome};

/// First bytes of an image.
const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Longest backing chain.
const CHAIN_MAX: usize = 64;

/// An open image.
#[derive(Debug)]
pub(crate) struct Qcow2Image {
    access: RwLock<FormatAccess<Storage>>,
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

    fn exclusive(&self) -> RwLockWriteGuard<'_, FormatAccess<Storage>> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
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
