//! What the process's exit status means.

use std::process::ExitCode;

use vmm::config::Problem;

use crate::report_problem;

/// A host error, or an error of this program.
pub const HOST: u8 = 1;
/// Bad usage or configuration.
pub const USAGE: u8 = 2;
/// The guest crashed.
pub const GUEST_CRASHED: u8 = 3;
/// What a shell adds to a signal's number.
const SIGNAL_BASE: u8 = 128;

macro_rules! help_text {
    () => {
        "Exit status:
  0      the guest turned its power off or reset, or the escape key was pressed
  1      the host failed, or 'cuddy check' found that no machine can start
  2      bad usage or configuration, or 'cuddy image check' found damage
  3      the guest crashed, or 'cuddy image check' found lost space and no damage
  128+N  signal N ended the machine: 129 hang-up, 130 interrupt, 131 quit, 143 termination"
    };
}
pub(crate) use help_text;

/// For people, in the help and the manual page.
pub const HELP: &str = help_text!();

/// The exit status after the host's signal `number`.
pub fn after_signal(number: i32) -> ExitCode {
    let number = u8::try_from(number).unwrap_or(0).min(u8::MAX - SIGNAL_BASE);
    ExitCode::from(SIGNAL_BASE + number)
}

/// Says what is wrong, in one line, and gives the exit status.
pub fn fail(problem: impl std::fmt::Display, status: u8) -> ExitCode {
    report_problem(&problem.to_string());
    ExitCode::from(status)
}

/// Says all that is wrong with a configuration, a line for each problem.
pub fn misconfigured(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        report_problem(&problem.to_string());
    }
    ExitCode::from(USAGE)
}
