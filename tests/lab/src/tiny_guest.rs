//! The initrd for guests with the tiny kernel: busybox under a few of its names, and
//! `resources/guest-kernel/init.sh`.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use crate::busybox::{self, Busybox};
use crate::cache::{Cache, digest};
use crate::error::{Context, Result};
use crate::initramfs::Initramfs;

const INIT: &str = include_str!("../../../resources/guest-kernel/init.sh");

/// What the init and the tests use, and a user of the demo first asks for. Each name is a file that the
/// guest's kernel has to make; `busybox NAME` runs all others.
const PROGRAMS: &[&str] = &[
    "cat",
    "cp",
    "cttyhack",
    "cut",
    "dd",
    "df",
    "dmesg",
    "echo",
    "free",
    "grep",
    "head",
    "ip",
    "ls",
    "mkdir",
    "mount",
    "nc",
    "nproc",
    "ping",
    "poweroff",
    "ps",
    "reboot",
    "rm",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sync",
    "tail",
    "top",
    "umount",
    "uname",
    "vi",
    "wc",
];

/// The initrd for guests with the tiny kernel.
///
/// # Errors
///
/// When busybox cannot be fetched, or the host's files cannot be read or written.
pub fn tiny_initrd(cache: &Cache) -> Result<PathBuf> {
    let recipe = digest(&[
        INIT.as_bytes(),
        PROGRAMS.join(" ").as_bytes(),
        busybox::RECIPE,
    ]);
    cache.entry(&format!("tiny-guest-{recipe}.cpio"), |new| {
        let busybox = Busybox::fetch(cache)?;
        let file = File::create(new).context(|| format!("making {}", new.display()))?;
        let mut archive = Initramfs::new(BufWriter::new(file));
        busybox.add_few_to(&mut archive, PROGRAMS)?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        archive.finish()?;
        Ok(())
    })
}
