//! A disk with programs of Debian's, which cases run in their guests and beside them.

use std::path::PathBuf;

use crate::cache::Cache;
use crate::debian_disk::DebianDisk;
use crate::error::Result;

const PACKAGES: &str = "dmsetup,fio,kexec-tools,pciutils,qemu-utils";

const SIZE: &str = "400M";

/// Leaves what the programs need to run in a `chroot`, whose `/dev` and the like are mounted there.
const CUSTOMIZE: &str = r#"
set -e
rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/lib/python*
rm -rf "$1"/var/cache/apt "$1"/var/lib/apt/lists
mkdir -p "$1"/dev "$1"/proc "$1"/sys "$1"/tmp "$1"/mnt
mkdir -p "$1"/var/cache/apt/archives/partial "$1"/var/lib/apt/lists/partial
"#;

/// The image of the disk, which is only to be read. No package is configured on it.
///
/// # Errors
///
/// When a package cannot be fetched, or mmdebstrap or mke2fs fails.
pub fn tools_disk(cache: &Cache) -> Result<PathBuf> {
    let disk = DebianDisk {
        name: "tools",
        what: "programs for the cases",
        starts: false,
        packages: PACKAGES,
        customize: CUSTOMIZE,
        size: SIZE,
    };
    disk.image(cache)
}
