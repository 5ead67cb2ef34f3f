//! An ext4 disk: what is synced is there after a reboot.

use std::fs::File;
use std::path::Path;

use cuddy_lab::{Cache, Program};

use crate::setup::{self, COMMAND_LIMIT, TRANSFER_LIMIT};

const DISK_MIB: u64 = 16;

fn make_ext4(image: &Path) {
    File::create(image)
        .unwrap()
        .set_len(DISK_MIB << 20)
        .unwrap();
    // Journal and tables are made here, not by the guest in the background.
    let options = "lazy_itable_init=0,lazy_journal_init=0";
    let mke2fs = Program::find(&Cache::open().unwrap(), "e2fsprogs", "mke2fs").unwrap();
    let made = mke2fs
        .command()
        .args(["-q", "-t", "ext4", "-E", options])
        .arg(image)
        .status()
        .unwrap();
    assert!(made.success());
}

#[test]
fn what_is_synced_survives_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    make_ext4(&image);
    let mut options = setup::options(1);
    options.disks = vec![format!("path={}", image.display())];
    options.more = vec!["--on-reboot", "restart"];
    let mut machine = setup::start(&options);
    let process = machine.id();

    let checksum = "sha256sum < /mnt/bytes | cut -d' ' -f1";
    machine
        .run("mount -t ext4 /dev/vda /mnt", COMMAND_LIMIT)
        .unwrap();
    machine
        .run(
            "dd if=/dev/urandom of=/mnt/bytes bs=64k count=4",
            TRANSFER_LIMIT,
        )
        .unwrap();
    let written = machine.run(checksum, TRANSFER_LIMIT).unwrap();
    assert_eq!(written.len(), 64);
    machine.run("sync", TRANSFER_LIMIT).unwrap();

    // Not unmounted: what was synced has to be found by the journal.
    machine.console.send("reboot -f\n").unwrap();
    machine
        .console
        .expect("init after ", setup::BOOT_LIMIT)
        .unwrap();
    setup::expect_shell(&mut machine);
    assert_eq!(machine.id(), process);
    machine
        .run("mount -t ext4 /dev/vda /mnt", COMMAND_LIMIT)
        .unwrap();
    assert_eq!(machine.run(checksum, TRANSFER_LIMIT).unwrap(), written);
    machine.run("umount /mnt", COMMAND_LIMIT).unwrap();
    setup::power_off(machine);
}
