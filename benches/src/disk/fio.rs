//! fio: what a program of the host's gets by io_uring, in the way that costs least: registered file and
//! buffers, and one system call for what has completed and what is new.
//!
//! A guest that polls keeps a processor to itself, on which else the host would see to its disks. So there
//! is fio with the whole host, and fio beside a thread that spins as the guest does.

use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use cuddy_lab::Program;

use super::image::{Images, Setting};
use super::load::{Load, Measured};
use crate::Failure;

/// With the whole host.
pub(super) const ALONE: &str = "fio";
/// With one processor less.
pub(super) const BESIDE_SPINNER: &str = "fio beside a spinning thread";

/// As [`run`], while another thread of this process spins.
pub(super) fn run_beside_spinner(
    fio: &Program,
    load: Load,
    setting: Setting,
    images: &Images,
    milliseconds: u64,
) -> Result<Measured, Failure> {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                hint::spin_loop();
            }
        });
        let measured = run(fio, load, setting, images, milliseconds);
        ends.store(true, Ordering::Relaxed);
        measured
    })
}

/// Runs `load` on the raw image of `setting`, a thread for each queue.
pub(super) fn run(
    fio: &Program,
    load: Load,
    setting: Setting,
    images: &Images,
    milliseconds: u64,
) -> Result<Measured, Failure> {
    let kind = match (load.is_random, load.writes) {
        (true, false) => "randread",
        (true, true) => "randwrite",
        (false, false) => "read",
        (false, true) => "write",
    };
    let size = if load.is_random { "4k" } else { "1m" };
    let mut command = fio.command();
    if let Some(root) = fio.unpacked() {
        // One of its libraries has a folder for what it needs itself.
        let further = root.join("usr/lib/x86_64-linux-gnu/ceph");
        command.env(
            "LD_LIBRARY_PATH",
            format!("{}:{}", fio.libraries(), further.display()),
        );
    }
    command
        .args(["--name=load", "--ioengine=io_uring", "--registerfiles=1"])
        .args(["--fixedbufs=1", "--thread", "--group_reporting"])
        .args([
            "--time_based",
            "--norandommap",
            "--random_generator=tausworthe64",
        ])
        .args(["--output-format=terse", "--terse-version=3"])
        .arg(format!("--filename={}", images.path(setting).display()))
        .arg(format!("--rw={kind}"))
        .arg(format!("--bs={size}"))
        .arg(format!("--direct={}", u8::from(!setting.in_memory)))
        .arg(format!("--iodepth={}", load.depth))
        .arg(format!("--iodepth_batch_submit={}", load.depth))
        .arg("--iodepth_batch_complete_min=1")
        .arg(format!("--iodepth_batch_complete_max={}", load.depth))
        .arg(format!("--numjobs={}", setting.queues))
        .arg(format!("--runtime={milliseconds}ms"));
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text, load.writes).ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("fio: {}; {text}{errors}", output.status).into()
    })
}

/// From a line of version 3 of fio's terse output (fio(1), "Terse output").
fn parse(output: &str, writes: bool) -> Option<Measured> {
    let line = output.lines().find(|line| line.starts_with("3;"))?;
    let fields: Vec<_> = line.split(';').collect();
    // Reads from field 5 on, writes 41 fields later.
    let first = if writes { 46 } else { 5 };
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let percentile = |wanted: &str| {
        let all = fields.get(first + 12..first + 32)?;
        all.iter().find_map(|field| {
            let (percent, microseconds) = field.split_once("%=")?;
            (percent == wanted).then(|| microseconds.parse().ok())?
        })
    };
    let (rate, runtime_milliseconds) = (number(first + 2)?, number(first + 3)?);
    // User and system time of all threads, in per cent of the run.
    let busy = |index: usize| -> Option<f64> { fields.get(index)?.strip_suffix('%')?.parse().ok() };
    let processors = (busy(87)? + busy(88)?) / 100.0;
    let requests = rate * runtime_milliseconds / 1e3;
    Some(Measured {
        rate,
        p50: percentile("50.000000")?,
        p99: percentile("99.000000")?,
        p999: percentile("99.900000")?,
        cpu_time: processors * runtime_milliseconds * 1e3 / requests,
        doorbells: 0.0,
    })
}
