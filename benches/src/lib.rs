//! Measurements of `cuddy` against other machine monitors and against the bare system calls.
//!
//! `cargo bench -p cuddy-benches` builds or fetches everything, measures and prints. Numbers of one run are compared with
//! each other and with nothing else: in each round every contender runs once, one after the other, so
//! that whatever else the machine does meets all of them. What is said to be a ratio is the median of
//! the rounds' ratios.
//!
//! docs/performance.md has the results and how to read them.

pub mod bare_machine;
mod boot;
mod completions;
mod contenders;
mod disk;
mod exits;
mod launch;
mod memory;
mod programs;
mod report;
mod start;
mod statistics;
mod system_calls;

use clap::{Parser, ValueEnum};
use cuddy_tests::guests;

pub use programs::OwnPrograms;

/// Why nothing could be measured.
pub type Failure = Box<dyn std::error::Error>;

/// Measures `cuddy` against others.
#[derive(Debug, Parser)]
#[command(name = "cargo bench -p cuddy-benches --")]
pub struct Arguments {
    /// What to measure; everything if nothing is named.
    section: Vec<Section>,
    /// A few rounds only.
    #[arg(long)]
    quick: bool,
    /// What Cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// From exec to the guest's first byte, and to the end of the process.
    Start,
    /// Accesses of the guest to ports and registers.
    Exits,
    /// Instructions that KVM does not emulate.
    Completions,
    /// Memory of the process beyond its guest's.
    Memory,
    /// System calls until the guest's first byte.
    SystemCalls,
    /// Disks, against other machine monitors and the host's own io_uring.
    Disk,
    /// A stock kernel to its init, in the lab.
    Boot,
}

/// How often things are measured.
#[derive(Debug, Clone, Copy)]
struct Rounds {
    start: usize,
    exits: usize,
    memory: usize,
    disk: usize,
    boot: usize,
}

const FULL: Rounds = Rounds {
    start: 60,
    exits: 101,
    memory: 3,
    disk: 5,
    boot: 5,
};
const QUICK: Rounds = Rounds {
    start: 10,
    exits: 21,
    memory: 1,
    disk: 2,
    boot: 1,
};

/// Measures what `arguments` name and prints it.
///
/// # Errors
///
/// When a program cannot be built or fetched, or one of ours does not do what it should.
pub fn run(arguments: &Arguments, own: &OwnPrograms) -> Result<(), Failure> {
    let rounds = if arguments.quick { QUICK } else { FULL };
    let wanted = |section| arguments.section.is_empty() || arguments.section.contains(&section);
    report::print_head();
    // Measured in this process, so that nothing else has to be built for them.
    let suite = guests::path(guests::SUITE);
    if wanted(Section::Exits) {
        exits::measure(&suite, rounds.exits)?;
    }
    if wanted(Section::Completions) {
        completions::measure(&suite, rounds.exits)?;
    }
    let others = [
        Section::Start,
        Section::Memory,
        Section::SystemCalls,
        Section::Disk,
        Section::Boot,
    ];
    if !others.into_iter().any(wanted) {
        return Ok(());
    }
    let programs = programs::Programs::prepare(own)?;
    if wanted(Section::Start) {
        start::measure(&programs, rounds.start)?;
    }
    if wanted(Section::Memory) {
        memory::measure(&programs, rounds.memory)?;
    }
    if wanted(Section::SystemCalls) {
        system_calls::measure(&programs)?;
    }
    if wanted(Section::Disk) {
        disk::measure(&programs, &programs::find_fio(&programs.cache), rounds.disk)?;
    }
    if wanted(Section::Boot) {
        boot::measure(&programs, rounds.boot)?;
    }
    Ok(())
}
