//! The lab's own Linux, "L1": Debian's cloud kernel in QEMU's software CPU, which implements AMD's SVM
//! with nested paging, so that kvm_amd serves /dev/kvm in it.
//!
//! Its initramfs never changes and is cached, with busybox, drivers and the kernels of the guests. What is run
//! comes as an archive on its first disk, the job's; the disks of [`Assets`] come behind it, and QEMU
//! throws away what is written there. So an L1 that has booted can be saved, once, and every job begins in a copy
//! of it ([`crate::supervisor`]).

use std::ffi::OsString;
use std::fs::File;
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
use crate::tools_disk::tools_disk;

const INIT: &str = include_str!("../../../resources/guest-init/lab.sh");

/// Part of the name of a saved L1: another one for each change of its devices.
const REVISION: u32 = 2;

/// What KVM and TAP need, QEMU's devices for the output and the disks, disks with queues that are polled, and what
/// cases make disks that fail of.
const DRIVERS: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "kvm_amd",
    "tun",
    "null_blk",
    "loop",
    "dm_mod",
];

const MEMORY: &str = "3072";

// Where the files of a case are in L1.
const VMLINUZ: &str = "/lab/vmlinuz";
const VMLINUX: &str = "/lab/vmlinux";
const INITRD: &str = "/lab/initrd";
const CUDDY: &str = "/lab/cuddy";
const ROOT_DISK: &str = "/dev/vdb";
const TOOLS_DISK: &str = "/dev/vdc";
/// Where the first of those disks is on QEMU's bus.
const DISKS_AT: usize = 0x11;

/// Bytes of the job's disk, whatever is on it: a disk does not change its size between save and load. Nothing is
/// kept of what no archive fills.
const JOB_SIZE: u64 = 1 << 30;

/// What L1 runs.
#[derive(Debug, Clone)]
pub struct Job {
    /// Programs of the host to copy, each with its path in L1. Their shared libraries come along.
    pub programs: Vec<(PathBuf, String)>,
    /// A shell script, run in root's home.
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
    /// What QEMU says of its version.
    version: String,
    kernel: PathBuf,
    base: PathBuf,
    initrd: PathBuf,
    cuddy: PathBuf,
    disks: Vec<PathBuf>,
    cache: Cache,
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
    tools_disk(cache)?;
    Ok(())
}

impl Lab {
    /// Fetches and makes what an L1 needs in which the program `cuddy` is run. Behind the job's disk it has
    /// `disks`.
    ///
    /// # Errors
    ///
    /// When a package cannot be fetched or a file cannot be made.
    pub fn prepare(cache: &Cache, cuddy: &Path, disks: &[&Path]) -> Result<Self> {
        let kernel = Kernel::fetch(cache)?;
        let qemu = Qemu::find(cache)?;
        Ok(Self {
            version: qemu.version()?,
            qemu,
            base: base_initramfs(cache, &kernel)?,
            initrd: guest::initrd(cache, &kernel)?,
            // Nobody has to decompress it, and QEMU enters it by its PVH note.
            kernel: kernel.vmlinux(),
            cache: cache.clone(),
            cuddy: cuddy.to_owned(),
            disks: disks.iter().map(|disk| disk.to_path_buf()).collect(),
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
            tools_disk: TOOLS_DISK.into(),
        }
    }

    /// Writes the disk of `job` to `path`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub fn write_job(&self, job: &Job, path: &Path) -> Result<()> {
        let mut archive = Initramfs::new(BufWriter::new(new_job_disk(path)?));
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

    /// The command that runs an L1 of `processors` with the job's disk at `job`. It ends when L1 does; the kernel
    /// ends it on a panic and when a CPU locks up.
    pub fn command(&self, processors: u8, job: &Path, connection: Connection<'_>) -> Command {
        let mut command = self.qemu.command();
        command.args(self.machine(processors));
        command
            .arg("-drive")
            .arg(format!("{},if=none,id=job", drive(job)))
            .args(["-device", "virtio-blk-pci,drive=job,addr=10"]);
        for (number, image) in self.disks.iter().enumerate() {
            let (image, address) = (drive(image), DISKS_AT + number);
            command
                .arg("-drive")
                .arg(format!("{image},if=none,id=disk{number},snapshot=on"))
                .arg("-device")
                .arg(format!(
                    "virtio-blk-pci,drive=disk{number},addr={address:x}"
                ));
        }
        connect(&mut command, connection);
        command
    }

    /// What all labs of `processors` have in common: QEMU's arguments but for disks and connections.
    fn machine(&self, processors: u8) -> Vec<OsString> {
        let processors = processors.to_string();
        let mut words: Vec<OsString> = [
            ["-accel", "tcg,thread=multi"],
            ["-cpu", "max,+svm,+npt"],
            ["-m", MEMORY],
            ["-smp", &processors],
            ["-display", "none"],
            ["-nic", "none"],
            [
                "-append",
                "console=ttyS0 quiet panic=-1 softlockup_panic=1 mitigations=off",
            ],
        ]
        .concat()
        .into_iter()
        .map(OsString::from)
        .collect();
        words.extend(["-nodefaults", "-no-reboot", "-kernel"].map(OsString::from));
        words.push(self.kernel.clone().into());
        words.push("-initrd".into());
        words.push(self.base.clone().into());
        words
    }

    /// The saved state of an L1 of `processors` that has booted and waits for its job; `save` makes it when the
    /// cache has none.
    ///
    /// # Errors
    ///
    /// Those of `save`.
    pub(crate) fn booted(
        &self,
        processors: u8,
        save: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let words = (self.machine(processors), &self.disks, REVISION);
        let recipe = digest(&[format!("{words:?}").as_bytes(), self.version.as_bytes()]);
        self.cache.entry(&format!("lab-{recipe}.state"), save)
    }
}

/// An empty disk for a job.
pub(crate) fn new_job_disk(path: &Path) -> Result<File> {
    let what = || format!("writing {}", path.display());
    let file = File::create(path).context(what)?;
    file.set_len(JOB_SIZE).context(what)?;
    Ok(file)
}

fn drive(image: &Path) -> String {
    let image = escape(image);
    format!("file={image},format=raw,file.locking=off")
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
