//! A file without a name until it is complete (open(2), `O_TMPFILE`): whatever ends this process before,
//! nothing is left of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{CreateOptions, ImageError, copy, fill, folder_of, host_error, naming, open};
use crate::Disk;

/// The file.
#[derive(Debug)]
pub(super) struct Nameless {
    file: File,
}

impl Nameless {
    /// A file on the file system on which `target` is to be; `None` where there are no such files.
    pub(super) fn new(target: &Path) -> Option<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
            .open(folder_of(target))
            .ok()?;
        let new = Self { file };
        // Its path for now, and for its name later, needs /proc.
        new.path().exists().then_some(new)
    }

    /// By which the file can be opened again.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Makes it a copy of `from`, and gives it the name `target`.
    pub(super) fn write(
        &self,
        from: &Disk,
        target: &Path,
        size_bytes: u64,
        options: &CreateOptions,
    ) -> Result<(), ImageError> {
        let path = self.path();
        fill(&path, &self.file, size_bytes, options)
            .map_err(|error| host_error(target, "make it", error))?;
        copy(
            from,
            &open(&path, options.format, false)?,
            target,
            size_bytes,
        )?;
        self.give_name(target)
            .map_err(|error| naming(target, error))
    }

    fn give_name(&self, target: &Path) -> io::Result<()> {
        // Refuses a name that is there.
        rustix::fs::linkat(
            rustix::fs::CWD,
            self.path(),
            rustix::fs::CWD,
            target,
            rustix::fs::AtFlags::SYMLINK_FOLLOW,
        )?;
        File::open(folder_of(target))?.sync_all()
    }
}
