//! `cuddy`: runs virtual machines, and says whether a host can.
//!
//! This binary reads arguments and files into a [`vmm::config::MachineConfig`], lends the machine its
//! terminal, log and signals, and turns the outcome into an exit status. All else is in `vmm`.

mod arguments;
mod check;
mod config_file;
mod exit_status;
mod image;
mod key_value;
mod log;
mod metrics_file;
mod pages;
mod run;
mod signals;
mod terminal;
mod usage;

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    // Threads allocate next to nothing: arenas of their own would only cost them time and pages.
    // SAFETY: sets one number of the allocator, before any thread is there.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    match Arguments::try_parse() {
        Err(error) => usage::answer(&error),
        Ok(arguments) => match arguments.command {
            Command::Run(options) => run::run(*options),
            Command::Check(options) => check::check(&options),
            Command::Image(options) => image::image(options.command),
            Command::Completions { shell } => pages::completions(shell),
            Command::Man { page } => pages::manual(page.as_deref()),
        },
    }
}

/// Says one thing that is wrong, in one line, whatever a user's text has in it.
fn report_problem(line: &str) {
    let mut text = String::from("cuddy: ");
    for character in line.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text.push('\n');
    // There is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A mistake of this program: the terminal first, so that the line can be read.
fn report_panic(panic: &PanicHookInfo<'_>) {
    terminal::restore();
    let payload = panic.payload();
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = panic.location().map_or_else(String::new, |location| {
        format!(" ({}:{})", location.file(), location.line())
    });
    report_problem(&format!(
        "internal error: {what}{place}: this is a mistake in cuddy, please report it"
    ));
    let trace = std::backtrace::Backtrace::capture();
    if trace.status() == std::backtrace::BacktraceStatus::Captured {
        let _ = writeln!(io::stderr(), "{trace}");
    }
}
