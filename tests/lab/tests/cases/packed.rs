//! Packed virtqueues under stock drivers: a disk and a network at work, and a reboot between.

use std::fs::File;

use crate::setup::{self, COMMAND_LIMIT, TRANSFER_LIMIT};
use crate::tap::Tap;
use crate::transfer;

const HOST: &str = "10.79.0.1";
const NET_BYTES: usize = 1 << 20;

#[test]
fn packed_rings_carry_a_disk_and_a_network() {
    let _tap = Tap::new("cuddy-packed0", "10.79.0.1/24");
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let mut options = setup::elf();
    options.cpus = 2;
    options.disks = vec![format!("path={}", image.display())];
    options.nets = vec!["tap=cuddy-packed0".to_owned()];
    options.more = vec!["--packed-rings", "on", "--on-reboot", "restart"];
    let mut machine = setup::start(&options);

    // Bit 34 of each device's features, which Linux shows lowest first.
    let bits = "cut -c35 /sys/bus/virtio/devices/*/features | sort -u";
    assert_eq!(machine.run(bits, COMMAND_LIMIT).unwrap(), "1");
    let fill = "dd if=/dev/urandom of=/dev/vda bs=1M count=4 conv=fsync";
    machine.run(fill, TRANSFER_LIMIT).unwrap();
    let checksum = "sha256sum < /dev/vda | cut -d' ' -f1";
    let written = machine.run(checksum, TRANSFER_LIMIT).unwrap();
    setup::reboot(&mut machine);
    assert_eq!(machine.run(checksum, TRANSFER_LIMIT).unwrap(), written);

    let address = "ip addr add 10.79.0.2/24 dev eth0 && ip link set eth0 up";
    machine.run(address, COMMAND_LIMIT).unwrap();
    transfer::both_ways(&mut machine.console, HOST, NET_BYTES);
    setup::power_off(machine);
}
