//! A network interface over TAP: ping in both directions, and a transfer whose checksum is compared.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use cuddy_lab::{Cache, busybox};
use sha2::{Digest, Sha256};

use crate::setup::{self, COMMAND_LIMIT, TRANSFER_LIMIT};
use crate::tap::Tap;

const BYTES: usize = 2 << 20;
const HOST: &str = "10.79.0.1";
const GUEST: &str = "10.79.0.2";

/// Gives this thread a network of its own, which the programs that it starts share.
fn own_network() {
    // SAFETY: unshare takes no pointers; it concerns this thread alone.
    let status = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

/// Bytes without a pattern that a lost or repeated segment could hide in.
fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(BYTES);
    while bytes.len() < BYTES {
        // Xorshift (Marsaglia).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn pings_and_transfers_both_ways() {
    own_network();
    let _tap = Tap::new("tap0", &format!("{HOST}/24"));
    let mut options = setup::options(1);
    options.nets = vec!["tap=tap0".to_owned()];
    let mut machine = setup::start(&options);
    let up = format!("ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up");
    machine.run(&up, COMMAND_LIMIT).unwrap();
    machine
        .run(&format!("ping -c 3 -W 10 {HOST}"), COMMAND_LIMIT)
        .unwrap();
    let ping = Command::new(busybox(&Cache::open().unwrap()).unwrap())
        .args(["ping", "-q", "-c", "3", "-W", "10", GUEST])
        .output()
        .unwrap();
    assert!(ping.status.success(), "{ping:?}");

    let content = content();
    let expected = sum(&content);
    // To the guest.
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let sender = thread::spawn(move || listener.accept().unwrap().0.write_all(&content));
    let receive = format!(
        "nc {HOST} {port} < /dev/null > /tmp/content && sha256sum < /tmp/content | cut -d' ' -f1"
    );
    let received = machine.run(&receive, TRANSFER_LIMIT).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(received, expected);

    // And back.
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let receiver = thread::spawn(move || {
        let mut bytes = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut bytes).map(|_| bytes)
    });
    machine
        .run(&format!("nc {HOST} {port} < /tmp/content"), TRANSFER_LIMIT)
        .unwrap();
    let received = receiver.join().unwrap().unwrap();
    assert_eq!(received.len(), BYTES);
    assert_eq!(sum(&received), expected);
    setup::power_off(machine);
}
