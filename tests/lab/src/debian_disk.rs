//! Disks with files out of Debian's packages.
//!
//! mmdebstrap makes the file system from the packages, and mke2fs makes an ext4 image of it, so that
//! nothing is mounted on the host.

use std::path::{Path, PathBuf};

use crate::cache::{Cache, digest};
use crate::debian;
use crate::error::Result;
use crate::process::{Program, output_of};

/// Makes the image of the file system `$1` from a second view of it, in which the mounts of mmdebstrap
/// (`/proc` and others) are absent.
const MAKE_IMAGE: &str = r#"mkdir "$1".view
mount --bind "$1" "$1".view
trap 'umount "$1".view; rmdir "$1".view' EXIT
LD_LIBRARY_PATH="$CUDDY_MKE2FS_LIBRARIES" \
    "$CUDDY_MKE2FS" -q -t ext4 -L cuddy-debian -d "$1".view "$CUDDY_IMAGE" "$CUDDY_SIZE"
"#;

/// What is on a disk.
#[derive(Debug)]
pub(crate) struct DebianDisk {
    /// Begins the name of the image in the cache.
    pub(crate) name: &'static str,
    /// What it is, for a message.
    pub(crate) what: &'static str,
    /// Whether it is a system that starts: its packages are configured, and those that Debian calls essential
    /// are among them. Otherwise packages are unpacked.
    pub(crate) starts: bool,
    /// Packages, with commas between. What they depend on comes along.
    pub(crate) packages: &'static str,
    /// A shell script that finishes the file system `$1`.
    pub(crate) customize: &'static str,
    /// The disk's size, as mke2fs wants it. Its file has holes where nothing was written.
    pub(crate) size: &'static str,
}

impl DebianDisk {
    /// The image in the cache.
    ///
    /// # Errors
    ///
    /// When a package cannot be fetched, or mmdebstrap or mke2fs fails.
    pub(crate) fn image(&self, cache: &Cache) -> Result<PathBuf> {
        let recipe = digest(&[
            self.packages.as_bytes(),
            self.script().as_bytes(),
            self.size.as_bytes(),
        ]);
        cache.entry(&format!("{}-{recipe}.img", self.name), |new| {
            self.make(cache, new)
        })
    }

    fn script(&self) -> String {
        format!("{}{MAKE_IMAGE}", self.customize)
    }

    fn make(&self, cache: &Cache, image: &Path) -> Result<()> {
        let mmdebstrap = Program::find(cache, "mmdebstrap", "mmdebstrap")?;
        let mke2fs = Program::find(cache, "e2fsprogs", "mke2fs")?;
        let release = debian::host_release()?;
        let what = self.what;
        eprintln!("cuddy-lab: making a disk with {what}, of Debian {release}");
        let (variant, last) = match self.starts {
            true => ("essential", "customize"),
            false => ("extract", "extract"),
        };
        let mut command = mmdebstrap.command();
        command
            .arg(format!("--variant={variant}"))
            .arg("--format=null")
            .arg(format!("--include={}", self.packages))
            .args([
                "--aptopt=APT::Install-Recommends \"false\"",
                "--dpkgopt=force-unsafe-io",
            ])
            .arg(format!("--{last}-hook={}", self.script()))
            .arg(release)
            .env("CUDDY_MKE2FS", mke2fs.path())
            .env("CUDDY_MKE2FS_LIBRARIES", mke2fs.libraries())
            .env("CUDDY_IMAGE", image)
            .env("CUDDY_SIZE", self.size);
        output_of(&mut command)?;
        Ok(())
    }
}
