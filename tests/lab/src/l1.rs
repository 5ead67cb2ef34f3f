//! The lab's own Linux, "L1": Debian's cloud kernel in QEMU's software CPU, which implements AMD's SVM
//! with nested paging, so that kvm_amd serves /dev/kvm in it.
//!
//! Its initramfs has two parts: one that never changes and is cached, with busybox, drivers and the
//! kernels of the guests, and a small one with what is run. The disk of [`Assets::root_disk`] is its
//! first disk; QEMU throws away what is written to it.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::assets::Assets;
use crate::busybox::{self, Busybox};
use crate::cache::{Cache, digest};
use crate::error::{Context, Result};
use crate::guest;
use crate::host::Place;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::program_files;
use crate::qemu::Qemu;
use crate::root_disk::root_disk;

const INIT: &str = include_str!("../../../resources/guest-init/lab.sh");

/// What KVM and TAP need, and QEMU's devices for the output and the disk.
const DRIVERS: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "kvm_amd",
    "tun",
];

const MEMORY: &str = "3072";

// Where the files of a case are in L1.
const VMLINUZ: &str = "/lab/vmlinuz";
const VMLINUX: &str = "/lab/vmlinux";
const INITRD: &str = "/lab/initrd";
const CUDDY: &str = "/lab/cuddy";
const ROOT_DISK: &str = "/dev/vda";

/// What L1 runs.
#[derive(Debug, Clone)]
pub struct Job {
    /// Programs of the host to copy, each with its path in L1. Their shared libraries come along.
    pub programs: Vec<(PathBuf, String)>,
    /// A shell script.
    pub script: String,
    /// Processors of L1. One, for what can do with it: QEMU runs several on threads of their own, and one of them
    /// was seen (versions 7.2 and 11.1) to stand in HLT for ever, its local APIC full of interrupts, RFLAGS.IF
    /// set, and the global interrupt flag of SVM clear (AMD APM volume 2, 15.17), which L1's kernel sets behind
    /// each VMRUN. What ran there, the machine or its test, stood still with it.
    pub processors: u8,
}

/// How the job is connected to the host.
#[derive(Debug, Clone, Copy)]
pub enum Connection<'a> {
    /// Its input and output are the terminal of this process.
    Terminal,
    /// Its output goes to one Unix socket, life signs and exit status to another; both listen. The
    /// messages of the kernel go to a file.
    Sockets {
        /// Gets what the job writes.
        output: &'a Path,
        /// Gets the lines of `resources/guest-init/lab.sh`.
        control: &'a Path,
        /// Gets the console of the kernel.
        console: &'a Path,
    },
}

/// Everything to start an L1.
#[derive(Debug, Clone)]
pub struct Lab {
    qemu: Qemu,
    kernel: PathBuf,
    base: PathBuf,
    initrd: PathBuf,
    cuddy: PathBuf,
    root_disk: Option<PathBuf>,
}

/// Fetches and makes everything for the lab and its cases, so that they need no network.
///
/// # Errors
///
/// When a package cannot be fetched or a file cannot be made.
pub fn prefetch(cache: &Cache) -> Result<()> {
    let kernel = Kernel::fetch(cache)?;
    guest::initrd(cache, &kernel)?;
    base_initramfs(cache, &kernel)?;
    if Place::detect()? == Place::Lab {
        Qemu::find(cache)?;
    }
    root_disk(cache)?;
    Ok(())
}

impl Lab {
    /// Fetches and makes what an L1 needs in which the program `cuddy` is run. `root_disk` becomes its
    /// first disk.
    ///
    /// # Errors
    ///
    /// When a package cannot be fetched or a file cannot be made.
    pub fn prepare(cache: &Cache, cuddy: &Path, root_disk: Option<&Path>) -> Result<Self> {
        let kernel = Kernel::fetch(cache)?;
        Ok(Self {
            qemu: Qemu::find(cache)?,
            base: base_initramfs(cache, &kernel)?,
            initrd: guest::initrd(cache, &kernel)?,
            kernel: kernel.vmlinuz(),
            cuddy: cuddy.to_owned(),
            root_disk: root_disk.map(Path::to_owned),
        })
    }

