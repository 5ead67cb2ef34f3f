//! `cargo xtask`: the one door for developers.

mod fuzz;
mod guest_kernel;
mod lab;
mod layers;
mod step;
mod test;
mod workspace;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// What went wrong, for the developer.
type Failure = String;

/// Everything that a developer does with this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check and test everything: format, lints, documentation, layers, unit tests, bare guests on this
    /// host's KVM, and stock kernels on the host or in the lab.
    Test {
        /// Show what every step prints, not only what a failed one printed.
        #[arg(long)]
        verbose: bool,
        /// Instead: boot a stock kernel on this host's KVM, whatever kind it is. A software one takes
        /// many minutes.
        #[arg(long, conflicts_with = "verbose")]
        stock: bool,
    },
    /// Run the cases with stock kernels, or open a shell in the lab with `shell`.
    Lab {
        /// `shell`, or what the names of the wanted cases contain.
        filter: Option<String>,
        /// Arguments for the test program, such as --nocapture.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Fail on a dependency between crates that docs/architecture.md does not list.
    Layers,
    /// Boot Linux to its shell on this host: the tiny kernel where KVM is a software one, a stock Debian
    /// kernel where it is a hardware one.
    Demo,
    /// Build the tiny kernel (resources/guest-kernel) if it is not in the cache, and say where it is.
    GuestKernel {
        /// Run its tests on this host's KVM too.
        #[arg(long)]
        test: bool,
    },
    /// Run the benchmarks.
    Bench {
        /// Arguments for the benchmarks.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Give the targets of fuzz/ random input, and say which input ends one of them.
    Fuzz {
        /// One of them; all if left out.
        target: Option<String>,
        /// How long each runs.
        #[arg(long, value_name = "NUMBER", default_value_t = 300)]
        seconds: u64,
    },
    /// Fetch everything that the lab and the demo use, for work without a network.
    Assets,
}

fn main() -> ExitCode {
    let outcome = Workspace::find().and_then(|workspace| run(&workspace, &Arguments::parse().task));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(workspace: &Workspace, task: &Task) -> Result<(), Failure> {
    match task {
        Task::Test { stock: true, .. } => lab::stock_kernel(workspace),
        Task::Test { verbose, .. } => test::run(workspace, *verbose),
        Task::Lab { filter, arguments } if filter.as_deref() == Some("shell") => {
            refuse_arguments(arguments)?;
            lab::with_terminal(workspace, "shell")
        }
        Task::Lab { filter, arguments } => lab::cases(workspace, filter.as_deref(), arguments),
        Task::Layers => {
            layers::check(workspace)?;
            println!("every dependency between crates is one of docs/architecture.md");
            Ok(())
        }
        Task::Demo => lab::with_terminal(workspace, "demo"),
        Task::GuestKernel { test } => guest_kernel::run(workspace, *test),
        Task::Bench { arguments } => {
            let mut command = workspace.cargo("bench");
            run_to_end(command.args(["-p", "cuddy-benches"]).args(arguments))
        }
        Task::Fuzz { target, seconds } => fuzz::run(workspace, target.as_deref(), *seconds),
        Task::Assets => {
            run_to_end(&mut lab::build_lab(workspace))?;
            run_to_end(&mut lab::assets(workspace))
        }
    }
}

fn refuse_arguments(arguments: &[String]) -> Result<(), Failure> {
    match arguments {
        [] => Ok(()),
        _ => Err("`lab shell` takes no arguments".to_owned()),
    }
}

/// Runs `command` on this terminal.
fn run_to_end(command: &mut Command) -> Result<(), Failure> {
    let line = workspace::command_line(command);
    let status = command
        .status()
        .map_err(|error| format!("starting `{line}`: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{line}` failed: {status}"))
    }
}
