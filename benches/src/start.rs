//! From exec to the guest's first byte on COM1, and to the end of the process.
//!
//! The guest's second instruction writes the byte, so the time to it is the time to the first
//! instruction and two exits.

use std::time::Duration;

use crate::Failure;
use crate::contenders::Contender;
use crate::launch::Run;
use crate::programs::Programs;
use crate::report::Comparison;
use crate::statistics::Samples;

/// Targets: to the bare ioctls, and to QEMU.
const FIRST_BYTE_TO_BARE: f64 = 2.0;
const FIRST_BYTE_TO_QEMU: f64 = 0.1;
const END_TO_BARE: f64 = 3.0;

pub(crate) fn measure(programs: &Programs, rounds: usize) -> Result<(), Failure> {
    let mut contenders = Vec::new();
    for contender in Contender::ALL {
        match run(programs, contender) {
            Ok(_) => contenders.push((contender, Samples::default(), Samples::default())),
            Err(error) if matches!(contender, Contender::Bare | Contender::Cuddy) => {
                return Err(format!("{}: {error}", contender.name()).into());
            }
            Err(error) => println!("\n{} takes no part: {error}", contender.name()),
        }
    }
    for _ in 0..rounds {
        for (contender, first_byte, end) in &mut contenders {
            let (byte_after, end_after) = run(programs, *contender)?;
            first_byte.push(milliseconds(byte_after));
            if let Some(end_after) = end_after {
                end.push(milliseconds(end_after));
            }
        }
    }
    let names = |contender: &Contender| contender.name();
    let first_byte = Comparison {
        title: "exec to the guest's first byte",
        unit: "ms",
        rows: contenders
            .iter()
            .map(|(who, byte, _)| (names(who), byte.clone()))
            .collect(),
    };
    let end = Comparison {
        title: "exec to the process's end",
        unit: "ms",
        rows: contenders
            .iter()
            .filter(|(who, ..)| who.ends())
            .map(|(who, _, end)| (names(who), end.clone()))
            .collect(),
    };
    let [bare, cuddy, qemu] =
        [Contender::Bare, Contender::Cuddy, Contender::Qemu].map(Contender::name);
    first_byte.print();
    first_byte.judge_ratio(cuddy, bare, FIRST_BYTE_TO_BARE);
    first_byte.judge_ratio(cuddy, qemu, FIRST_BYTE_TO_QEMU);
    end.print();
    end.judge_ratio(cuddy, bare, END_TO_BARE);
    Ok(())
}

/// The time to the first byte and, if it comes by itself, to the end.
fn run(programs: &Programs, contender: Contender) -> Result<(Duration, Option<Duration>), Failure> {
    let mut command = contender.command(programs, &programs.first, "")?;
    let mut run = Run::start(&mut command, contender.input())?;
    let first_byte = run.until(b"!")?;
    let end = contender.ends().then(|| run.until_end()).transpose()?;
    Ok((first_byte, end))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
