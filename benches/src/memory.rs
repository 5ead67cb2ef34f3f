//! What a machine monitor needs for itself while its guest sleeps: private and resident memory beside the
//! guest's (Linux, Documentation/filesystems/proc.rst, `smaps`).

use std::fs;
use std::thread;
use std::time::Duration;

use crate::Failure;
use crate::contenders::{Contender, MEMORY_MIB};
use crate::launch::Run;
use crate::programs::Programs;
use crate::report;
use crate::statistics::Samples;

/// Target: private memory beyond the guest's, in MiB.
const PRIVATE_MIB: f64 = 3.0;
/// What the guest does, and its last line.
const COMMAND_LINE: &str = "test=nothing end=halt";
const LAST_LINE: &[u8] = b"DONE";
/// Everything that was still going on when the guest fell asleep is over after this time.
const SETTLE: Duration = Duration::from_millis(200);

/// Memory of a process in KiB, without the guest's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    /// Pages that nobody else has.
    private_kib: u64,
    /// Pages that are there.
    resident_kib: u64,
    /// Pages of the guest that are there.
    guest_kib: u64,
}

pub(crate) fn measure(programs: &Programs, rounds: usize) -> Result<(), Failure> {
    println!("\nmemory beyond the guest's, MiB\n");
    println!("| | private | resident | guest's own |");
    println!("|---|---|---|---|");
    let mut of_cuddy = f64::NAN;
    for contender in [Contender::Cuddy, Contender::Qemu, Contender::Alioth] {
        let usages: Result<Vec<_>, _> = (0..rounds).map(|_| usage(programs, contender)).collect();
        let usages = match usages {
            Ok(usages) => usages,
            Err(error) if contender == Contender::Cuddy => return Err(error),
            Err(error) => {
                println!("| {} | takes no part: {error} | | |", contender.name());
                continue;
            }
        };
        let median = |field: fn(&Usage) -> u64| {
            let mib = usages.iter().map(|usage| field(usage) as f64 / 1024.0);
            mib.collect::<Samples>().median()
        };
        let private = median(|usage| usage.private_kib);
        if contender == Contender::Cuddy {
            of_cuddy = private;
        }
        println!(
            "| {} | {private:.2} | {:.2} | {:.2} |",
            contender.name(),
            median(|usage| usage.resident_kib),
            median(|usage| usage.guest_kib)
        );
    }
    println!(
        "\nprivate memory of cuddy: {of_cuddy:.2} MiB, {}",
        report::verdict(of_cuddy, PRIVATE_MIB)
    );
    Ok(())
}

fn usage(programs: &Programs, contender: Contender) -> Result<Usage, Failure> {
    let mut command = contender.command(programs, &programs.suite, COMMAND_LINE)?;
    let mut run = Run::start(&mut command, contender.input())?;
    run.until(LAST_LINE)?;
    thread::sleep(SETTLE);
    let maps = fs::read_to_string(format!("/proc/{}/smaps", run.id()))?;
    Ok(sum(&maps, MEMORY_MIB << 10))
}

/// Sums up the mappings of `smaps`. A mapping of `guest_kib` or more is the guest's memory.
fn sum(maps: &str, guest_kib: u64) -> Usage {
    let mut usage = Usage::default();
    let mut of_guest = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(Ok(value))) = (words.next(), words.next().map(str::parse::<u64>))
        else {
            continue;
        };
        match key {
            "Size:" => of_guest = value >= guest_kib,
            "Rss:" if of_guest => usage.guest_kib += value,
            "Rss:" => usage.resident_kib += value,
            "Private_Clean:" | "Private_Dirty:" if !of_guest => usage.private_kib += value,
            _ => {}
        }
    }
    usage
}

#[cfg(test)]
mod tests;
