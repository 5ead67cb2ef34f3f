//! The lab's cache, `target/lab`: entries that are made once, aside, and renamed into place, so that
//! an entry that exists is complete. Several processes may ask for the same entry at once: one makes
//! it, the others wait for its lock file.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// A folder of entries, each a file or a folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// The lock of one entry, held until it is dropped.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

impl Cache {
    /// The workspace's own cache: `CUDDY_LAB_CACHE`, or `lab` in Cargo's target folder.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn open() -> Result<Self> {
        let root = match std::env::var_os("CUDDY_LAB_CACHE") {
            Some(path) => PathBuf::from(path),
            None => target_folder().join("lab"),
        };
        Self::open_at(&root)
    }

    /// A cache in `root`, which is made when it is missing.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn open_at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).context(|| format!("making {}", root.display()))?;
        let root = fs::canonicalize(root).context(|| format!("finding {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of the entry `name`. When there is none, `make` is called with a path at which it
    /// creates the entry; it is under no other name until it is complete.
    ///
    /// # Errors
    ///
    /// Those of `make`, and those of the host when it locks or renames.
    pub fn entry(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.root.join(name);
        if path.exists() {
            return Ok(path);
        }
        let _lock = self.lock(name)?;
        if path.exists() {
            return Ok(path);
        }
        let new = self.root.join(format!("{name}.new"));
        remove(&new)?;
        make(&new)?;
        fs::rename(&new, &path).context(|| format!("renaming {}", new.display()))?;
        Ok(path)
    }

    /// Waits for the lock `name`. Entries are locked by their own names.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be made or locked.
    pub fn lock(&self, name: &str) -> Result<CacheLock> {
        let path = self.root.join(format!("{name}.lock"));
        let file = File::create(&path).context(|| format!("making {}", path.display()))?;
        file.lock()
            .context(|| format!("locking {}", path.display()))?;
        Ok(CacheLock { _file: file })
    }
}

/// A short name for the content of `parts`, to tell entries apart that are made from other inputs.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or `target` in the workspace.
fn target_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(path) => workspace.join(path),
        None => workspace.join("target"),
    }
}

fn remove(path: &Path) -> Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    outcome.context(|| format!("removing {}", path.display()))
}

#[cfg(test)]
mod tests;
