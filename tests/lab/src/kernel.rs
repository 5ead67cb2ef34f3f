//! Debian's kernel for clouds: the bzImage as it is packaged, the ELF file inside it, and its modules.

mod payload;

use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::debian;
use crate::error::{Context, LabError, Result};
use crate::modules::Modules;

/// A stock kernel in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Fetches the kernel, or finds it in the cache.
    ///
    /// # Errors
    ///
    /// When the package cannot be fetched or has not the expected files.
    pub fn fetch(cache: &Cache) -> Result<Self> {
        let folder = cache.entry("kernel", |new| {
            let package = debian::first_dependency(cache, "linux-image-cloud-amd64")?;
            eprintln!("cuddy-lab: fetching Debian's {package}");
            debian::unpack(cache, &package, new)?;
            let image = only_file(&new.join("boot"), "vmlinuz-")?;
            let bytes = fs::read(&image).context(|| format!("reading {}", image.display()))?;
            let vmlinux = new.join("vmlinux");
            fs::write(&vmlinux, payload::payload(&bytes)?)
                .context(|| format!("writing {}", vmlinux.display()))?;
            let vmlinuz = new.join("vmlinuz");
            fs::rename(&image, &vmlinuz).context(|| format!("renaming {}", image.display()))
        })?;
        Ok(Self { folder })
    }

    /// The bzImage.
    pub fn vmlinuz(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The uncompressed ELF file out of the bzImage.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// Its modules.
    ///
    /// # Errors
    ///
    /// When their folder cannot be read.
    pub fn modules(&self) -> Result<Modules> {
        // Debian moved /lib to /usr/lib, in packages as well.
        let candidates = ["lib/modules", "usr/lib/modules"].map(|path| self.folder.join(path));
        match candidates.iter().find(|path| path.is_dir()) {
            Some(folder) => Modules::in_folder(folder),
            None => Err(LabError::Unusable(format!(
                "the kernel in {} has no modules",
                self.folder.display()
            ))),
        }
    }
}

fn only_file(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let what = || format!("reading {}", folder.display());
    for entry in fs::read_dir(folder).context(what)? {
        let entry = entry.context(what)?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    Err(LabError::Unusable(format!(
        "no {prefix}* in {}",
        folder.display()
    )))
}
