//! Disks: what a guest gets of the host's storage, under each machine monitor, and what a program of the host
//! gets (fio).
//!
//! The guest is `suite` with its test `blk-bench`: ring 3 drives the queues and watches the used rings, so
//! that also a KVM which emulates ring 0 measures the monitor. All loads of a place, format and number of
//! queues run in one machine, one after the other; in each round each contender has one. Everything runs at
//! a high priority, as what else the host does would be measured instead.

mod contender;
mod cpu_time;
mod fio;
mod image;
mod load;
mod priority;
mod tsc;

use std::collections::BTreeMap;

use cuddy_lab::Program;

use crate::Failure;
use crate::launch::Run;
use crate::programs::Programs;
use crate::statistics::Samples;
use contender::Contender;
use cpu_time::CpuTime;
use image::{Images, Setting};
use load::{LOADS, Load, Measured};
use priority::Priority;
use tsc::Tsc;

/// Targets: requests in a second of raw disks at depth 32 to the host's own io_uring, and to the best of QEMU's
/// engines.
const TO_HOST: f64 = 0.95;
const TO_QEMU: f64 = 1.3;
/// How long a load goes on.
const LOAD_MILLISECONDS: u64 = 250;

/// What all rounds gave, by load and contender.
type Results = BTreeMap<(usize, &'static str), Vec<Measured>>;

pub(crate) fn measure(
    programs: &Programs,
    fio: &Result<Program, String>,
    rounds: usize,
) -> Result<(), Failure> {
    let _priority = Priority::raise();
    let tsc = Tsc::measure();
    let images = Images::make()?;
    if let Err(why) = fio {
        println!("\nfio takes no part: {why}");
    }
    for setting in Setting::ALL {
        let mut contenders = Vec::new();
        for contender in Contender::ALL {
            if !contender.knows(setting) {
                continue;
            }
            // Also a round that warms everything up.
            match run(programs, contender, setting, &images, tsc) {
                Ok(_) => contenders.push(contender),
                Err(error) if contender == Contender::Cuddy => return Err(error),
                Err(error) => println!("\n{} takes no part: {error}", contender.name()),
            }
        }
        let mut results = Results::new();
        for _ in 0..rounds {
            for &contender in &contenders {
                for (index, measured) in run(programs, contender, setting, &images, tsc)? {
                    let key = (index, contender.name());
                    results.entry(key).or_default().push(measured);
                }
            }
            if let Ok(fio) = fio
                && setting.format_is_raw()
            {
                for (index, &load) in LOADS.iter().enumerate() {
                    let alone = fio::run(fio, load, setting, &images, LOAD_MILLISECONDS)?;
                    let beside =
                        fio::run_beside_spinner(fio, load, setting, &images, LOAD_MILLISECONDS)?;
                    for (name, measured) in [(fio::ALONE, alone), (fio::BESIDE_SPINNER, beside)] {
                        results.entry((index, name)).or_default().push(measured);
                    }
                }
            }
        }
        print(setting, &results);
    }
    Ok(())
}

/// One machine: what each load gave, by its index.
fn run(
    programs: &Programs,
    contender: Contender,
    setting: Setting,
    images: &Images,
    tsc: Tsc,
) -> Result<Vec<(usize, Measured)>, Failure> {
    let names: Vec<_> = LOADS.iter().map(Load::guest_name).collect();
    let words = format!(
        "test=blk-bench end=i8042 bench={} bench.queues={} bench.cycles={}",
        names.join(","),
        setting.queues,
        tsc.cycles(LOAD_MILLISECONDS),
    );
    let image = images.path(setting);
    let mut command = contender.command(programs, setting, image, &words)?;
    let mut machine = Run::start(&mut command, contender.input())?;
    let mut times = Vec::new();
    for name in &names {
        // A load that the device's queue is too small for has a line of its own.
        machine.until_any(&[
            format!("BEGIN {name}\n").as_bytes(),
            format!("SKIP {name}\n").as_bytes(),
        ])?;
        let before = CpuTime::of_process(machine.id());
        machine.until_any(&[
            format!("END {name} ").as_bytes(),
            format!("SKIP {name}\n").as_bytes(),
        ])?;
        times.push(CpuTime::of_process(machine.id()).microseconds_since(&before));
    }
    machine.until(b"DONE")?;
    let output = machine.written();
    let mut measured = Vec::new();
    for (index, (name, time)) in names.iter().zip(times).enumerate() {
        if let Some(found) = Measured::parse(&output, name, time, tsc) {
            measured.push((index, found));
        }
    }
    Ok(measured)
}

fn print(setting: Setting, results: &Results) {
    println!("\n{}\n", setting.title());
    println!(
        "| | | requests/s | to fio | to fio beside a spinner | to QEMU's best | p50, us | p99 | p99.9 | CPU time a request, us | doorbells a request |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (index, load) in LOADS.iter().enumerate() {
        let rates = |name: &str| -> Option<Samples> {
            let (_, measured) = results
                .iter()
                .find(|((other, who), _)| *other == index && *who == name)?;
            Some(measured.iter().map(|one| one.rate).collect())
        };
        let qemu = best(&Contender::QEMU.map(|contender| rates(contender.name())));
        let (alone, beside) = (rates(fio::ALONE), rates(fio::BESIDE_SPINNER));
        let monitors = Contender::ALL.map(Contender::name).into_iter();
        for name in monitors.chain([fio::ALONE, fio::BESIDE_SPINNER]) {
            let Some(measured) = results.get(&(index, name)) else {
                continue;
            };
            let median = |value: fn(&Measured) -> f64| {
                measured.iter().map(value).collect::<Samples>().median()
            };
            let own = rates(name);
            let ratio = |other: &Option<Samples>| match (&own, other) {
                (Some(own), Some(other)) => format!("{:.2}", own.ratio_to(other)),
                _ => String::new(),
            };
            println!(
                "| {} | {name} | {:.0} | {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} |",
                load.name(),
                median(|one| one.rate),
                ratio(&alone),
                ratio(&beside),
                ratio(&qemu),
                median(|one| one.p50),
                median(|one| one.p99),
                median(|one| one.p999),
                median(|one| one.cpu_time),
                median(|one| one.doorbells),
            );
        }
    }
    judge(results);
}

/// The highest rate of each round.
fn best(contenders: &[Option<Samples>]) -> Option<Samples> {
    contenders
        .iter()
        .flatten()
        .cloned()
        .reduce(|one, other| one.larger_of_each(&other))
}

/// Says of random requests at depth 32 whether they are what they should be.
fn judge(results: &Results) {
    for (index, load) in LOADS
        .iter()
        .enumerate()
        .filter(|(_, load)| load.is_judged())
    {
        let rates = |name| -> Option<Samples> {
            let measured = results.get(&(index, name))?;
            Some(measured.iter().map(|one| one.rate).collect())
        };
        let Some(own) = rates(Contender::Cuddy.name()) else {
            continue;
        };
        let say = |to: &str, other: Option<Samples>, target: f64| {
            if let Some(other) = other {
                let ratio = own.ratio_to(&other);
                let word = if ratio >= target { "met" } else { "MISSED" };
                println!(
                    "{}: to {to} {ratio:.2}, target {target}: {word}",
                    load.name()
                );
            }
        };
        println!();
        say("fio", rates(fio::ALONE), TO_HOST);
        say(fio::BESIDE_SPINNER, rates(fio::BESIDE_SPINNER), TO_HOST);
        let qemu = best(&Contender::QEMU.map(|contender| rates(contender.name())));
        say("QEMU's best engine", qemu, TO_QEMU);
    }
}
