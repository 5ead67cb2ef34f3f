//! A disk with a Debian root file system: systemd, its network daemon, a login on the serial console.
//!
//! mmdebstrap makes the file system from Debian's packages, and mke2fs makes an ext4 image of it, so
//! that nothing is mounted on the host.

use std::path::{Path, PathBuf};

use crate::cache::{Cache, digest};
use crate::debian;
use crate::error::Result;
use crate::process::{Program, output_of};

const PACKAGES: &str = "systemd-sysv,udev,iproute2,login,passwd";

/// The disk's size. Its file has holes where nothing was written.
const SIZE: &str = "600M";

/// Sets the machine up: a network interface with the address that the lab's tests expect, root without
/// a password. `$1` is the new root file system. The image is made from a second view of it, in which
/// the mounts of mmdebstrap (`/proc` and others) are absent.
const CUSTOMIZE: &str = r#"
set -e
rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale
rm -rf "$1"/var/cache/apt "$1"/var/lib/apt/lists
mkdir -p "$1"/var/cache/apt/archives/partial "$1"/var/lib/apt/lists/partial
passwd --root "$1" --delete root
echo cuddy-debian > "$1"/etc/hostname
cat > "$1"/etc/systemd/network/10-virtio.network <<EOF
[Match]
Driver=virtio_net
[Network]
Address=10.77.0.2/24
IPv6AcceptRA=no
LinkLocalAddressing=no
EOF
ln -sf /lib/systemd/system/systemd-networkd.service \
    "$1"/etc/systemd/system/multi-user.target.wants/systemd-networkd.service
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer e2scrub_reap.service systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$1"/etc/systemd/system/$unit
done
mkdir "$1".view
mount --bind "$1" "$1".view
trap 'umount "$1".view; rmdir "$1".view' EXIT
LD_LIBRARY_PATH="$CUDDY_MKE2FS_LIBRARIES" \
    "$CUDDY_MKE2FS" -q -t ext4 -L cuddy-debian -d "$1".view "$CUDDY_IMAGE" "$CUDDY_SIZE"
"#;

/// The image of the disk, which is only to be read: give each machine its own copy.
///
/// # Errors
///
/// When a package cannot be fetched, or mmdebstrap or mke2fs fails.
pub fn root_disk(cache: &Cache) -> Result<PathBuf> {
    let recipe = digest(&[PACKAGES.as_bytes(), CUSTOMIZE.as_bytes(), SIZE.as_bytes()]);
    cache.entry(&format!("debian-{recipe}.img"), |new| make(cache, new))
}

fn make(cache: &Cache, image: &Path) -> Result<()> {
    let mmdebstrap = Program::find(cache, "mmdebstrap", "mmdebstrap")?;
    let mke2fs = Program::find(cache, "e2fsprogs", "mke2fs")?;
    let release = debian::host_release()?;
    eprintln!("cuddy-lab: making a disk with Debian {release} and systemd");
    let mut command = mmdebstrap.command();
    command
        .args(["--variant=essential", "--format=null"])
        .arg(format!("--include={PACKAGES}"))
        .args([
            "--aptopt=APT::Install-Recommends \"false\"",
            "--dpkgopt=force-unsafe-io",
        ])
        .arg(format!("--customize-hook={CUSTOMIZE}"))
        .arg(release)
        .env("CUDDY_MKE2FS", mke2fs.path())
        .env("CUDDY_MKE2FS_LIBRARIES", mke2fs.libraries())
        .env("CUDDY_IMAGE", image)
        .env("CUDDY_SIZE", SIZE);
    output_of(&mut command)?;
    Ok(())
}
