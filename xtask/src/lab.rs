//! The lab's program and the cases with stock kernels.

use std::path::PathBuf;
use std::process::Command;

use crate::workspace::Workspace;
use crate::{Failure, run_to_end};

/// The profile of the `cuddy` that cases run: that of a release, made in half the time.
const PROFILE: &str = "test-release";

/// The command that builds the `cuddy` that cases run.
pub(crate) fn build_cuddy(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo("build");
    command.args(["--profile", PROFILE, "-p", "cli", "--bin", "cuddy"]);
    command
}

/// Where [`build_cuddy`] puts it; `CUDDY_BIN` names another one.
pub(crate) fn cuddy(workspace: &Workspace) -> PathBuf {
    std::env::var_os("CUDDY_BIN").map_or_else(
        || workspace.target().join(PROFILE).join("cuddy"),
        PathBuf::from,
    )
}

/// A command of the lab's program, which has to be built.
fn program(workspace: &Workspace, action: &str) -> Command {
    let mut command = Command::new(lab(workspace));
    command
        .arg(action)
        .env("CUDDY_LAB_CACHE", cache(workspace))
        .env("CUDDY_BIN", cuddy(workspace));
    command
}

/// The command that fetches and makes what the lab uses, after its program was built.
pub(crate) fn assets(workspace: &Workspace) -> Command {
    program(workspace, "assets")
}

/// The command that builds the tiny kernel, or finds it in the cache, and prints where it is.
pub(crate) fn guest_kernel(workspace: &Workspace) -> Command {
    program(workspace, "guest-kernel")
}

/// The command that boots the tiny kernel on this host's KVM, whatever kind it is.
pub(crate) fn tiny_kernel_tests(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo("test");
    command
        .args(["--quiet", "-p", "cuddy-lab", "--test", "tiny_kernel"])
        .env("CUDDY_LAB_CACHE", cache(workspace))
        .env("CUDDY_BIN", cuddy(workspace));
    command
}

/// Builds everything and boots the stock kernel on this host's KVM, whatever kind it is.
pub(crate) fn stock_kernel(workspace: &Workspace) -> Result<(), Failure> {
    let mut command = workspace.cargo("test");
    command
        .args(["-p", "cuddy-lab", "--test", "stock"])
        .args(["--", "--test-threads=1", "--nocapture"])
        .env("CUDDY_LAB_CACHE", cache(workspace))
        .env("CUDDY_BIN", cuddy(workspace));
    run_to_end(&mut build_cuddy(workspace))?;
    run_to_end(&mut command)
}

/// The command that builds the lab's program.
pub(crate) fn build_lab(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo("build");
    command.args(["--quiet", "-p", "cuddy-lab", "--bin", "cuddy-lab"]);
    command
}

/// The command that runs the cases whose names contain `filter`, after everything was built.
pub(crate) fn case_command(
    workspace: &Workspace,
    filter: Option<&str>,
    arguments: &[String],
) -> Command {
    let lab = lab(workspace).display().to_string();
    // JSON's strings are TOML's as well.
    let runner = serde_json::json!([lab, "run", "--"]);
    let mut command = workspace.cargo("test");
    command
        .args(["--quiet", "-p", "cuddy-lab", "--test", "cases"])
        .arg("--config")
        .arg(format!(
            "target.'cfg(target_os = \"linux\")'.runner={runner}"
        ))
        .arg("--")
        .args(filter)
        .args(arguments)
        .env("CUDDY_LAB_CACHE", cache(workspace))
        .env("CUDDY_BIN", cuddy(workspace));
    command
}

/// Builds everything and runs the cases.
pub(crate) fn cases(
    workspace: &Workspace,
    filter: Option<&str>,
    arguments: &[String],
) -> Result<(), Failure> {
    run_to_end(&mut build_cuddy(workspace))?;
    run_to_end(&mut build_lab(workspace))?;
    run_to_end(&mut case_command(workspace, filter, arguments))
}

/// Builds everything and gives the terminal to the lab's `action`.
pub(crate) fn with_terminal(workspace: &Workspace, action: &str) -> Result<(), Failure> {
    run_to_end(&mut build_cuddy(workspace))?;
    run_to_end(&mut build_lab(workspace))?;
    run_to_end(&mut program(workspace, action))
}

fn lab(workspace: &Workspace) -> PathBuf {
    workspace.target().join("debug/cuddy-lab")
}

fn cache(workspace: &Workspace) -> PathBuf {
    std::env::var_os("CUDDY_LAB_CACHE")
        .map_or_else(|| workspace.target().join("lab"), PathBuf::from)
}
