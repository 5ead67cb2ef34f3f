//! Interactive uses: a shell in the lab, and a Linux that boots to its shell.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::assets;
use crate::cache::Cache;
use crate::error::{Context, Result};
use crate::guest;
use crate::guest_kernel::GuestKernel;
use crate::host::{Place, has_kvm};
use crate::kernel::Kernel;
use crate::l1::{Connection, Job, Lab, quote};
use crate::tiny_guest::tiny_initrd;

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

/// Boots Linux with `cuddy` to its shell: a stock kernel where KVM runs kernels natively, the tiny kernel
/// where KVM is a software one. Without any KVM, the stock kernel boots in the lab.
///
/// # Errors
///
/// When a file cannot be fetched or made, or the machine or the lab cannot be started.
pub fn demo() -> Result<ExitCode> {
    let cache = Cache::open()?;
    if Place::detect()? == Place::Host {
        let kernel = Kernel::fetch(&cache)?;
        let initrd = guest::initrd(&cache, &kernel)?;
        return on_this_host(&stock_machine(
            &assets::cuddy()?,
            &kernel.vmlinuz(),
            &initrd,
        ));
    }
    if has_kvm() {
        eprintln!(
            "cuddy-lab: KVM on this host is a software one, on which a stock kernel takes very long: the \
             tiny kernel boots instead."
        );
        let kernel = GuestKernel::build(&cache)?;
        return on_this_host(&tiny_machine(
            &assets::cuddy()?,
            &kernel.vmlinux(),
            &tiny_initrd(&cache)?,
        ));
    }
    let inside = Lab::assets_inside();
    let words = stock_machine(&inside.cuddy, &inside.vmlinuz, &inside.initrd);
    let typed: Vec<_> = words.iter().map(|word| quote_if_needed(word)).collect();
    eprintln!("cuddy-lab: This host has no KVM that may be used (`cuddy check` says why).");
    eprintln!(
        "cuddy-lab: The machine runs in the lab instead: a Linux in QEMU's software CPU, slower"
    );
    eprintln!(
        "cuddy-lab: than a real one by far. In it: {}",
        typed.join(" ")
    );
    eprintln!("cuddy-lab: `poweroff -f` in the guest ends both.");
    let script = words
        .iter()
        .map(|word| quote(word))
        .collect::<Vec<_>>()
        .join(" ");
    in_terminal(&cache, &format!("{script}\n"))
}

/// Runs a machine on this terminal.
fn on_this_host(words: &[String]) -> Result<ExitCode> {
    let (program, arguments) = (&words[0], &words[1..]);
    let line: Vec<_> = words.iter().map(|word| quote_if_needed(word)).collect();
    eprintln!("cuddy-lab: {}", line.join(" "));
    eprintln!("cuddy-lab: `exit` in the guest turns it off, Ctrl-] leaves it at once.");
    let status = Command::new(program)
        .args(arguments)
        .status()
        .context(|| format!("starting {program}"))?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}

/// A machine with a stock kernel.
fn stock_machine(cuddy: &Path, kernel: &Path, initrd: &Path) -> Vec<String> {
    machine(cuddy, kernel, initrd, "2", "512M", "console=ttyS0 quiet")
}

/// A machine with the tiny kernel: small, for memory costs time at boot, and without the second processor,
/// whose start costs a second.
fn tiny_machine(cuddy: &Path, kernel: &Path, initrd: &Path) -> Vec<String> {
    machine(cuddy, kernel, initrd, "1", "64M", GuestKernel::CMDLINE)
}

fn machine(
    cuddy: &Path,
    kernel: &Path,
    initrd: &Path,
    cpus: &str,
    memory: &str,
    cmdline: &str,
) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    [
        &path(cuddy),
        "run",
        "--kernel",
        &path(kernel),
        "--initrd",
        &path(initrd),
        "--cpus",
        cpus,
        "--memory",
        memory,
        "--cmdline",
        cmdline,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A word as it would be typed.
fn quote_if_needed(word: &str) -> String {
    if word.contains(|character: char| character.is_whitespace()) {
        quote(word)
    } else {
        word.to_owned()
    }
}

fn in_terminal(cache: &Cache, script: &str) -> Result<ExitCode> {
    let lab = Lab::prepare(cache, &assets::cuddy()?, &[])?;
    let folder = tempfile::tempdir().context(|| "making a folder for the lab".to_owned())?;
    let disk = folder.path().join("job");
    let job = Job {
        programs: Vec::new(),
        script: script.to_owned(),
        processors: 1,
    };
    lab.write_job(&job, &disk)?;
    let status = lab
        .command(job.processors, &disk, Connection::Terminal)
        .status()
        .context(|| "starting QEMU".to_owned())?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
