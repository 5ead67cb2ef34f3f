//! `cuddy-lab`: prepares the lab, runs test programs in it, opens a shell in it, shows the demo.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cuddy_lab::{Cache, GuestKernel, LabError, demo, prefetch, runner, tiny_initrd};

/// A Linux with a hardware KVM, in a software CPU where the host has none.
#[derive(Debug, Parser)]
#[command(name = "cuddy-lab")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch and make everything that the lab and its cases use.
    Assets,
    /// Run a test program: on the host where its KVM runs kernels natively, or in the lab. This is
    /// what Cargo's setting `runner` asks for.
    Run {
        /// The test program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
    /// Open a shell in the lab, with `cuddy`, the kernels and the initrd in /lab.
    Shell,
    /// Boot the tiny kernel to its shell on a software KVM, a stock kernel on a hardware one.
    Demo,
    /// Build the tiny kernel and print where it and its initrd are.
    GuestKernel,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cuddy-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: &Action) -> Result<ExitCode, LabError> {
    match action {
        Action::Assets => {
            prefetch(&Cache::open()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Run { words } => {
            let (program, arguments) = words.split_first().map_or_else(
                || (PathBuf::new(), Vec::new()),
                |(program, rest)| (PathBuf::from(program), rest.to_vec()),
            );
            runner::run(&program, &arguments)
        }
        Action::Shell => demo::shell(),
        Action::Demo => demo::demo(),
        Action::GuestKernel => {
            let cache = Cache::open()?;
            let kernel = GuestKernel::build(&cache)?;
            println!("kernel  {}", kernel.vmlinux().display());
            println!("initrd  {}", tiny_initrd(&cache)?.display());
            println!("cmdline {}", GuestKernel::CMDLINE);
            Ok(ExitCode::SUCCESS)
        }
    }
}
