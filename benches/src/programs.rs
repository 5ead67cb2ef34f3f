//! Everything that is run, built or fetched.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use cuddy_lab::{Cache, Program};
use cuddy_tests::guests;

use crate::Failure;

/// The version of alioth that is measured.
const ALIOTH_VERSION: &str = "0.12.0";

/// This package's own programs.
#[derive(Debug)]
pub struct OwnPrograms {
    /// `bare`.
    pub bare: PathBuf,
    /// `until-line`.
    pub until_line: PathBuf,
}

/// All programs that take part.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) bare: PathBuf,
    pub(crate) until_line: PathBuf,
    /// As it is released.
    pub(crate) cuddy: PathBuf,
    /// QEMU for x86-64; or why there is none.
    pub(crate) qemu: Result<Program, String>,
    /// alioth; or why there is none.
    pub(crate) alioth: Result<PathBuf, String>,
    /// The bare guest that writes `!` to COM1 and resets the machine.
    pub(crate) first: PathBuf,
    /// The bare guest that does what its command line says.
    pub(crate) suite: PathBuf,
    pub(crate) cache: Cache,
}

impl Programs {
    /// Builds what is ours, fetches what is not.
    pub(crate) fn prepare(own: &OwnPrograms) -> Result<Self, Failure> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()?;
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace.join("target"), |path| workspace.join(path))
            .join("benchmarks");
        let cache = Cache::open()?;
        Ok(Self {
            bare: own.bare.clone(),
            until_line: own.until_line.clone(),
            cuddy: build_cuddy(&workspace, &target)?,
            qemu: Program::find(&cache, "qemu-system-x86", "qemu-system-x86_64")
                .map_err(|error| error.to_string()),
            alioth: install_alioth(&target).map_err(|error| error.to_string()),
            first: guests::path(guests::FIRST),
            suite: guests::path(guests::SUITE),
            cache,
        })
    }
}

/// fio, the host's or Debian's; or why there is none.
pub(crate) fn find_fio(cache: &Cache) -> Result<Program, String> {
    Program::find(cache, "fio", "fio").map_err(|error| error.to_string())
}

/// A Cargo command that knows nothing of the one that runs us.
fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
}

/// Runs `command`, whose messages the user sees.
fn run_to_end(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().display().to_string();
    let status = command
        .status()
        .map_err(|error| format!("starting {program}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program} failed: {status}").into())
    }
}

fn build_cuddy(workspace: &Path, target: &Path) -> Result<PathBuf, Failure> {
    let mut command = cargo("build");
    command
        .args(["--release", "--quiet", "-p", "cli", "--bin", "cuddy"])
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", target);
    run_to_end(&mut command)?;
    Ok(target.join("release/cuddy"))
}

/// Installs alioth from crates.io, once.
fn install_alioth(target: &Path) -> Result<PathBuf, Failure> {
    let root = target.join("alioth");
    let program = root.join("bin/alioth");
    if !program.is_file() {
        let mut command = cargo("install");
        command
            .args(["--quiet", "--locked", "--version", ALIOTH_VERSION, "--root"])
            .arg(&root)
            .arg("alioth-cli")
            .env("CARGO_TARGET_DIR", target);
        run_to_end(&mut command)?;
    }
    Ok(program)
}
