//! A transfer through TCP in both directions, with checksums.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use cuddy_lab::Console;
use sha2::{Digest, Sha256};

use crate::setup::TRANSFER_LIMIT;

/// Moves `length` bytes from `host`, an address of this side, to the guest, and back.
pub(crate) fn both_ways(console: &mut Console, host: &str, length: usize) {
    let content = content(length);
    let expected = sum(&content);
    // To the guest.
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let sender = thread::spawn(move || listener.accept().unwrap().0.write_all(&content));
    let receive = format!(
        "nc {host} {port} < /dev/null > /tmp/content && sha256sum < /tmp/content | cut -d' ' -f1"
    );
    let received = console.run(&receive, TRANSFER_LIMIT).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(received, expected);

    // And back.
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let receiver = thread::spawn(move || {
        let mut bytes = Vec::new();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut bytes).map(|_| bytes)
    });
    console
        .run(&format!("nc {host} {port} < /tmp/content"), TRANSFER_LIMIT)
        .unwrap();
    let received = receiver.join().unwrap().unwrap();
    assert_eq!(received.len(), length);
    assert_eq!(sum(&received), expected);
}

/// Bytes without a pattern that a lost or repeated segment could hide in.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        // Xorshift (Marsaglia).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

pub(crate) fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
