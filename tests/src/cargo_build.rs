//! Builds what tests run, when they run it.
//!
//! Cargo knows what is up to date and lets one build at a time into a target directory, so that tests in
//! many processes may all ask. `CUDDY_BIN` and `CUDDY_GUESTS` name what was built before, and save that.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `cuddy` binary: the one that `CUDDY_BIN` names, or this workspace's, in the profile of which the
/// optimised build is quick.
///
/// # Panics
///
/// When it cannot be built.
pub fn cuddy() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("CUDDY_BIN") {
            return path.into();
        }
        let directory = target_directory();
        build(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
            &directory,
            &["--package", "cli", "--profile", "test-release"],
        );
        directory.join("test-release/cuddy")
    })
}

/// Where the freestanding workspace's programs are, built.
pub(crate) fn guests() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        if let Some(path) = env::var_os("CUDDY_GUESTS") {
            return path.into();
        }
        let directory = target_directory().join("guests");
        build(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/guests")),
            &directory,
            &["--release", "--offline", "--locked"],
        );
        directory.join("release")
    })
}

/// The workspace's target directory: this program is in `<target>/<profile>/deps`.
fn target_directory() -> PathBuf {
    let program = env::current_exe().expect("the path of this program");
    program
        .ancestors()
        .nth(3)
        .expect("a program in a target directory")
        .to_owned()
}

fn build(workspace: &Path, target_directory: &Path, arguments: &[&str]) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .arg("build")
        .arg("--quiet")
        .args(arguments)
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", target_directory)
        // Flags for the tests are not flags for a freestanding program, whose own configuration rules.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "cargo build {arguments:?} in {}: {}",
        workspace.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}
