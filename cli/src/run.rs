//! `cuddy run`: from arguments to a machine, and from its outcome to an exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use vmm::config::{MachineConfig, Problem, Problems, SerialConfig};
use vmm::console::{Console, ConsoleError};
use vmm::{Control, Outcome, Session, StopReason, VmmError};

use crate::arguments::{Run, RunOptions};
use crate::metrics_file::MetricsFile;
use crate::signals::Signals;
use crate::terminal::{self, EscapeKey, RawMode, TerminalInput, Typed};
use crate::{config_file, exit_status, log, report_problem};

/// Runs a machine to its end, or prints its configuration.
pub fn run(options: Run) -> ExitCode {
    let mut problems = Vec::new();
    if let Err(problem) = log::start(&options.log) {
        problems.push(problem);
    }
    let escape = options.escape.parse().unwrap_or_else(|problem| {
        problems.push(problem);
        EscapeKey(None)
    });
    let config = configure(options.machine, options.config.as_deref(), &mut problems);
    if !problems.is_empty() {
        return exit_status::misconfigured(&problems);
    }
    if options.dry_run {
        return print(&config);
    }
    let metrics = match options.metrics.map(MetricsFile::new).transpose() {
        Ok(metrics) => metrics,
        Err(problem) => return exit_status::misconfigured(&[problem]),
    };
    match start(config, escape, metrics) {
        Ok(outcome) => status_of(&outcome),
        Err(failure) => failure.report(),
    }
}

/// The file's configuration, or the default one, with the options' values put in.
fn configure(
    options: RunOptions,
    file: Option<&std::path::Path>,
    problems: &mut Vec<Problem>,
) -> MachineConfig {
    let from_file = file.map_or_else(|| Ok(MachineConfig::default()), config_file::read);
    let file_is_good = from_file.is_ok();
    let mut config = from_file.unwrap_or_else(|problem| {
        problems.push(problem);
        MachineConfig::default()
    });
    problems.extend(options.apply(&mut config));
    // What a bad file does not say would only look as if it were missing.
    if file_is_good && let Err(Problems(more)) = config.validate() {
        problems.extend(more);
    }
    config
}

fn print(config: &MachineConfig) -> ExitCode {
    let text = match toml::to_string(config) {
        Ok(text) => text,
        Err(error) => {
            let problem = Problem::new(
                "--dry-run",
                format_args!(
                    "the configuration cannot be written as TOML: {error}: use names in UTF-8"
                ),
            );
            return exit_status::fail(problem, exit_status::USAGE);
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            exit_status::fail(Problem::new("standard output", error), exit_status::HOST)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Why a machine did not run to its end.
enum Failure {
    Configuration(Vec<Problem>),
    Host(String),
}

impl Failure {
    fn host(place: &str, error: &io::Error) -> Self {
        Self::Host(format!(
            "{place}: {error}: the host is short of something, 'dmesg' may say what"
        ))
    }

    fn report(self) -> ExitCode {
        match self {
            Self::Configuration(problems) => exit_status::misconfigured(&problems),
            Self::Host(line) => exit_status::fail(line, exit_status::HOST),
        }
    }
}

impl From<ConsoleError> for Failure {
    fn from(error: ConsoleError) -> Self {
        if error.is_configuration() {
            Self::Configuration(vec![error.into()])
        } else {
            Self::Host(Problem::from(error).to_string())
        }
    }
}

impl From<VmmError> for Failure {
    fn from(error: VmmError) -> Self {
        match error {
            VmmError::Configuration(Problems(problems)) => Self::Configuration(problems),
            VmmError::Host(_) => Self::Host(error.to_string()),
        }
    }
}

fn start(
    config: MachineConfig,
    escape: EscapeKey,
    metrics: Option<MetricsFile>,
) -> Result<Outcome, Failure> {
    let on_terminal = config.serial == SerialConfig::Stdio && terminal::is_there();
    let signals = Signals::block(on_terminal).map_err(|error| Failure::host("signals", &error))?;
    let (console, keys) = if on_terminal {
        let (keys, output) = TerminalInput::new(&io::stdin(), escape)
            .map_err(|error| Failure::host("terminal", &error))?;
        (Console::on_stdout(Some(Box::new(output)))?, Some(keys))
    } else {
        (Console::open(&config.serial)?, None)
    };
    if let Some(path) = console.pty_path() {
        // Nobody could use the machine without it, at whatever level the log is.
        let _ = writeln!(io::stderr(), "cuddy: serial: {}", path.display());
    }
    let mut session = Session::open(config, console)?;
    watch_signals(&mut session, signals)?;
    let raw_mode = match keys {
        None => None,
        Some(keys) => {
            watch_keys(&mut session, keys)?;
            Some(RawMode::enter().map_err(|error| Failure::host("terminal", &error))?)
        }
    };
    let control = session.control();
    let outcome = session.run();
    drop(raw_mode);
    // How the machine ended is what the exit status tells.
    if let Some(metrics) = metrics
        && let Err(problem) = metrics.write(&control.metrics())
    {
        report_problem(&problem.to_string());
    }
    Ok(outcome?)
}

fn watch_signals(session: &mut Session, mut signals: Signals) -> Result<(), Failure> {
    let source = signals
        .event_source()
        .map_err(|error| Failure::host("signals", &error))?;
    let handler = move |_: std::os::fd::BorrowedFd<'_>, control: &Control| {
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGTSTP => terminal::suspend(),
                libc::SIGCONT => {
                    if let Err(error) = terminal::make_raw() {
                        tracing::warn!("the terminal cannot be made raw again: {error}");
                    }
                    // Paused by a disk error, it tries again.
                    control.resume();
                }
                number => control.stop(StopReason::Signal(number)),
            }
        }
    };
    session.add_event_source(source, Box::new(handler));
    Ok(())
}

fn watch_keys(session: &mut Session, mut keys: TerminalInput) -> Result<(), Failure> {
    let source = keys
        .event_source()
        .map_err(|error| Failure::host("terminal", &error))?;
    let handler = move |_: std::os::fd::BorrowedFd<'_>, control: &Control| {
        if keys.service() == Typed::Escape {
            control.stop(StopReason::User);
        }
    };
    session.add_event_source(source, Box::new(handler));
    Ok(())
}

fn status_of(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::PowerOff | Outcome::Reset | Outcome::Stopped(StopReason::User) => {
            ExitCode::SUCCESS
        }
        Outcome::Stopped(StopReason::Signal(number)) => exit_status::after_signal(*number),
        Outcome::Crash(crash) => {
            let status = exit_status::fail(
                format_args!(
                    "guest: crashed: {crash}: what it wrote last on its console may say why"
                ),
                exit_status::GUEST_CRASHED,
            );
            if let Some(registers) = &crash.vcpu {
                // There is nobody left to tell.
                let _ = writeln!(io::stderr(), "{registers}");
            }
            status
        }
    }
}
