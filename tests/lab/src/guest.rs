//! The initrd of the small guests: busybox, the virtio drivers, and `resources/guest-init/guest.sh`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use crate::busybox::{self, Busybox};
use crate::cache::{Cache, digest};
use crate::error::{Context, Result};
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::modules::Module;

const INIT: &str = include_str!("../../../resources/guest-init/guest.sh");

/// Drivers for what the machine offers to its guest.
const DRIVERS: &[&str] = &[
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "pvpanic",
    "pvpanic_mmio",
    "vmw_vsock_virtio_transport",
];

/// The initrd for guests with `kernel`.
///
/// # Errors
///
/// When busybox cannot be fetched, or the host's files cannot be read or written.
pub fn initrd(cache: &Cache, kernel: &Kernel) -> Result<PathBuf> {
    let recipe = digest(&[
        INIT.as_bytes(),
        DRIVERS.join(" ").as_bytes(),
        busybox::RECIPE,
    ]);
    cache.entry(&format!("guest-{recipe}.cpio"), |new| {
        let busybox = Busybox::fetch(cache)?;
        let file = File::create(new).context(|| format!("making {}", new.display()))?;
        let mut archive = Initramfs::new(BufWriter::new(file));
        busybox.add_to(&mut archive)?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        add_modules(&mut archive, &kernel.modules()?.with_dependencies(DRIVERS)?)?;
        archive.finish()?;
        Ok(())
    })
}

/// Adds modules to `/lib/modules` and their names, in the order of insertion, to `/etc/modules`.
pub(crate) fn add_modules<W: Write>(archive: &mut Initramfs<W>, modules: &[Module]) -> Result<()> {
    let mut names = String::new();
    for module in modules {
        let path = format!("lib/modules/{}.ko", module.name);
        archive.file(&path, 0o644, &module.object)?;
        names.push_str(&module.name);
        names.push('\n');
    }
    archive.file("etc/modules", 0o644, names.as_bytes())
}
