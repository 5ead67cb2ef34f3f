//! What is printed: tables that can be pasted into docs/performance.md.

use std::fs;
use std::process::Command;

use crate::statistics::Samples;

/// A table of contenders, the first of which is what the others are compared with.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) rows: Vec<(&'a str, Samples)>,
}

impl Comparison<'_> {
    pub(crate) fn print(&self) {
        println!("\n{}, {}\n", self.title, self.unit);
        let Some((first, reference)) = self.rows.first() else {
            return;
        };
        println!("| | median | min | max | to {first} |");
        println!("|---|---|---|---|---|");
        for (name, samples) in &self.rows {
            println!(
                "| {name} | {:.2} | {:.2} | {:.2} | {:.2} |",
                samples.median(),
                samples.min(),
                samples.max(),
                samples.ratio_to(reference)
            );
        }
    }

    /// Says whether the ratio of one row to another is what it should be at the most.
    pub(crate) fn judge_ratio(&self, name: &str, to: &str, target: f64) {
        let find = |wanted: &str| self.rows.iter().find(|(name, _)| *name == wanted);
        if let (Some((_, own)), Some((_, other))) = (find(name), find(to)) {
            let ratio = own.ratio_to(other);
            let of_minima = own.min() / other.min();
            println!(
                "\n{}: {name} / {to} = {ratio:.3} (minima: {of_minima:.3}), {}",
                self.title,
                verdict(ratio, target)
            );
        }
    }
}

/// Whether a number is below its target.
pub(crate) fn verdict(value: f64, target: f64) -> String {
    let word = if value <= target { "met" } else { "MISSED" };
    format!("target {target}: {word}")
}

/// What the numbers depend on.
pub(crate) fn print_head() {
    let date = output("date", &["-u", "+%F"]);
    let kernel = output("uname", &["-r"]);
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name)
        .unwrap_or("unknown");
    let flags = information
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or("");
    let hardware = flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    let kvm = if hardware { "hardware" } else { "software" };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    println!(
        "{date}, {cpus} x {processor}, Linux {kernel}, {kvm} KVM, load {load} before the first round"
    );
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
