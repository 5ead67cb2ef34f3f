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

/// Debian's statically linked busybox, for tests that want one of its programs on the host.
///
/// # Errors
///
/// When it cannot be fetched.
pub fn busybox(cache: &Cache) -> Result<PathBuf> {
    Ok(Busybox::fetch(cache)?.program)
}

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
        let list = output_of(Command::new(&self.program).arg("--list"))?;
        let names: Vec<_> = list.lines().filter(|name| *name != "busybox").collect();
        self.add_few_to(archive, &names)?;
        archive.symlink("sbin", "bin")?;
        archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n")?;
        archive.file("etc/group", 0o644, b"root:x:0:\n")
    }

    /// Adds busybox under `names`, and what a shell of root's asks for.
    pub(crate) fn add_few_to<W: Write>(
        &self,
        archive: &mut Initramfs<W>,
        names: &[&str],
    ) -> Result<()> {
        for folder in ["dev", "proc", "sys", "mnt", "root", "tmp", "run", "etc"] {
            archive.folder(folder)?;
        }
        // The kernel opens it before init runs.
        archive.character_device("dev/console", 5, 1)?;
        archive.copy("bin/busybox", 0o755, &self.program)?;
        for name in names {
            archive.symlink(&format!("bin/{name}"), "busybox")?;
        }
        // A prompt that tests can wait for, wherever the shell is.
        archive.file("etc/profile", 0o644, b"PS1='~ # '\n")
    }
}