    /// The files of a case, as L1 has them.
    pub fn assets_inside() -> Assets {
        Assets {
            cuddy: CUDDY.into(),
            vmlinuz: VMLINUZ.into(),
            vmlinux: VMLINUX.into(),
            initrd: INITRD.into(),
            root_disk: ROOT_DISK.into(),
        }
    }

    /// Writes the initramfs for `job` to `path`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub fn write_initramfs(&self, job: &Job, path: &Path) -> Result<()> {
        fs::copy(&self.base, path).context(|| format!("writing {}", path.display()))?;
        let file = File::options()
            .append(true)
            .open(path)
            .context(|| format!("opening {}", path.display()))?;
        let mut archive = Initramfs::new(BufWriter::new(file));
        let cuddy = (self.cuddy.clone(), CUDDY.to_owned());
        archive.copy(INITRD, 0o644, &self.initrd)?;
        for (program, inside) in job.programs.iter().chain([&cuddy]) {
            archive.copy(inside, 0o755, program)?;
            for library in program_files::libraries(program)? {
                archive.copy(&library.display().to_string(), 0o755, &library)?;
            }
        }
        archive.file("lab/command", 0o755, job.script.as_bytes())?;
        archive.finish()?;
        Ok(())
    }

    /// The command that runs an L1 of `processors` with the initramfs at `initramfs`. It ends when L1 does; the kernel
    /// ends it on a panic and when a CPU locks up.
    pub fn command(&self, processors: u8, initramfs: &Path, connection: Connection<'_>) -> Command {
        let mut command = self.qemu.command();
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max,+svm,+npt"])
            .args(["-m", MEMORY, "-smp", &processors.to_string()])
            .args(["-nodefaults", "-display", "none"])
            .args(["-no-reboot", "-nic", "none"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args([
                "-append",
                "console=ttyS0 quiet panic=-1 softlockup_panic=1 mitigations=off",
            ]);
        if let Some(image) = &self.root_disk {
            command.arg("-drive").arg(drive(image));
        }
        connect(&mut command, connection);
        command
    }
}

fn drive(image: &Path) -> String {
    let image = escape(image);
    format!("file={image},format=raw,if=virtio,snapshot=on,file.locking=off")
}

fn connect(command: &mut Command, connection: Connection<'_>) {
    let Connection::Sockets {
        output,
        control,
        console,
    } = connection
    else {
        command
            .args(["-chardev", "stdio,id=terminal,signal=off"])
            .args(["-serial", "chardev:terminal"]);
        return;
    };
    command
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-device", "virtio-serial-pci"]);
    for (name, path, number) in [("output", output, 1), ("control", control, 2)] {
        command
            .arg("-chardev")
            .arg(format!("socket,id={name},path={}", escape(path)))
            .arg("-device")
            .arg(format!("virtserialport,chardev={name},nr={number}"));
    }
}

/// A comma ends a value in QEMU's options, unless it is doubled.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn base_initramfs(cache: &Cache, kernel: &Kernel) -> Result<PathBuf> {
    let recipe = digest(&[
        INIT.as_bytes(),
        DRIVERS.join(" ").as_bytes(),
        busybox::RECIPE,
    ]);
    cache.entry(&format!("lab-{recipe}.cpio"), |new| {
        let busybox = Busybox::fetch(cache)?;
        let file = File::create(new).context(|| format!("making {}", new.display()))?;
        let mut archive = Initramfs::new(BufWriter::new(file));
        busybox.add_to(&mut archive)?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        guest::add_modules(&mut archive, &kernel.modules()?.with_dependencies(DRIVERS)?)?;
        archive.copy(VMLINUZ, 0o644, &kernel.vmlinuz())?;
        archive.copy(VMLINUX, 0o644, &kernel.vmlinux())?;
        archive.finish()?;
        Ok(())
    })
}

/// Quotes `word` for a shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
