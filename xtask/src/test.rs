//! `cargo xtask test`: everything that has to hold, cheap checks first.

use std::process::Command;

use crate::step::Steps;
use crate::workspace::Workspace;
use crate::{Failure, lab, layers};

/// Runs all steps; the first that fails ends the run.
pub(crate) fn run(workspace: &Workspace, verbose: bool) -> Result<(), Failure> {
    let steps = Steps::new(verbose);
    steps.quiet("format", &mut [cargo(workspace, "fmt --all --check")])?;
    steps.step("layers", || layers::check(workspace))?;
    steps.quiet("lints", &mut lints(workspace))?;
    let mut documentation = cargo(workspace, "doc --no-deps --workspace");
    documentation.env("RUSTDOCFLAGS", "-Dwarnings");
    steps.quiet("documentation", &mut [documentation])?;
    steps.quiet("build of cuddy", &mut [lab::build_cuddy(workspace)])?;
    steps.quiet("unit tests", &mut [unit_tests(workspace)])?;
    let doctests = cargo(workspace, "test --doc --workspace");
    steps.quiet("examples in documentation", &mut [doctests])?;
    steps.quiet("bare guests", &mut [bare_guests(workspace)])?;
    steps.quiet("build of the lab", &mut [lab::build_lab(workspace)])?;
    steps.quiet("assets of the lab", &mut [lab::assets(workspace)])?;
    let cases = lab::case_command(workspace, None, &[]);
    steps.shown("stock kernels", &mut [cases])?;
    steps.finish();
    Ok(())
}

/// Lints of everything, with the tests that boot kernels, which are no default targets.
fn lints(workspace: &Workspace) -> [Command; 2] {
    [
        cargo(workspace, "clippy --workspace --all-targets -- -D warnings"),
        cargo(
            workspace,
            "clippy -p cuddy-lab --test cases --test tiny_kernel --test stock -- -D warnings",
        ),
    ]
}

/// All tests that need no machine.
fn unit_tests(workspace: &Workspace) -> Command {
    test_command(workspace, "--workspace --exclude cuddy-tests")
}

/// The guests of our own, on this host's KVM, whatever it is.
fn bare_guests(workspace: &Workspace) -> Command {
    let mut command = test_command(workspace, "-p cuddy-tests");
    command.env("CUDDY_BIN", lab::cuddy(workspace));
    command
}

/// With nextest where it is installed, which runs tests of all crates side by side.
fn test_command(workspace: &Workspace, selection: &str) -> Command {
    if workspace.has_subcommand("nextest") {
        cargo(
            workspace,
            &format!("nextest run --no-fail-fast --no-tests pass {selection}"),
        )
    } else {
        cargo(
            workspace,
            &format!("test --no-fail-fast --lib --bins --tests {selection}"),
        )
    }
}

fn cargo(workspace: &Workspace, line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = workspace.cargo(words.next().unwrap_or_default());
    command.args(words);
    command
}
