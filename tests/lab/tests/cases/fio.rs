//! Disks of a host that fails: fio in the guest writes blocks of random sizes at random places, reads them back and
//! compares their checksums, while the host has bad sectors or no space left.
//!
//! A request that fails is an error in the guest. What was answered without an error has to be right.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cuddy_lab::{Assets, Machine};

use crate::failing_disk::FailingDisk;
use crate::setup::{self, COMMAND_LIMIT};
use crate::tools::{self, Tools, check_qcow2, succeed, undo};

const DISK_MIB: u64 = 16;
/// 256 KiB at the end of the first half, and as much at the beginning of the second.
const BAD_SECTORS: Range<u64> = 31 << 9..33 << 9;
/// For all jobs on one disk.
const FIO_LIMIT: Duration = Duration::from_secs(300);
/// What a machine says that is paused for an error.
const PAUSED: &str = "paused until it is resumed";

/// Defines `verify DISK`: two jobs side by side, on a half of the disk each. One writes as fast as it can, the other
/// reads and writes at a rate. Both read what they wrote, 32 blocks at a time: at the end, fio 3.33 would miss the seeds
/// of blocks that failed. Prints the errors of each.
const DEFINE: &str = r#"verify() { tool fio --filename=/dev/$1 --direct=1 --ioengine=libaio --thread \
 --size=8m --bsrange=512-64k --verify=crc32c --verify_backlog=32 --verify_fatal=1 --continue_on_error=io \
 --name=fast --rw=randwrite --iodepth=16 \
 --name=mixed --rw=randrw --rwmixwrite=60 --iodepth=4 --rate=4m,4m --offset=8m > /tmp/fio 2>&1; \
 echo status $?; grep -o 'total=.*first_error=[0-9]*' /tmp/fio; grep -i verify: /tmp/fio; true; }"#;

/// Two jobs without an error, and what was read back is what was written.
const CLEAN: &str = "status 0\ntotal=0, first_error=0\ntotal=0, first_error=0";

/// A machine whose first disk has fio; `disks` come behind it.
fn start(disks: &[String]) -> Machine {
    let mut options = setup::elf();
    options.cpus = 2;
    options.disks = vec![tools::disk()];
    options.disks.extend_from_slice(disks);
    let mut machine = setup::start(&options);
    tools::mount(&mut machine, "vda");
    machine.run(DEFINE, COMMAND_LIMIT).unwrap();
    // The kernel's own words of each error take the console longer than the errors.
    machine.run("dmesg -n 1", COMMAND_LIMIT).unwrap();
    machine
}

fn verify(machine: &mut Machine, disk: &str) -> String {
    let outcome = machine.run(&format!("verify {disk}"), FIO_LIMIT).unwrap();
    println!("{disk}: {outcome}");
    assert!(!outcome.contains("verify:"), "{outcome}");
    outcome
}

fn create(path: &Path, format: &str) {
    let mut command = Command::new(Assets::get().unwrap().cuddy);
    command.args(["image", "create"]).arg(path);
    succeed(command.args([&format!("{DISK_MIB}M"), "--format", format]));
}

#[test]
fn bad_sectors_are_errors_and_the_rest_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let tools = Tools::new();
    let raw = folder.path().join("raw");
    let qcow2 = folder.path().join("qcow2");
    create(&raw, "raw");
    create(&qcow2, "qcow2");
    // A device does not grow, so that there is room for the image's tables from the start.
    let file = File::options().write(true).open(&qcow2).unwrap();
    file.set_len((DISK_MIB + 4) << 20).unwrap();
    let raw_disk = FailingDisk::new(&tools, "cuddy-raw", &raw);
    let qcow2_disk = FailingDisk::new(&tools, "cuddy-qcow2", &qcow2);
    let mut machine = start(&[
        format!("path={},cache=none", raw_disk.path().display()),
        format!(
            "path={},cache=none,format=qcow2",
            qcow2_disk.path().display()
        ),
    ]);
    for (disk, name) in [(&raw_disk, "vdb"), (&qcow2_disk, "vdc")] {
        disk.fail(BAD_SECTORS);
        let outcome = verify(&mut machine, name);
        assert!(outcome.contains("first_error=5"), "{outcome}");
        disk.fail(0..0);
        assert_eq!(verify(&mut machine, name), CLEAN);
    }
    setup::power_off(machine);
    println!("{}", check_qcow2(&tools, &qcow2_disk.path()));
}

/// A file system in memory, which goes with this value.
#[derive(Debug)]
struct SmallFileSystem {
    folder: tempfile::TempDir,
}

impl SmallFileSystem {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        succeed(mount.arg(folder.path()));
        Self { folder }
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]);
        succeed(mount.arg(self.folder.path()));
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        undo(Command::new("umount").arg(self.folder.path()));
    }
}

const SMALL: &str = "10m";
const LARGE: &str = "40m";

#[test]
fn a_full_file_system_is_an_error_or_a_pause() {
    let tools = Tools::new();
    let [raw, qcow2, reported] = [(); 3].map(|()| SmallFileSystem::new(SMALL));
    create(&raw.image(), "raw");
    create(&qcow2.image(), "qcow2");
    create(&reported.image(), "qcow2");
    let mut machine = start(&[
        format!("path={},on-error=stop", raw.image().display()),
        format!(
            "path={},on-error=stop,format=qcow2",
            qcow2.image().display()
        ),
        format!("path={},format=qcow2", reported.image().display()),
    ]);
    for (pauses, (place, name)) in [(&raw, "vdb"), (&qcow2, "vdc")].into_iter().enumerate() {
        machine
            .console
            .send(&format!("verify {name}; echo do''ne\n"))
            .unwrap();
        machine
            .expect_message(PAUSED, pauses + 1, FIO_LIMIT)
            .unwrap();
        place.resize(LARGE);
        let mut resume = Command::new("kill");
        succeed(resume.args(["-CONT", &machine.id().to_string()]));
        let outcome = machine.console.expect("done", FIO_LIMIT).unwrap();
        let outcome = outcome.replace("\r\n", "\n");
        assert!(outcome.trim_end().ends_with(CLEAN), "{outcome}");
    }
    let outcome = verify(&mut machine, "vdd");
    assert!(outcome.contains("first_error=5"), "{outcome}");
    reported.resize(LARGE);
    assert_eq!(verify(&mut machine, "vdd"), CLEAN);
    setup::power_off(machine);
    for place in [&qcow2, &reported] {
        println!("{}", check_qcow2(&tools, &place.image()));
    }
}
