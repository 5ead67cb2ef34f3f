//! The initial RAM disk: opened, then read from its file straight into guest memory, as high as it may be.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arch::layout;
use arch::memory_map::MemoryMap;
use vm_memory::{Bytes, GuestAddress};

use crate::GuestMemory;

const PAGE_BYTES: u64 = 4096;

/// Why an initrd cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct InitrdError {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: InitrdProblem,
}

/// What can be wrong with an initrd.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum InitrdProblem {
    /// Not there, no permission.
    #[error("{}", cannot_open(.0))]
    Open(io::Error),
    /// A directory, a FIFO.
    #[error("it is {0}: give a regular file")]
    NotAFile(&'static str),
    /// No bytes.
    #[error("it is empty: build it again, or start without an initrd")]
    Empty,
    /// The host failed, or the file shrank.
    #[error("its {length_bytes} bytes cannot be read into guest memory: {detail}")]
    Read { length_bytes: u64, detail: String },
    /// There is no room for it.
    #[error(
        "its {length_bytes} bytes do not fit: between the kernel's end at {kernel_end:#x} and {limit:#x} there are {free_bytes} bytes free: give the machine more memory or use a smaller initrd"
    )]
    DoesNotFit {
        length_bytes: u64,
        kernel_end: u64,
        limit: u64,
        free_bytes: u64,
    },
}

/// An initrd: opened, its length known, nothing loaded.
#[derive(Debug)]
pub struct InitrdFile {
    path: PathBuf,
    length_bytes: u64,
    /// Reading moves the file's position, so one load at a time.
    file: Mutex<File>,
}

impl InitrdFile {
    /// Opens a file. What is in it is for the kernel to judge.
    ///
    /// # Errors
    ///
    /// [`InitrdError`] when it is not there, may not be read, is not a regular file or is empty.
    pub fn open(path: &Path) -> Result<Self, InitrdError> {
        let error = |problem| InitrdError {
            path: path.into(),
            problem,
        };
        let (file, length_bytes) = open_regular(path).map_err(|refusal| {
            error(match refusal {
                Refusal::Open(source) => InitrdProblem::Open(source),
                Refusal::NotAFile(what) => InitrdProblem::NotAFile(what),
            })
        })?;
        if length_bytes == 0 {
            return Err(error(InitrdProblem::Empty));
        }
        Ok(Self {
            path: path.into(),
            length_bytes,
            file: Mutex::new(file),
        })
    }

    /// Length of the file in bytes; at least 1.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// The file, as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file into memory beside the kernel, ending at or below `limit`. Gives its address.
    pub(crate) fn load(
        &self,
        memory: &GuestMemory,
        map: &MemoryMap,
        kernel: &Range<u64>,
        limit: u64,
    ) -> Result<GuestAddress, InitrdError> {
        let error = |problem| InitrdError {
            path: self.path.clone(),
            problem,
        };
        let limit = limit.min(map.low_ram_end());
        let address = place(self.length_bytes, kernel, limit).map_err(|free_bytes| {
            error(InitrdProblem::DoesNotFit {
                length_bytes: self.length_bytes,
                kernel_end: kernel.end,
                limit,
                free_bytes,
            })
        })?;
        let unreadable = |detail: String| {
            error(InitrdProblem::Read {
                length_bytes: self.length_bytes,
                detail,
            })
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.rewind()
            .map_err(|cause| unreadable(cause.to_string()))?;
        let count = usize::try_from(self.length_bytes).unwrap_or(usize::MAX);
        memory
            .read_exact_volatile_from(address, &mut *file, count)
            .map_err(|cause| unreadable(cause.to_string()))?;
        Ok(address)
    }
}

/// The highest page from which `length` bytes fit below `limit` without touching the kernel; else the size
/// of the largest gap.
fn place(length: u64, kernel: &Range<u64>, limit: u64) -> Result<GuestAddress, u64> {
    let whole_page = |address: u64| address & !PAGE_BYTES.saturating_sub(1);
    let above = kernel
        .end
        .max(layout::EXTENDED_START)
        .checked_next_multiple_of(PAGE_BYTES)
        .unwrap_or(u64::MAX)..limit;
    let below = layout::EXTENDED_START..kernel.start.min(limit);
    let fitting = [&above, &below].into_iter().find_map(|gap| {
        let start = whole_page(gap.end.checked_sub(length)?);
        (start >= gap.start).then_some(GuestAddress(start))
    });
    let size = |gap: &Range<u64>| gap.end.saturating_sub(gap.start);
    fitting.ok_or_else(|| size(&above).max(size(&below)))
}

/// Why a file was not even looked into.
pub(crate) enum Refusal {
    /// The host says why.
    Open(io::Error),
    /// What it is instead of a file.
    NotAFile(&'static str),
}

/// Opens a file for reading and tells its length. Does not wait for the writer of a FIFO.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), Refusal> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(Refusal::Open)?;
    let metadata = file.metadata().map_err(Refusal::Open)?;
    if metadata.is_dir() {
        Err(Refusal::NotAFile("a directory"))
    } else if metadata.is_file() {
        Ok((file, metadata.len()))
    } else {
        Err(Refusal::NotAFile("a device, socket or pipe"))
    }
}

/// Why a file that a user named is not open, and what to do about it.
pub(crate) fn cannot_open(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file: check the path".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "no permission to read it: change its mode or owner, or run as a user who may"
                .to_owned()
        }
        _ => format!("it cannot be opened: {error}"),
    }
}

#[cfg(test)]
mod tests;
