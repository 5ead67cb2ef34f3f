//! virtio-net under a stock driver: 64 MiB through TCP in both directions, with checksums.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use sha2::{Digest, Sha256};

use crate::setup::{self, COMMAND_LIMIT, TRANSFER_LIMIT};
use crate::tap::Tap;

const BYTES: usize = 64 << 20;
const HOST: &str = "10.78.0.1";

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
fn tap_64_mib_both_ways() {
    let _tap = Tap::new("cuddy-net0", "10.78.0.1/24");
    let mut options = setup::elf();
    options.cpus = 2;
    options.nets = vec!["tap=cuddy-net0".to_owned()];
    let mut machine = setup::start(&options);
    machine
        .run(
            "ip addr add 10.78.0.2/24 dev eth0 && ip link set eth0 up",
            COMMAND_LIMIT,
        )
        .unwrap();
    machine
        .run(&format!("ping -c 3 {HOST}"), COMMAND_LIMIT)
        .unwrap();

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
