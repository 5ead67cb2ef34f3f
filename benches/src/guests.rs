//! The bare guests, built by their own workspace.

use std::path::{Path, PathBuf};

use crate::Failure;
use crate::programs::{cargo, run_to_end};

/// The bare guests' files.
#[derive(Debug)]
pub(crate) struct Guests {
    /// Writes `!` to COM1 and resets the machine.
    pub(crate) first: PathBuf,
    /// Does what its command line says.
    pub(crate) suite: PathBuf,
}

impl Guests {
    pub(crate) fn build(workspace: &Path, target: &Path) -> Result<Self, Failure> {
        let target = target.join("guests");
        let mut command = cargo("build");
        command
            .args(["--release", "--quiet", "--bins"])
            .current_dir(workspace.join("tests/guests"))
            .env("CARGO_TARGET_DIR", &target);
        run_to_end(&mut command)?;
        Ok(Self {
            first: target.join("release/first"),
            suite: target.join("release/suite"),
        })
    }
}
