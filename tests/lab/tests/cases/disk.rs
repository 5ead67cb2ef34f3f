//! virtio-blk under a stock driver: what is synced is there after a reboot, and in the host's file.

use std::fs::File;

use sha2::{Digest, Sha256};

use crate::setup::{self, COMMAND_LIMIT, TRANSFER_LIMIT};

const DISK_MIB: u64 = 16;

/// The sum in the form of `sha256sum`.
fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn what_is_synced_survives_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image)
        .unwrap()
        .set_len(DISK_MIB << 20)
        .unwrap();
    let mut options = setup::elf();
    options.cpus = 2;
    options.disks = vec![format!("path={}", image.display())];
    options.more = vec!["--on-reboot", "restart"];
    let mut machine = setup::start(&options);

    let size = machine
        .run("blockdev --getsize64 /dev/vda", COMMAND_LIMIT)
        .unwrap();
    assert_eq!(size, (DISK_MIB << 20).to_string());
    let fill = format!("dd if=/dev/urandom of=/dev/vda bs=1M count={DISK_MIB} conv=fsync");
    machine.run(&fill, TRANSFER_LIMIT).unwrap();
    let checksum = "sha256sum < /dev/vda | cut -d' ' -f1";
    let written = machine.run(checksum, TRANSFER_LIMIT).unwrap();
    machine.run("sync", COMMAND_LIMIT).unwrap();
    assert_eq!(sum(&std::fs::read(&image).unwrap()), written);

    setup::reboot(&mut machine);
    let read_back = machine.run(checksum, TRANSFER_LIMIT).unwrap();
    assert_eq!(read_back, written);
    setup::power_off(machine);
    assert_eq!(sum(&std::fs::read(&image).unwrap()), written);
}

#[test]
fn a_read_only_disk_reads_and_refuses_writes() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    let content: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    std::fs::write(&image, &content).unwrap();
    let mut options = setup::elf();
    options.disks = vec![format!("path={},readonly=on", image.display())];
    options.more = vec!["--transport", "mmio"];
    let mut machine = setup::start(&options);

    assert_eq!(
        machine.run("cat /sys/block/vda/ro", COMMAND_LIMIT).unwrap(),
        "1"
    );
    let read = machine
        .run("sha256sum < /dev/vda | cut -d' ' -f1", COMMAND_LIMIT)
        .unwrap();
    assert_eq!(read, sum(&content));
    let write = "dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync";
    machine.run(write, COMMAND_LIMIT).unwrap_err();
    setup::power_off(machine);
    assert_eq!(std::fs::read(&image).unwrap(), content);
}
