//! The cargo runner: `cuddy-lab run -- <test program> <arguments>`.
//!
//! Where the host's KVM runs kernels natively, the test program simply runs. Elsewhere each of its tests
//! runs in an L1 of its own: an L1 in which machines ran before is slower and less even.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::assets::Assets;
use crate::cache::Cache;
use crate::error::{Context, Result};
use crate::host::Place;
use crate::l1::{Job, Lab, quote};
use crate::process::output_of;
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
    let lab = Lab::prepare(&cache, &assets.cuddy, Some(&assets.root_disk))?;
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

/// Runs the tests that `arguments` choose one after the other, a line each.
fn run_each(lab: &Lab, program: &Path, arguments: &[String]) -> Result<ExitCode> {
    let tests = tests_of(program, arguments)?;
    let shows_output = arguments.iter().any(|argument| argument == "--nocapture");
    println!("running {} tests, each in a lab of its own", tests.len());
    let mut failed = Vec::new();
    for name in &tests {
        print!("test {name} ... ");
        flush()?;
        let started = Instant::now();
        let arguments =
            [name.as_str(), "--exact", "--include-ignored", "--nocapture"].map(str::to_owned);
        let mut output = Vec::new();
        let job = job(program, &arguments);
        let status = if shows_output {
            println!();
            supervisor::run(lab, &job, &mut io::stdout())?
        } else {
            supervisor::run(lab, &job, &mut output)?
        };
        let verdict = if status == 0 { "ok" } else { "FAILED" };
        println!("{verdict} ({:.1} s)", started.elapsed().as_secs_f32());
        if status != 0 {
            failed.push(name);
            println!("{}", String::from_utf8_lossy(&output));
        } else {
            report_restarts(&output);
        }
    }
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

/// A lab that had to be started again is said, even when the test passed.
fn report_restarts(output: &[u8]) {
    for line in String::from_utf8_lossy(output).lines() {
        if line.starts_with("cuddy-lab: ") {
            println!("  {line}");
        }
    }
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
        processors: processors(arguments),
    }
}

/// A transfer between a guest of two vCPUs, its machine and its test takes minutes on one processor.
fn processors(arguments: &[String]) -> u8 {
    let transfers = arguments.iter().any(|name| name.starts_with("net::"));
    if transfers { 2 } else { 1 }
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
