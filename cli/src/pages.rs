//! Completions and manual pages, generated from the definition of the arguments.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::shells;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use vmm::config::Problem;

use crate::arguments::{Arguments, Shell};
use crate::exit_status;

/// Prints the completions for `shell`.
pub fn completions(shell: Shell) -> ExitCode {
    let mut command = Arguments::command();
    let mut text = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, "cuddy", &mut text),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, "cuddy", &mut text),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, "cuddy", &mut text),
    }
    print(&text)
}

/// Prints the manual page of cuddy, or of one of its subcommands.
pub fn manual(page: Option<&str>) -> ExitCode {
    let mut root = Arguments::command();
    root.build();
    let command = match page {
        None => root,
        Some(name) => match root.find_subcommand(name) {
            Some(command) if name != "help" => command.clone(),
            _ => {
                let problem = Problem::new(
                    "man",
                    format_args!(
                        "'{name}' has no page: use run, check, completions, man or nothing"
                    ),
                );
                return exit_status::fail(problem, exit_status::USAGE);
            }
        },
    };
    match render(command) {
        Ok(text) => print(&text),
        Err(error) => exit_status::fail(error, exit_status::HOST),
    }
}

fn render(command: Command) -> io::Result<Vec<u8>> {
    let has_subcommands = command.has_subcommands();
    // The exit status has a section of its own.
    let command = command
        .after_help(None::<&str>)
        .after_long_help(None::<&str>);
    let manual = Man::new(command)
        .source(concat!("cuddy ", env!("CARGO_PKG_VERSION")))
        .manual("Cuddy");
    let mut text = Vec::new();
    manual.render_title(&mut text)?;
    manual.render_name_section(&mut text)?;
    manual.render_synopsis_section(&mut text)?;
    manual.render_description_section(&mut text)?;
    manual.render_options_section(&mut text)?;
    if has_subcommands {
        manual.render_subcommands_section(&mut text)?;
    }
    let mut status = Roff::new();
    status.control("SH", ["EXIT STATUS"]);
    for line in exit_status::HELP.lines().skip(1) {
        let (number, meaning) = line.trim().split_once(' ').unwrap_or((line, ""));
        status.control("TP", ["8"]);
        status.text([roman(number)]);
        status.text([roman(meaning.trim())]);
    }
    status.to_writer(&mut text)?;
    Ok(text)
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            exit_status::fail(Problem::new("standard output", error), exit_status::HOST)
        }
        _ => ExitCode::SUCCESS,
    }
}
