//! Instructions that `cuddy` completes because KVM does not emulate them, against the cheapest exit of the
//! bare loop: a read of a port. Both are the guest's ring 0, in one process, in turn.
//!
//! Where KVM emulates or executes the instruction itself, nothing is completed and nothing is measured.

use std::fs;
use std::path::Path;

use crate::Failure;
use crate::exits::{COUNT, cycles_per_exit, run_bare, run_cuddy};
use crate::report::Comparison;
use crate::statistics::Samples;

/// Target: time of a completion to that of an exit in the bare loop.
const TO_EXIT: f64 = 1.5;
/// An exit takes thousands of cycles; an instruction of hardware's a few.
const EXECUTED_BELOW: f64 = 500.0;

pub(crate) fn measure(suite: &Path, rounds: usize) -> Result<(), Failure> {
    let guest = fs::read(suite)?;
    let (mut exits, mut completions) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        let mut measure_exits = || {
            let command_line = format!("test=ring0-exits count={COUNT} end=i8042");
            exits.push(cycles_per_exit(&run_bare(&guest, &command_line)?)?);
            Ok::<_, Failure>(())
        };
        // Both are first in turn: what changes steadily cancels out.
        if round % 2 == 0 {
            measure_exits()?;
        }
        let command_line = format!("test=completion-cost count={COUNT} end=i8042");
        completions.push(cycles_per_exit(&run_cuddy(suite, &command_line)?)?);
        if round % 2 == 1 {
            measure_exits()?;
        }
    }
    if completions.median() < EXECUTED_BELOW {
        println!("\nThis KVM needs no completion of POPCNT: nothing to measure.");
        return Ok(());
    }
    let comparison = Comparison {
        title: "POPCNT at ring 0, completed",
        unit: "TSC cycles each",
        rows: vec![("bare exit", exits), ("cuddy's completion", completions)],
    };
    comparison.print();
    comparison.judge_ratio("cuddy's completion", "bare exit", TO_EXIT);
    Ok(())
}
