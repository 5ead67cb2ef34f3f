//! The cargo runner: `cuddy-lab run -- <test program> <arguments>`.
//!
//! Where the host's KVM runs kernels natively, the test program simply runs. Elsewhere each of its tests
//! runs in an L1 of its own: an L1 in which machines ran before is slower and less even.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Instant;

use crate::assets::Assets;
use crate::cache::Cache;
use crate::error::{Context, Result};
use crate::host::Place;
use crate::l1::{Job, Lab, quote};
use crate::process::output_of;
use crate::schedule::schedule;
use crate::supervisor;

/// Where the test program is in L1.
const PROGRAM: &str = "/lab/program";

/// Runs a test program with its arguments and gives its exit status.
///
/// # Errors
///
/// When the lab cannot be made or failed too often.
pub fn run(program: &Path, arguments: &[String]) -> Result<ExitCode> {
    if lists_only(arguments) {
        return run_on_host(program, arguments, None);
    }
    let cache = Cache::open()?;
    let assets = Assets::prepare(&cache)?;
    if Place::detect()? == Place::Host {
        return run_on_host(program, arguments, Some(&assets));
    }
    let lab = Lab::prepare(
        &cache,
        &assets.cuddy,
        &[&assets.root_disk, &assets.tools_disk],
    )?;
    if arguments.iter().any(|argument| argument == "--exact") {
        let status = supervisor::run(&lab, &job(program, arguments), &mut io::stdout())?;
        return Ok(exit_code(status));
    }
    run_each(&lab, program, arguments)
}

/// Arguments with which a test program runs no test.
fn lists_only(arguments: &[String]) -> bool {
    let quiet = ["--list", "--help", "-h"];
    arguments
        .iter()
        .any(|argument| quiet.contains(&argument.as_str()))
}

fn run_on_host(program: &Path, arguments: &[String], assets: Option<&Assets>) -> Result<ExitCode> {
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in assets.iter().flat_map(|assets| assets.environment()) {
        command.env(name, value);
    }
    let status = command
        .status()
        .context(|| format!("starting {}", program.display()))?;
    Ok(exit_code(status.code().unwrap_or(1)))
}

/// Runs the tests that `arguments` choose, a line each: side by side, as far as the host has processors for
/// their labs.
fn run_each(lab: &Lab, program: &Path, arguments: &[String]) -> Result<ExitCode> {
    let tests = tests_of(program, arguments)?;
    println!("running {} tests, each in a lab of its own", tests.len());
    let run = Run {
        lab,
        program,
        shows_output: arguments.iter().any(|argument| argument == "--nocapture"),
    };
    let processors = match run.shows_output {
        // Lines of two tests cannot be told apart.
        true => 1,
        false => thread::available_parallelism().map_or(1, usize::from),
    };
    let needs = |name: &str| usize::from(processors_of(name));
    let failed = schedule(&tests, processors, needs, |name| run.test(name))?;
    println!(
        "{} passed, {} failed",
        tests.len() - failed.len(),
        failed.len()
    );
    for name in &failed {
        println!("failed: {name}");
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the tests of a run share.
#[derive(Debug)]
struct Run<'a> {
    lab: &'a Lab,
    program: &'a Path,
    shows_output: bool,
}

impl Run<'_> {
    /// Runs the test `name`, tells how it went, and says whether it passed.
    fn test(&self, name: &str) -> Result<bool> {
        let started = Instant::now();
        let arguments = [name, "--exact", "--include-ignored", "--nocapture"].map(str::to_owned);
        let job = job(self.program, &arguments);
        let mut output = Vec::new();
        let status = if self.shows_output {
            supervisor::run(self.lab, &job, &mut io::stdout())?
        } else {
            supervisor::run(self.lab, &job, &mut output)?
        };
        let verdict = if status == 0 { "ok" } else { "FAILED" };
        let mut line = format!(
            "test {name} ... {verdict} ({:.1} s)\n",
            started.elapsed().as_secs_f32()
        );
        match status {
            0 => line.push_str(&restarts(&output)),
            _ => line.push_str(&String::from_utf8_lossy(&output)),
        }
        // At once, for another test may end at the same moment.
        print!("{line}");
        flush()?;
        Ok(status == 0)
    }
}

/// A lab that had to be started again is said, even when the test passed.
fn restarts(output: &[u8]) -> String {
    String::from_utf8_lossy(output)
        .lines()
        .filter(|line| line.starts_with("cuddy-lab: "))
        .map(|line| format!("  {line}\n"))
        .collect()
}

fn tests_of(program: &Path, arguments: &[String]) -> Result<Vec<String>> {
    let listing = output_of(
        Command::new(program)
            .args(arguments)
            .args(["--list", "--format", "terse"]),
    )?;
    Ok(parse_listing(&listing))
}

fn parse_listing(listing: &str) -> Vec<String> {
    listing
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

fn job(program: &Path, arguments: &[String]) -> Job {
    let mut script = String::new();
    for (name, value) in Lab::assets_inside().environment() {
        script.push_str(&format!(
            "export {name}={}\n",
            quote(&value.display().to_string())
        ));
    }
    for name in ["RUST_BACKTRACE", "RUST_LOG"] {
        if let Ok(value) = std::env::var(name) {
            script.push_str(&format!("export {name}={}\n", quote(&value)));
        }
    }
    script.push_str("export CUDDY_LAB=host\nexec ");
    script.push_str(PROGRAM);
    for argument in arguments {
        script.push(' ');
        script.push_str(&quote(argument));
    }
    script.push('\n');
    Job {
        programs: vec![(PathBuf::from(program), PROGRAM.to_owned())],
        script,
        processors: arguments.first().map_or(1, |name| processors_of(name)),
    }
}

/// How many processors the lab of a test has. A transfer between a guest of two vCPUs, its machine and its
/// test takes minutes on one.
fn processors_of(name: &str) -> u8 {
    if name.starts_with("net::") { 2 } else { 1 }
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

fn flush() -> Result<()> {
    io::stdout()
        .flush()
        .context(|| "writing the output".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{lists_only, parse_listing};

    #[test]
    fn only_tests_are_taken_from_a_listing() {
        let listing = "boot::elf: test\nbench: benchmark\n\n1 test, 1 benchmark\n";
        assert_eq!(parse_listing(listing), ["boot::elf"]);
    }

    #[test]
    fn listings_need_no_lab() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(lists_only(&words("--list --format terse")));
        assert!(!lists_only(&words("boot --exact")));
    }
}
