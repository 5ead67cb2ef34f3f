//! `cargo xtask fuzz`: builds the targets of `fuzz/`, which is a workspace of its own, and runs them one after
//! the other.
//!
//! A run begins with the inputs in `fuzz/corpus/TARGET` and with what earlier runs found, which stays in the
//! target folder. The first input that ends a target, takes too long or too much memory ends the run, and is
//! kept there as well.

use std::fs;
use std::path::Path;

use crate::workspace::Workspace;
use crate::{Failure, run_to_end};

/// What an input may take: longer, or more, is as wrong as a panic.
const LIMITS: [&str; 4] = [
    "-timeout=10",
    "-rss_limit_mb=1024",
    "-malloc_limit_mb=512",
    "-max_len=8192",
];

/// Runs `target`, or all there are, for `seconds` each.
pub(crate) fn run(
    workspace: &Workspace,
    target: Option<&str>,
    seconds: u64,
) -> Result<(), Failure> {
    let folder = workspace.root().join("fuzz");
    let mut targets = names(&folder.join("fuzz_targets"))?;
    if let Some(wanted) = target {
        let known = targets.join(", ");
        targets.retain(|name| name == wanted);
        if targets.is_empty() {
            return Err(format!("there is no fuzz target '{wanted}': use {known}"));
        }
    }
    let output = workspace.target().join("fuzz");
    let mut build = workspace.cargo("build");
    // What the compiler has to know is in the configuration of that folder.
    build.args(["--release", "--locked"]).current_dir(&folder);
    run_to_end(build.env("CARGO_TARGET_DIR", &output))?;
    for name in &targets {
        run_one(&folder, &output, name, seconds)?;
    }
    Ok(())
}

fn run_one(folder: &Path, output: &Path, name: &str, seconds: u64) -> Result<(), Failure> {
    println!("{name}:");
    let found = output.join("corpus").join(name);
    let artifacts = output.join("artifacts");
    for made in [&found, &artifacts] {
        fs::create_dir_all(made).map_err(|error| format!("{}: {error}", made.display()))?;
    }
    let program = output.join("x86_64-unknown-linux-gnu/release").join(name);
    let mut command = std::process::Command::new(program);
    command
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/{name}-", artifacts.display()))
        .arg(found);
    let seeds = folder.join("corpus").join(name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    run_to_end(&mut command)
}

/// The targets, in the order of their names.
fn names(folder: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
