//! The files that a case uses: the same names on the host and in the lab.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::error::{LabError, Result};
use crate::guest;
use crate::kernel::Kernel;
use crate::root_disk::root_disk;
use crate::tools_disk::tools_disk;

/// The files of a case. The runner of the lab hands them over in environment variables, one for each
/// field; where they are not set, [`get`](Self::get) fetches and makes them on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// `CUDDY_BIN`: the program `cuddy` under test.
    pub cuddy: PathBuf,
    /// `CUDDY_LAB_VMLINUZ`: a stock kernel as bzImage.
    pub vmlinuz: PathBuf,
    /// `CUDDY_LAB_VMLINUX`: the same kernel as ELF file.
    pub vmlinux: PathBuf,
    /// `CUDDY_LAB_INITRD`: the initrd of small guests, see `resources/guest-init/guest.sh`.
    pub initrd: PathBuf,
    /// `CUDDY_LAB_ROOT_DISK`: a disk with Debian and systemd. On the host it is shared by all tests and
    /// only to be read; in the lab it is a block device, and writes to it are gone with the lab.
    pub root_disk: PathBuf,
    /// `CUDDY_LAB_TOOLS_DISK`: a disk with programs of Debian's for guests and for cases, see
    /// [`tools_disk`]; only to be read.
    pub tools_disk: PathBuf,
}

impl Assets {
    /// The files of this process.
    ///
    /// # Errors
    ///
    /// When one has to be fetched or made and cannot.
    pub fn get() -> Result<Self> {
        match Self::from_environment(|name| std::env::var_os(name)) {
            Some(assets) => Ok(assets),
            None => Self::prepare(&Cache::open()?),
        }
    }

    /// Fetches and makes everything on the host.
    ///
    /// # Errors
    ///
    /// When a package cannot be fetched or a file cannot be made.
    pub fn prepare(cache: &Cache) -> Result<Self> {
        let kernel = Kernel::fetch(cache)?;
        Ok(Self {
            cuddy: cuddy()?,
            initrd: guest::initrd(cache, &kernel)?,
            root_disk: root_disk(cache)?,
            tools_disk: tools_disk(cache)?,
            vmlinuz: kernel.vmlinuz(),
            vmlinux: kernel.vmlinux(),
        })
    }

    /// The variables in which [`get`](Self::get) finds this value again.
    pub fn environment(&self) -> [(&'static str, &Path); 6] {
        [
            ("CUDDY_BIN", &self.cuddy),
            ("CUDDY_LAB_VMLINUZ", &self.vmlinuz),
            ("CUDDY_LAB_VMLINUX", &self.vmlinux),
            ("CUDDY_LAB_INITRD", &self.initrd),
            ("CUDDY_LAB_ROOT_DISK", &self.root_disk),
            ("CUDDY_LAB_TOOLS_DISK", &self.tools_disk),
        ]
    }

    fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let path = |name| variable(name).map(PathBuf::from);
        Some(Self {
            cuddy: path("CUDDY_BIN")?,
            vmlinuz: path("CUDDY_LAB_VMLINUZ")?,
            vmlinux: path("CUDDY_LAB_VMLINUX")?,
            initrd: path("CUDDY_LAB_INITRD")?,
            root_disk: path("CUDDY_LAB_ROOT_DISK")?,
            tools_disk: path("CUDDY_LAB_TOOLS_DISK")?,
        })
    }
}

/// The program `cuddy`: `CUDDY_BIN`, or the one that was built beside this program.
///
/// # Errors
///
/// When there is none.
pub fn cuddy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CUDDY_BIN") {
        return Ok(PathBuf::from(path));
    }
    // Test programs are one folder deeper than others.
    let this = std::env::current_exe().unwrap_or_default();
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("cuddy"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            LabError::Unusable(
                "no program `cuddy`: build it, or say in CUDDY_BIN where it is".to_owned(),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::Assets;

    #[test]
    fn the_environment_hands_everything_over() {
        let assets = Assets {
            cuddy: "/1".into(),
            vmlinuz: "/2".into(),
            vmlinux: "/3".into(),
            initrd: "/4".into(),
            root_disk: "/5".into(),
            tools_disk: "/6".into(),
        };
        let environment = assets.environment();
        let variable = |wanted: &str| {
            let entry = environment.iter().find(|(name, _)| *name == wanted)?;
            Some(entry.1.into())
        };
        assert_eq!(Assets::from_environment(variable), Some(assets.clone()));
        assert_eq!(Assets::from_environment(|_| None), None);
    }
}
