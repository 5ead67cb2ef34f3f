//! clap's errors, each in one line.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit_status;

/// Prints what clap has to say: help and version in full, an error in one line.
pub fn answer(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever closed the pipe has read enough.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(exit_status::USAGE)
        }
        _ => exit_status::fail(line(error), exit_status::USAGE),
    }
}

/// Where, what, and what to do.
fn line(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    // An argument is shown as '--cpus <NUMBER>'; its name says where.
    let argument = text(ContextKind::InvalidArg);
    let place = argument
        .as_deref()
        .and_then(|argument| argument.split_ascii_whitespace().next())
        .unwrap_or("arguments");
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => match text(ContextKind::SuggestedArg) {
            Some(known) => format!("{place}: there is no such option: did you mean {known}?"),
            None => format!("{place}: there is no such option: see 'cuddy --help'"),
        },
        ErrorKind::InvalidSubcommand => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            match text(ContextKind::SuggestedSubcommand) {
                Some(known) => format!("{name}: there is no such command: did you mean '{known}'?"),
                None => format!("{name}: there is no such command: see 'cuddy --help'"),
            }
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{place}: has no value: give it one")
        }
        ErrorKind::InvalidValue => match text(ContextKind::ValidValue) {
            Some(words) => format!("{place}: '{value}' is not a choice: use one of {words}"),
            None => format!("{place}: '{value}' does not fit: see 'cuddy --help'"),
        },
        ErrorKind::ArgumentConflict => format!("{place}: is given twice: keep one"),
        ErrorKind::MissingRequiredArgument => {
            format!("{place}: is missing: see 'cuddy --help'")
        }
        ErrorKind::InvalidUtf8 => "arguments: one is not UTF-8: use UTF-8".to_owned(),
        ErrorKind::TooManyValues => format!("{place}: '{value}' is one value too many: remove it"),
        _ => {
            let rendered = error.render().to_string();
            let first = rendered.lines().next().unwrap_or_default();
            let what = first.strip_prefix("error: ").unwrap_or(first);
            format!("{place}: {what}: see 'cuddy --help'")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::Arguments;

    #[test]
    fn mistakes_are_told_in_one_line() {
        for (arguments, expected) in [
            (
                &["run", "--kernl", "x"][..],
                "--kernl: there is no such option: did you mean --kernel?",
            ),
            (
                &["run", "--cpus", "1", "--cpus", "2"],
                "--cpus: is given twice: keep one",
            ),
            (&["run", "--kernel"], "--kernel: has no value: give it one"),
            (
                &["rum"],
                "rum: there is no such command: did you mean 'run'?",
            ),
            (
                &["run", "extra"],
                "extra: there is no such option: see 'cuddy --help'",
            ),
            (
                &["run", "--log-format", "xml"],
                "--log-format: 'xml' is not a choice: use one of text, json",
            ),
            (
                &["run", "--dry-run=yes"],
                "--dry-run: 'yes' is one value too many: remove it",
            ),
            (&["completions"], "<SHELL>: is missing: see 'cuddy --help'"),
        ] {
            let all = [&["cuddy"], arguments].concat();
            let error = Arguments::try_parse_from(all).unwrap_err();
            assert_eq!(line(&error), expected);
        }
    }
}
