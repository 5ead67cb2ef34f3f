//! A kernel that starts another one: the second finds the devices as a machine's first kernel does, and nothing
//! that the first had asked them for is written into its memory.

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use cuddy_lab::Assets;

use crate::setup::{self, BOOT_LIMIT, COMMAND_LIMIT, TRANSFER_LIMIT};
use crate::tap::Tap;
use crate::{tools, transfer};

const TAP: &str = "cuddy-kexec0";
const HOST: &str = "10.81.0.1";
const BROADCAST: &str = "10.81.0.255:9";
const ADDRESS: &str = "ip addr add 10.81.0.2/24 dev eth0 && ip link set eth0 up";
const NET_BYTES: usize = 512 << 10;
const SECTOR_BYTES: u64 = 512;

/// A shell before init, and so before any driver of virtio.
const CMDLINE: &str = "console=ttyS0 quiet rdinit=/bin/sh";
const SHELL_BEFORE_INIT: &str = "/ # ";
/// Fills most of the memory with zeros, in a file, and says how many bytes that were.
const FILL: &str = "mkdir /nodes; mount -t devtmpfs nodes /nodes; mount -t tmpfs -o size=75% tmpfs /mnt; \
                    dd if=/nodes/zero of=/mnt/zeros bs=1M 2> /nodes/null; stat -c %s /mnt/zeros";
/// That much there is to fill at the least.
const FILLED_BYTES: u64 = 96 << 20;
/// Where all of the file is zero that is a line for the first bytes, one for those like it, and one for the end.
const LINES_OF_ZEROS: &str = "od /mnt/zeros | head | wc -l";

#[test]
fn a_kernel_starts_another_that_nothing_is_written_into() {
    let _tap = Tap::new(TAP, "10.81.0.1/24");
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let assets = Assets::get().unwrap();
    let mut options = setup::elf();
    options.cpus = 2;
    options.memory_mib = 256;
    options.disks = vec![
        format!("path={}", image.display()),
        tools::disk(),
        as_disk(&assets.vmlinuz, folder.path()),
        as_disk(&assets.initrd, folder.path()),
    ];
    options.nets = vec![format!("tap={TAP}")];
    let mut machine = setup::start(&options);
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let first = machine.run(boot, COMMAND_LIMIT).unwrap();

    let fill = "dd if=/dev/urandom of=/dev/vda bs=1M conv=fsync 2> /dev/null; sha256sum < /dev/vda";
    let sum = machine.run(fill, TRANSFER_LIMIT).unwrap();
    machine.run(ADDRESS, COMMAND_LIMIT).unwrap();
    machine
        .run(&format!("ping -c 1 {HOST}"), COMMAND_LIMIT)
        .unwrap();
    tools::mount(&mut machine, "vdb");
    let copy = "cat /dev/vdc > /tmp/vmlinuz; cat /dev/vdd > /tmp/initrd";
    machine.run(copy, TRANSFER_LIMIT).unwrap();
    let load =
        format!("tool kexec -s -l /tmp/vmlinuz --initrd=/tmp/initrd --command-line='{CMDLINE}'");
    machine.run(&load, TRANSFER_LIMIT).unwrap();
    machine.console.send("tool kexec -e\n").unwrap();
    machine
        .console
        .expect(SHELL_BEFORE_INIT, BOOT_LIMIT)
        .unwrap();

    // The first kernel gave the network's device buffers, in what is the second's memory now.
    let filled = machine.run(FILL, TRANSFER_LIMIT).unwrap();
    assert!(filled.parse::<u64>().unwrap() >= FILLED_BYTES, "{filled}");
    flood();
    let lines = machine.run(LINES_OF_ZEROS, TRANSFER_LIMIT).unwrap();
    assert_eq!(lines, "3");
    machine
        .console
        .send("umount /mnt /nodes; exec /init\n")
        .unwrap();
    setup::expect_shell(&mut machine);

    let mut run = |command: &str| machine.run(command, TRANSFER_LIMIT).unwrap();
    assert_ne!(run(boot), first);
    assert_eq!(run("nproc"), "2");
    assert_eq!(run("sha256sum < /dev/vda"), sum);
    // A message for each queue, and one for the configuration.
    assert_eq!(run("grep -c 'PCI-MSI.*virtio0' /proc/interrupts"), "3");
    run("dd if=/dev/urandom of=/dev/vda bs=64k count=16 oflag=direct");
    run(ADDRESS);
    transfer::both_ways(&mut machine.console, HOST, NET_BYTES);
    setup::power_off(machine);
}

/// A copy of `file` as a disk, which has whole sectors.
fn as_disk(file: &Path, folder: &Path) -> String {
    let copy: PathBuf = folder.join(file.file_name().unwrap());
    std::fs::copy(file, &copy).unwrap();
    let disk = File::options().write(true).open(&copy).unwrap();
    let bytes = disk.metadata().unwrap().len();
    disk.set_len(bytes.next_multiple_of(SECTOR_BYTES)).unwrap();
    format!("path={},readonly=on", copy.display())
}

/// Sends packets to the guest until the interface has to drop some, because it is full: a device that took any
/// would have taken them by then.
fn flood() {
    let socket = UdpSocket::bind((HOST, 0)).unwrap();
    socket.set_broadcast(true).unwrap();
    let dropped = || {
        let path = format!("/sys/class/net/{TAP}/statistics/tx_dropped");
        let text = std::fs::read_to_string(path).unwrap();
        text.trim().parse::<u64>().unwrap()
    };
    let before = dropped();
    while dropped() == before {
        socket.send_to(&[0xa5; 1400], BROADCAST).unwrap();
    }
}
