//! The command line: `cuddy` and its subcommands, as clap reads them.
//!
//! Values are taken as text here and read by [`crate::key_value`], so that all that is wrong with them
//! is said at once, in the words in which a file's problems are said.

mod choice;
mod image;
mod run_options;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use choice::Choice;
pub use image::{Image, ImageCommand, OneSnapshot, RepairName, SnapshotCommand};
pub use run_options::RunOptions;

use crate::exit_status;

/// Runs virtual machines on Linux's KVM.
#[derive(Debug, Parser)]
#[command(name = "cuddy", version, about, after_help = exit_status::HELP, max_term_width = 100)]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a virtual machine in this terminal
    #[command(after_help = exit_status::HELP, after_long_help = RUN_HELP)]
    Run(Box<Run>),
    /// Say whether this host can run virtual machines, and what to do if it cannot
    Check(Check),
    /// Make, describe, copy and enlarge disk images
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Image(Image),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page in roff: 'cuddy man | man -l -'
    Man {
        /// The subcommand that it is about; all of cuddy otherwise
        #[arg(value_name = "SUBCOMMAND")]
        page: Option<String>,
    },
}

/// `cuddy run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Options that are keys of a machine's configuration.
    #[command(flatten)]
    pub machine: RunOptions,
    /// Read the machine's configuration from a TOML file, or JSON if its name ends in .json; options
    /// win over the file, disks and interfaces come after the file's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print the resolved configuration as TOML, as --config reads it, and start nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write what the machine counted, in Prometheus' text format, to a file when it ends
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub metrics: Option<PathBuf>,
    /// The key that leaves a machine on a terminal: ^ and a letter or one of @[\]^_, or none
    #[arg(long, value_name = "KEY", default_value = "^]")]
    pub escape: String,
    /// What to log on standard error.
    #[command(flatten)]
    pub log: LogOptions,
}

/// Options about the log.
#[derive(Debug, Args)]
pub struct LogOptions {
    /// How much to log: off, error, warn, info, debug or trace, for all or as MODULE=LEVEL, with commas
    /// between, such as info,virtio=debug
    #[arg(long = "log", value_name = "LEVELS", default_value = "warn")]
    pub levels: String,
    /// How to write the log
    #[arg(long = "log-format", value_name = "FORMAT", default_value = "text")]
    pub format: LogFormat,
}

/// How to write the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object a line
    Json,
}

/// `cuddy check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A shell for which there are completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// Fish
    Fish,
}

const RUN_HELP: &str = concat!(
    "Examples:
  cuddy run --kernel vmlinuz --initrd initrd.img --cpus 2 --memory 1G
  cuddy run --kernel vmlinuz --disk root.img,cache=none --net tap0,create=on \\
      --cmdline 'console=ttyS0 root=/dev/vda rw'
  cuddy run --config machine.toml --serial socket=/run/machine.serial

Values of several keys are written key=value,key=value; a comma inside a value is written twice. The
first key may be left out: '1G' is 'size=1G', 'root.img' is 'path=root.img', 'tap0' is 'tap=tap0'.

",
    exit_status::help_text!()
);

#[cfg(test)]
mod tests;
