//! A disk with a Debian root file system: systemd, its network daemon, a login on the serial console.

use std::path::PathBuf;

use crate::cache::Cache;
use crate::debian_disk::DebianDisk;
use crate::error::Result;

const PACKAGES: &str = "systemd-sysv,udev,iproute2,login,passwd";

/// The disk's size. Its file has holes where nothing was written.
const SIZE: &str = "600M";

/// Sets the machine up: a network interface with the address that the lab's tests expect, root without
/// a password. `$1` is the new root file system.
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
"#;

/// The image of the disk, which is only to be read: give each machine its own copy.
///
/// # Errors
///
/// When a package cannot be fetched, or mmdebstrap or mke2fs fails.
pub fn root_disk(cache: &Cache) -> Result<PathBuf> {
    let disk = DebianDisk {
        name: "debian",
        what: "Debian and systemd",
        starts: true,
        packages: PACKAGES,
        customize: CUSTOMIZE,
        size: SIZE,
    };
    disk.image(cache)
}
