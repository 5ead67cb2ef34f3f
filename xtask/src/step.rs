//! A list of steps, each with a line that says how it went and how long it took.

use std::io::{self, Write};
use std::process::Command;
use std::time::Instant;

use crate::workspace::command_line;
use crate::{Failure, run_to_end};

/// Runs steps one after the other.
#[derive(Debug)]
pub(crate) struct Steps {
    verbose: bool,
    started: Instant,
}

impl Steps {
    /// `verbose` shows what every step prints.
    pub(crate) fn new(verbose: bool) -> Self {
        Self {
            verbose,
            started: Instant::now(),
        }
    }

    /// Runs a step of commands that print much of no interest: shown only when one fails.
    pub(crate) fn quiet(&self, name: &str, commands: &mut [Command]) -> Result<(), Failure> {
        if self.verbose {
            return self.shown(name, commands);
        }
        self.step(name, || commands.iter_mut().try_for_each(run_captured))
    }

    /// Runs a step whose output is of interest while it runs.
    pub(crate) fn shown(&self, name: &str, commands: &mut [Command]) -> Result<(), Failure> {
        println!("{name}:");
        self.step(name, || commands.iter_mut().try_for_each(run_to_end))
    }

    /// Runs a step that is not a command.
    pub(crate) fn step(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        print!("{name:<28}");
        let _ = io::stdout().flush();
        let started = Instant::now();
        let outcome = work();
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("{verdict:<8}{:>7.1} s", started.elapsed().as_secs_f32());
        outcome
    }

    /// Says how long all of it took.
    pub(crate) fn finish(self) {
        let seconds = self.started.elapsed().as_secs_f32();
        println!("{:<28}{:<8}{seconds:>7.1} s", "everything", "ok");
    }
}

fn run_captured(command: &mut Command) -> Result<(), Failure> {
    let line = command_line(command);
    let output = command
        .output()
        .map_err(|error| format!("starting `{line}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{line}` failed: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
