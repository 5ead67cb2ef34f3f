//! A machine that is killed in the middle of writes loses nothing of what its guest was told is flushed.
//!
//! In each round a guest writes its log ([`write_log`]) until the process gets SIGKILL, at no particular
//! moment. Then the image must have each record whose flush the guest had reported. A qcow2 image must be
//! one without a damage that `qemu-img check` sees; it may have clusters that were taken and not used,
//! which are given back when it is next opened to be written to: from then on `qemu-img check` finds nothing at
//! all. Two machines, one after the other, are killed over each image.
//!
//! `CUDDY_KILL_ROUNDS` says how many rounds each test has.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use cuddy_lab::{Cache, Program};
use cuddy_tests::write_log::WriteLog;
use cuddy_tests::{Finished, MachineBuilder};
use vmm::ImageFormat;
use vmm::image::{self, CreateOptions};

const SECTORS: u64 = 16 * 4096;
const SECTOR_BYTES: u64 = 512;
const ROUNDS: usize = 12;
/// Machines that are killed over one image.
const KILLS_OF_AN_IMAGE: usize = 2;
/// A machine is killed before this time has passed since its guest's first flush.
const LIFE: Duration = Duration::from_millis(150);

/// Where images are: in memory, where flushes take no time and most happens at once, or on a real disk.
const MEMORY: &str = "/dev/shm";
const DISK: &str = env!("CARGO_TARGET_TMPDIR");

/// How many rounds a test has.
fn rounds() -> usize {
    match std::env::var("CUDDY_KILL_ROUNDS") {
        Ok(number) => number.parse().expect("CUDDY_KILL_ROUNDS is a number"),
        Err(_) => ROUNDS,
    }
}

/// How long a machine lives after its first flush: nobody knows before.
fn life() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanoseconds = now.expect("a clock that goes on").subsec_nanos();
    let random = nanoseconds.wrapping_mul(0x9e37_79b9);
    LIFE.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Runs the log on the disk that `keys` say, from record `from` on, and kills the machine.
fn run_and_kill(path: &Path, keys: &str, from: u64) -> Finished {
    let mut argument = OsString::from("path=");
    argument.push(path);
    argument.push(keys);
    let mut machine = MachineBuilder::suite("blk-log")
        .option(&format!("log.from={from}"))
        .argument("--disk", argument)
        .start();
    machine.expect("FLUSHED ");
    std::thread::sleep(life());
    machine.signal(libc::SIGKILL);
    machine.finish()
}

/// How many records were flushed, as far as the guest has said it in whole lines.
fn flushed(finished: &Finished, from: u64) -> u64 {
    assert_eq!(finished.code(), None, "not killed\n{finished}");
    let output = String::from_utf8_lossy(&finished.output);
    assert!(!output.contains("FAIL"), "{finished}");
    let whole = output.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let last = whole
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("FLUSHED "))
        .next_back();
    last.map_or(from, |number| number.parse().expect("a number"))
}

/// Kills machines over images made by `create`, whose disks `read` gives, with each of `variants` in turn:
/// where the image is, and with which keys a machine has it.
fn kill(
    variants: &[(&str, &str)],
    create: impl Fn(&Path),
    check: impl Fn(&Path) -> bool,
    read: impl Fn(&Path) -> Vec<u8>,
) {
    let directories = [MEMORY, DISK].map(|place| {
        let directory = tempfile::tempdir_in(place).expect("a directory");
        (place, directory)
    });
    let (mut records, mut leaks) = (0, 0);
    let rounds = rounds();
    let mut log = WriteLog::new(SECTORS);
    for round in 0..rounds {
        // Each variant gets whole images.
        let (place, keys) = variants[round / KILLS_OF_AN_IMAGE % variants.len()];
        let directory = directories.iter().find(|(other, _)| *other == place);
        let path = directory.expect("one of both").1.path().join("disk");
        if round % KILLS_OF_AN_IMAGE == 0 {
            // Nothing is there in the first round.
            let _missing = fs::remove_file(&path);
            create(&path);
            log = WriteLog::new(SECTORS);
        }
        let from = log.next();
        let finished = run_and_kill(&path, keys, from);
        let flushed = flushed(&finished, from);
        records += flushed - from;
        leaks += usize::from(check(&path));
        if let Err(error) = log.check(&read(&path), flushed) {
            panic!("round {round}, {keys:?}, records {from} to {flushed}: {error}\n{finished}");
        }
    }
    println!(
        "{rounds} machines killed: {records} records flushed and found, {leaks} images with leaks"
    );
}

#[test]
fn raw_disks_keep_what_was_flushed() {
    kill(
        &[
            (MEMORY, ""),
            (DISK, ""),
            (MEMORY, ",engine=threads"),
            (DISK, ",engine=threads"),
            (DISK, ",cache=none"),
            (DISK, ",cache=none,engine=threads"),
        ],
        |path| {
            let options = CreateOptions {
                size_bytes: Some(SECTORS * SECTOR_BYTES),
                ..CreateOptions::default()
            };
            image::create(path, &options).expect("an image");
        },
        |_| false,
        |path| fs::read(path).expect("the image"),
    );
}

#[test]
fn qcow2_disks_keep_what_was_flushed() {
    let cache = Cache::open().expect("the cache of Debian's packages");
    let qemu_img = Program::find(&cache, "qemu-utils", "qemu-img").expect("qemu-img");
    kill(
        &[
            (MEMORY, ",format=qcow2"),
            (DISK, ",format=qcow2"),
            (MEMORY, ",format=qcow2,engine=threads,queues=2"),
            (DISK, ",format=qcow2,cache=none"),
        ],
        |path| {
            let options = CreateOptions {
                format: ImageFormat::Qcow2,
                size_bytes: Some(SECTORS * SECTOR_BYTES),
                ..CreateOptions::default()
            };
            image::create(path, &options).expect("an image");
        },
        |path| {
            let has_leaks = has_leaks(qemu_img.command(), path);
            // Opens it to write to it, and changes nothing.
            image::resize(path, ImageFormat::Qcow2, SECTORS * SECTOR_BYTES).expect("an image");
            let is_mended = !self::has_leaks(qemu_img.command(), path);
            assert!(is_mended, "leaks that are not given back");
            has_leaks
        },
        |path| {
            let copy = path.with_extension("copy");
            image::convert(path, ImageFormat::Qcow2, &copy, &CreateOptions::default())
                .expect("a copy");
            let bytes = fs::read(&copy).expect("the copy");
            fs::remove_file(&copy).expect("the copy");
            bytes
        },
    );
}

/// Whether the image has clusters that nothing refers to: what a killed machine had taken and not used yet.
/// They are lost space, and no damage.
fn has_leaks(mut qemu_img: Command, path: &Path) -> bool {
    let output = qemu_img
        .args(["check", "-f", "qcow2"])
        .arg(path)
        .output()
        .expect("qemu-img can be started");
    match output.status.code() {
        Some(0) => false,
        Some(3) => true,
        _ => panic!(
            "qemu-img check: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}
