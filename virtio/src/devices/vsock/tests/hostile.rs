//! Guests that break rules: packets that lie, refusals that nobody takes, credit that is none.

use super::*;
use crate::devices::vsock::connections::REFUSALS_MAX;
use crate::testing::{Buffer, status};

/// A guest with a connection from its port 10 to the host's port 1.
fn connected() -> (Host, Guest, UnixStream) {
    let host = Host::new();
    let server = host.listen(1);
    let mut guest = Guest::start(host.device(|_| {}), 0, 16);
    guest.connect(10, 1, 1 << 20);
    let stream = accept(&server);
    (host, guest, stream)
}

#[test]
fn packets_that_break_a_connection_end_it_and_no_other() {
    let (host, mut guest, mut other) = connected();
    let server = UnixListener::bind(path_of(&host, 2)).unwrap();
    let good = packet(Operation::Data, 11, 2, 4);
    let packets = [
        (
            "less data than it says",
            packet::Header { length: 5, ..good },
        ),
        (
            "far less data",
            packet::Header {
                length: u32::MAX,
                ..good
            },
        ),
        (
            "no operation",
            packet::Header {
                operation: 0,
                ..good
            },
        ),
        (
            "none that there is",
            packet::Header {
                operation: 8,
                ..good
            },
        ),
        ("a second request", packet(Operation::Request, 11, 2, 0)),
        ("an answer", packet(Operation::Response, 11, 2, 0)),
    ];
    for (what, header) in packets {
        guest.connect(11, 2, 1 << 20);
        let mut stream = accept(&server);
        guest.send_raw(&header, b"data");
        guest.wait(11, what, |stream| stream.got(Operation::Reset));
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "{what}");
        guest.streams.remove(&11);
    }
    guest.write_all(10, b"good");
    let mut bytes = [0; 4];
    other.read_exact(&mut bytes).unwrap();
    assert_eq!(guest.driver.status(), 15);
}

#[test]
fn data_beyond_the_credit_ends_the_connection() {
    let (_host, mut guest, stream) = connected();
    let piece = content(64 * 1024, 1);
    // The host reads nothing; the guest does not care.
    for _ in 0..(2 << 20) / piece.len() {
        guest.send(10, Operation::Data, 0, &piece);
        guest.pump();
    }
    guest.wait(10, "a reset", |stream| stream.got(Operation::Reset));
    drop(stream);
    assert_eq!(guest.driver.status(), 15);
}

#[test]
fn packets_of_nobody_are_dropped_and_others_refused() {
    let host = Host::new();
    let device = host.device(|_| {});
    let counters = device.counters();
    let mut guest = Guest::start(device, 0, 16);
    let good = packet(Operation::Request, 10, 1, 0);
    for header in [
        packet::Header {
            source_cid: 4,
            ..good
        },
        packet::Header {
            source_cid: 3 | 1 << 32,
            ..good
        },
        packet::Header {
            destination_cid: 3,
            ..good
        },
        packet::Header {
            destination_cid: u64::MAX,
            ..good
        },
    ] {
        guest.send_raw(&header, &[]);
    }
    let at = guest.driver.place(&[0; 64]);
    for chain in [&[Buffer::Readable(at, 43)][..], &[Buffer::Writable(at, 64)]] {
        assert_eq!(guest.driver.request(1, chain), 0);
    }
    assert_eq!(counters.counts().dropped, 6);
    guest.pump();
    assert!(guest.others.is_empty(), "{:?}", guest.others);

    // No socket of this type, and no connection; never an answer to a refusal.
    let mut refused = 0;
    for socket_type in [0, 1, 2, 3] {
        for operation in 0..10 {
            let header = packet::Header {
                operation,
                socket_type,
                ..good
            };
            guest.send_raw(&header, &[]);
            if operation != Operation::Reset.number() {
                refused += 1;
                while guest.others.len() < refused {
                    guest.pump();
                }
                assert_eq!(guest.others[refused - 1], header.refusal());
            }
        }
    }
    assert_eq!(counters.counts().dropped, 6);
    assert_eq!(guest.driver.status(), 15);
}

