//! Interactive uses of the lab: a shell in L1, and a stock kernel that boots to its shell.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::assets;
use crate::cache::Cache;
use crate::error::{Context, Result};
use crate::guest;
use crate::host::Place;
use crate::kernel::Kernel;
use crate::l1::{Connection, Job, Lab, quote};

/// Opens a shell in the lab.
///
/// # Errors
///
/// When the lab cannot be made or started.
pub fn shell() -> Result<ExitCode> {
    let cache = Cache::open()?;
    eprintln!("cuddy-lab: starting the lab; `poweroff -f` ends it");
    in_terminal(&cache, "exec sh -l\n")
}

/// Boots a stock kernel with `cuddy` to its shell: on the host where its KVM runs kernels natively, or
/// in the lab.
///
/// # Errors
///
/// When a file cannot be fetched or made, or the machine or the lab cannot be started.
pub fn demo() -> Result<ExitCode> {
    let cache = Cache::open()?;
    if Place::detect()? == Place::Host {
        let kernel = Kernel::fetch(&cache)?;
        let initrd = guest::initrd(&cache, &kernel)?;
        let words = machine(&assets::cuddy()?, &kernel.vmlinuz(), &initrd);
        eprintln!("cuddy-lab: {}", words.join(" "));
        let status = Command::new(&words[0])
            .args(&words[1..])
            .status()
            .context(|| format!("starting {}", words[0]))?;
        return Ok(ExitCode::from(
            status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
        ));
    }
    let inside = Lab::assets_inside();
    let words = machine(&inside.cuddy, &inside.vmlinuz, &inside.initrd);
    eprintln!(
        "cuddy-lab: KVM on this host is missing or is a software one, which cannot run a stock kernel."
    );
    eprintln!(
        "cuddy-lab: The machine runs in the lab instead: a Linux in QEMU's software CPU, slower"
    );
    eprintln!(
        "cuddy-lab: than a real one by far. In it: {}",
        words.join(" ")
    );
    eprintln!("cuddy-lab: `poweroff -f` in the guest ends both.");
    let script = words
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ");
    in_terminal(&cache, &format!("{script}\n"))
}

/// The demo's machine.
fn machine(cuddy: &Path, kernel: &Path, initrd: &Path) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    [
        &path(cuddy),
        "run",
        "--kernel",
        &path(kernel),
        "--initrd",
        &path(initrd),
        "--cpus",
        "2",
        "--memory",
        "512M",
        "--cmdline",
        "console=ttyS0 quiet",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn in_terminal(cache: &Cache, script: &str) -> Result<ExitCode> {
    let lab = Lab::prepare(cache, &assets::cuddy()?, None)?;
    let folder = tempfile::tempdir().context(|| "making a folder for the lab".to_owned())?;
    let initramfs = folder.path().join("initramfs");
    let job = Job {
        programs: Vec::new(),
        script: script.to_owned(),
        processors: 1,
    };
    lab.write_initramfs(&job, &initramfs)?;
    let status = lab
        .command(job.processors, &initramfs, Connection::Terminal)
        .status()
        .context(|| "starting QEMU".to_owned())?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
