//! Debian's statically linked busybox: the user space of small guests and of the lab's own Linux.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::cache::Cache;
use crate::debian;
use crate::error::{LabError, Result};
use crate::initramfs::Initramfs;
use crate::process::output_of;

/// What is added beside busybox; part of the names of what is made with it.
pub(crate) const RECIPE: &[u8] = include_bytes!("busybox.rs");

/// The busybox program in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Busybox {
    program: PathBuf,
}

impl Busybox {
    /// Fetches busybox, or finds it in the cache.
    pub(crate) fn fetch(cache: &Cache) -> Result<Self> {
        let folder = cache.entry("busybox", |new| {
            debian::unpack(cache, "busybox-static", new)
        })?;
        ["bin/busybox", "usr/bin/busybox"]
            .map(|path| folder.join(path))
            .into_iter()
            .find(|path| path.exists())
            .map(|program| Self { program })
            .ok_or_else(|| LabError::Unusable(format!("no busybox in {}", folder.display())))
    }

    /// Adds busybox under all of its names, and the few files that its programs ask for.
    pub(crate) fn add_to<W: Write>(&self, archive: &mut Initramfs<W>) -> Result<()> {
        for folder in ["dev", "proc", "sys", "mnt", "root", "tmp", "run", "etc"] {
            archive.folder(folder)?;
        }
        // The kernel opens it before init runs.
        archive.character_device("dev/console", 5, 1)?;
        archive.copy("bin/busybox", 0o755, &self.program)?;
        for name in output_of(Command::new(&self.program).arg("--list"))?.lines() {
            if name != "busybox" {
                archive.symlink(&format!("bin/{name}"), "busybox")?;
            }
        }
        archive.symlink("sbin", "bin")?;
        archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n")?;
        archive.file("etc/group", 0o644, b"root:x:0:\n")?;
        // A prompt that tests can wait for, wherever the shell is.
        archive.file("etc/profile", 0o644, b"PS1='~ # '\n")
    }
}