#[test]
fn a_guest_without_buffers_is_refused_only_so_often() {
    let host = Host::new();
    let device = host.device(|options| options.name = "vsock-full".to_owned());
    let mut guest = Guest::start(device, 0, 0);
    let count = u32::try_from(REFUSALS_MAX).unwrap();
    for port in 0..count + 40 {
        guest.queue_raw(&packet(Operation::Request, port, 1, 0), &[]);
    }
    guest.driver.kick(1);
    for _ in 0..count {
        guest.driver.wait_used(1);
    }
    crate::testing::assert_idle("vsock-full");
    assert!(!guest.driver.queues[1].has_used(), "refusals without bound");
    // With buffers all of them come, in their order.
    for number in 0..8 {
        guest.post(crate::testing::THIRD_REGION + number * 0x2000);
    }
    guest.driver.kick(0);
    while guest.others.len() < usize::try_from(count + 40).unwrap() {
        guest.pump();
    }
    for (port, refusal) in (0..).zip(&guest.others) {
        assert_eq!(refusal.destination_port, port);
    }
}

#[test]
fn credit_that_lies_sends_no_more_than_it_says() {
    let (_host, mut guest, mut stream) = connected();
    stream.write_all(&content(10_000, 1)).unwrap();
    guest.wait(10, "data", |stream| stream.received.len() == 10_000);
    // More has left its buffer than ever was in it: that is no credit.
    guest.streams.get_mut(&10).unwrap().read = 20_000;
    guest.send(10, Operation::CreditUpdate, 0, &[]);
    stream.write_all(&content(5_000, 2)).unwrap();
    guest.wait(10, "a question", |stream| {
        stream.got(Operation::CreditRequest)
    });
    assert_eq!(guest.streams[&10].received.len(), 10_000);
    guest.streams.get_mut(&10).unwrap().read = 10_000;
    guest.send(10, Operation::CreditUpdate, 0, &[]);
    guest.wait(10, "data", |stream| stream.received.len() == 15_000);
}

#[test]
fn buffers_that_hold_no_packet_come_back_empty() {
    let host = Host::new();
    let server = host.listen(1);
    let mut guest = Guest::start(host.device(|_| {}), 0, 0);
    let at = guest.driver.place(&[0; 256]);
    for buffer in [Buffer::Writable(at, 43), Buffer::Readable(at, 64)] {
        guest.driver.queues[0].add(&[buffer]);
    }
    guest.driver.kick(0);
    guest.send_raw(&packet(Operation::Request, 10, 1, 0), &[]);
    assert_eq!(guest.driver.wait_used(0).1, 0);
    assert_eq!(guest.driver.wait_used(0).1, 0);
    let mut stream = accept(&server);
    guest.driver.submit(0, &[Buffer::Writable(at, 44)]);
    assert_eq!(guest.driver.wait_used(0).1, 44);
    // A header fits, and no data behind it.
    stream.write_all(b"data").unwrap();
    guest.driver.submit(0, &[Buffer::Writable(at, 44)]);
    assert_eq!(guest.driver.wait_used(0).1, 0);
    guest.driver.submit(0, &[Buffer::Writable(at, 46)]);
    assert_eq!(guest.driver.wait_used(0).1, 46);
    assert_eq!(guest.driver.status() & status::NEEDS_RESET, 0);
}

#[test]
fn a_guest_cannot_have_more_than_the_limit_of_connections() {
    let host = Host::new();
    let server = host.listen(1);
    let device = host.device(|options| {
        options.name = "vsock-limit".to_owned();
        options.connections = 3;
    });
    let counters = device.counters();
    let mut guest = Guest::start(device, 0, 16);
    let mut streams = Vec::new();
    for port in 0..3 {
        guest.connect(port, 1, 1000);
        streams.push(accept(&server));
    }
    let request = packet(Operation::Request, 3, 1, 0);
    guest.send_raw(&request, &[]);
    while guest.others.is_empty() {
        guest.pump();
    }
    assert_eq!(guest.others, [request.refusal()]);
    let counts = counters.counts();
    assert_eq!((counts.opened, counts.refused, counts.open), (3, 1, 3));
    // A client of the host's waits until there is room.
    let mut client = host.client(52);
    crate::testing::assert_idle("vsock-limit");
    assert!(!guest.streams.contains_key(&52));
    guest.close(0);
    guest.take_client(52);
    assert!(line(&mut client).starts_with("OK "));
}
