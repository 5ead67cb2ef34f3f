//! Completions that are polled for, on disks in memory (Linux, Documentation/block/null_blk.rst), whose driver has
//! queues for that, or not. On a host of its own the module `null_blk` has to be there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::setup::{self, COMMAND_LIMIT, END_LIMIT, TRANSFER_LIMIT};

const MIB: usize = 16;
/// Where configfs is.
const CONFIG: &str = "/sys/kernel/config";

/// A disk in memory; gone when dropped.
struct MemoryDisk {
    folder: PathBuf,
    device: PathBuf,
}

impl MemoryDisk {
    fn new(name: &str, poll_queues: u8) -> Self {
        // Built in, or there already.
        let _ = Command::new("modprobe").arg("null_blk").status();
        let _ = Command::new("mount")
            .args(["-t", "configfs", "configfs", CONFIG])
            .status();
        let folder = Path::new(CONFIG).join("nullb").join(name);
        fs::create_dir(&folder).expect("the module null_blk");
        let set = |attribute: &str, value: &str| {
            fs::write(folder.join(attribute), value).unwrap_or_else(|error| {
                panic!("{attribute}={value}: {error}");
            });
        };
        set("size", &MIB.to_string());
        set("memory_backed", "1");
        set("blocksize", "512");
        set("poll_queues", &poll_queues.to_string());
        set("power", "1");
        let index = fs::read_to_string(folder.join("index")).unwrap();
        let names = [name.to_owned(), format!("nullb{}", index.trim())];
        let device = names.map(|name| Path::new("/dev").join(name));
        let device = device.into_iter().find(|device| device.exists()).unwrap();
        Self { folder, device }
    }

    fn option(&self, iopoll: &str) -> String {
        format!("path={},cache=none,iopoll={iopoll}", self.device.display())
    }

    fn sum(&self) -> String {
        let bytes = Sha256::digest(fs::read(&self.device).unwrap());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("power"), "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Ticks of processor time that the threads of a disk have had.
fn ticks(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut sum = 0;
    for task in tasks {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        if name.starts_with("disk0") {
            let stat = fs::read_to_string(task.join("stat")).unwrap();
            let fields = stat.split_once(") ").unwrap().1.split(' ');
            let times = fields.skip(11).take(2);
            sum += times.map(|time| time.parse::<u64>().unwrap()).sum::<u64>();
        }
    }
    sum
}

#[test]
fn a_disk_is_polled_while_it_is_used_and_left_alone_while_not() {
    let disk = MemoryDisk::new("polled", 1);
    let mut options = setup::elf();
    options.disks = vec![disk.option("on")];
    let mut machine = setup::start(&options);
    let fill = format!("dd if=/dev/urandom of=/dev/vda bs=1M count={MIB} conv=fsync");
    machine.run(&fill, TRANSFER_LIMIT).unwrap();
    let checksum = "sync; echo 3 > /proc/sys/vm/drop_caches; sha256sum < /dev/vda | cut -d' ' -f1";
    let read = machine.run(checksum, TRANSFER_LIMIT).unwrap();
    let before = ticks(machine.id());
    assert!(before > 0, "no thread of the disk");
    thread::sleep(Duration::from_secs(3));
    let idle = ticks(machine.id()) - before;
    assert!(idle < 30, "{idle} ticks in three seconds without a request");
    setup::power_off(machine);
    assert_eq!(disk.sum(), read);
}

#[test]
fn a_disk_without_queues_for_it_is_polled_for_nobody() {
    let disk = MemoryDisk::new("plain", 0);
    let mut options = setup::elf();
    options.disks = vec![disk.option("on")];
    let mut refused = options.start().unwrap();
    let status = refused.wait(END_LIMIT).unwrap();
    assert_ne!(status.code(), Some(0));
    let message = refused.messages();
    assert!(
        message.contains("cannot poll for its completions"),
        "{message}"
    );
    options.disks = vec![disk.option("auto")];
    let mut machine = setup::start(&options);
    let copy = "dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync";
    machine.run(copy, COMMAND_LIMIT).unwrap();
    setup::power_off(machine);
}
