//! virtio-vsock under a stock driver: 64 MiB in either direction, one connected by the guest and one by the host,
//! with slow readers and checksums.
//!
//! The guest's end is a script for the perl of the disk with Debian.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use cuddy_lab::{Assets, Initramfs, Machine, MachineOptions};

use crate::setup::{self, COMMAND_LIMIT, TRANSFER_LIMIT};
use crate::transfer;

const BYTES: usize = 64 << 20;
const SCRIPT: &str = include_str!("vsock.pl");
/// What runs the script with these arguments; its standard input is the script.
const PERL: &str = "chroot /mnt perl - ";

/// The small guest with the script in its home, and a socket device in `folder`.
fn options(folder: &Path) -> MachineOptions {
    let assets = Assets::get().unwrap();
    let mut initrd = fs::read(&assets.initrd).unwrap();
    let mut more = Initramfs::new(Vec::new());
    more.file("root/vsock.pl", 0o644, SCRIPT.as_bytes())
        .unwrap();
    initrd.extend(more.finish().unwrap());
    let path = folder.join("initrd");
    fs::write(&path, initrd).unwrap();
    let mut options = MachineOptions::new(&assets.cuddy, &assets.vmlinux, &path);
    options.disks = vec![format!("path={},readonly=on", assets.root_disk.display())];
    options.vsock = Some(format!("cid=3,socket={}", folder.join("vm").display()));
    options
}

/// Reads to the end, with a rest now and then.
fn read_slowly(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    let mut piece = vec![0; 1 << 16];
    for round in 1_u32.. {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            count => bytes.extend_from_slice(&piece[..count]),
        }
        if round.is_multiple_of(256) {
            thread::sleep(Duration::from_millis(20));
        }
    }
    bytes
}

/// A stream to the guest's `port`, at which it listens already.
fn connect(folder: &Path, port: u32) -> UnixStream {
    let mut stream = UnixStream::connect(folder.join("vm")).unwrap();
    writeln!(stream, "CONNECT {port}").unwrap();
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"OK "), "{answer:?}");
    stream
}

fn run(machine: &mut Machine, command: &str) -> String {
    machine.run(command, TRANSFER_LIMIT).unwrap()
}

#[test]
fn streams_of_64_mib_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let server = UnixListener::bind(folder.path().join("vm_1024")).unwrap();
    let mut machine = setup::start(&options(folder.path()));
    machine
        .run("mount -t ext4 -o ro,noload /dev/vda /mnt", COMMAND_LIMIT)
        .unwrap();
    let content = transfer::content(BYTES);
    let expected = transfer::sum(&content);

    // The guest connects, and takes it slowly.
    let sender = thread::spawn(move || {
        let mut stream = server.accept().unwrap().0;
        stream.write_all(&content)
    });
    let take = format!("{PERL} connect 1024 take < vsock.pl > /tmp/content");
    run(&mut machine, &take);
    sender.join().unwrap().unwrap();
    let received = run(&mut machine, "sha256sum < /tmp/content | cut -d' ' -f1");
    assert_eq!(received, expected);

    // A client of the host's connects, and takes it slowly.
    let give = format!("{PERL} listen 52 give < vsock.pl 3< /tmp/content 2> /tmp/log & true");
    run(&mut machine, &give);
    run(
        &mut machine,
        "until grep -q LISTENING /tmp/log; do sleep 0.1; done",
    );
    let mut stream = connect(folder.path(), 52);
    let back = read_slowly(&mut stream);
    assert_eq!(back.len(), BYTES);
    assert_eq!(transfer::sum(&back), expected);
    drop(stream);
    run(&mut machine, "wait");

    // Ports at which nobody listens, on either side.
    let refused = format!("! {PERL} connect 9 take < vsock.pl 2> /tmp/refused && cat /tmp/refused");
    assert!(run(&mut machine, &refused).contains("Connection reset"));
    let mut nobody = UnixStream::connect(folder.path().join("vm")).unwrap();
    writeln!(nobody, "CONNECT 53").unwrap();
    assert_eq!(nobody.read(&mut [0]).unwrap(), 0);
    setup::power_off(machine);
    assert!(!folder.path().join("vm").exists());
}
