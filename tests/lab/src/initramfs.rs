//! Archives that Linux unpacks as its first file system: cpio in the `newc` format
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Archives may be concatenated; later
//! entries replace earlier ones.
//!
//! Everything belongs to root, whoever makes the archive, and device nodes need no privileges.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use cpio::newc::{self, Builder, ModeFileType};

use crate::error::{Context, LabError, Result};

/// An archive that is being written to `W`.
#[derive(Debug)]
pub struct Initramfs<W: Write> {
    out: W,
    next_inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Initramfs<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            next_inode: 1,
            folders: BTreeSet::new(),
        }
    }

    /// Adds the folder `path` and those above it; those that were added before are left out.
    ///
    /// # Errors
    ///
    /// When the archive cannot be written.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let Some(folder) = path.get(..end).filter(|folder| !folder.is_empty()) else {
                continue;
            };
            if self.folders.insert(folder.to_owned()) {
                let entry = Self::entry(folder, 0o755, ModeFileType::Directory).nlink(2);
                self.append(entry, folder, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file with the permissions `mode`, and the folders above it.
    ///
    /// # Errors
    ///
    /// When the archive cannot be written, or `content` is larger than a `newc` archive can hold.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.folder_of(path)?;
        self.append(
            Self::entry(path, mode, ModeFileType::Regular),
            path,
            content,
        )
    }

    /// Adds a copy of the host's file `source`.
    ///
    /// # Errors
    ///
    /// When `source` cannot be read, and as [`file`](Self::file).
    pub fn copy(&mut self, path: &str, mode: u32, source: &Path) -> Result<()> {
        let content = std::fs::read(source).context(|| format!("reading {}", source.display()))?;
        self.file(path, mode, &content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// When the archive cannot be written.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.folder_of(path)?;
        let entry = Self::entry(path, 0o777, ModeFileType::Symlink);
        self.append(entry, path, target.as_bytes())
    }

    /// Adds a character device.
    ///
    /// # Errors
    ///
    /// When the archive cannot be written.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.folder_of(path)?;
        let entry = Self::entry(path, 0o600, ModeFileType::Char)
            .rdev_major(major)
            .rdev_minor(minor);
        self.append(entry, path, &[])
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// When the archive cannot be written.
    pub fn finish(self) -> Result<W> {
        let mut out = newc::trailer(self.out).context(|| "writing an initramfs".to_owned())?;
        out.flush().context(|| "writing an initramfs".to_owned())?;
        Ok(out)
    }

    fn folder_of(&mut self, path: &str) -> Result<()> {
        match path.trim_start_matches('/').rsplit_once('/') {
            Some((folder, _)) => self.folder(folder),
            None => Ok(()),
        }
    }

    fn entry(path: &str, mode: u32, kind: ModeFileType) -> Builder {
        Builder::new(path.trim_start_matches('/'))
            .mode(mode)
            .set_mode_file_type(kind)
    }

    fn append(&mut self, entry: Builder, path: &str, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| {
            LabError::Unusable(format!("{path} is too large for an initramfs (4 GiB)"))
        })?;
        let entry = entry.ino(self.next_inode);
        self.next_inode += 1;
        let mut append = || -> io::Result<()> {
            let mut writer = entry.clone().write(&mut self.out, size);
            writer.write_all(content)?;
            writer.finish()?;
            Ok(())
        };
        append().context(|| format!("writing {path} to an initramfs"))
    }
}

#[cfg(test)]
mod tests;
