//! Streams from either side, their halves and their ends; slow readers.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::thread;

use super::*;
use crate::devices::vsock::credit::BUFFER_BYTES;
use crate::devices::vsock::packet::shutdown;

fn at_end(stream: &mut UnixStream) {
    let mut byte = [0];
    assert_eq!(stream.read(&mut byte).unwrap(), 0);
}

#[test]
fn a_guest_reaches_a_server_of_the_host() {
    for ring in Guest::rings() {
        let host = Host::new();
        let server = host.listen(1024);
        let mut guest = Guest::start(host.device(|_| {}), ring, 16);
        guest.connect(5000, 1024, 1 << 20);
        let mut stream = accept(&server);
        let there = content(100_000, 1);
        let back = content(200_000, 2);
        let (expected, answer) = (there.clone(), back.clone());
        let peer = thread::spawn(move || {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == expected);
            stream.write_all(&answer).unwrap();
            stream
        });
        guest.write_all(5000, &there);
        // The guest's half ends; the other goes on.
        guest.send(5000, Operation::Shutdown, shutdown::SEND, &[]);
        guest.wait(5000, "the answer", |stream| {
            stream.received.len() == 200_000
        });
        assert!(guest.streams[&5000].received == back);
        assert_eq!(guest.streams[&5000].ended(), 0);
        drop(peer.join().unwrap());
        guest.wait(5000, "both ends", |stream| stream.ended() == shutdown::BOTH);
        guest.send(5000, Operation::Reset, 0, &[]);
        assert_eq!(guest.driver.status(), 15);
    }
}

#[test]
fn a_client_of_the_host_reaches_the_guest() {
    for ring in Guest::rings() {
        let host = Host::new();
        let mut guest = Guest::start(host.device(|_| {}), ring, 16);
        let mut client = host.client(52);
        // What follows the first line is data.
        client.write_all(b"hello").unwrap();
        guest.take_client(52);
        let port = guest.streams[&52].host_port;
        assert_eq!(line(&mut client), format!("OK {port}"));
        guest.wait(52, "data", |stream| stream.received == b"hello");
        guest.write_all(52, b"world");
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"world");
        // The host's half ends; the other goes on.
        client.shutdown(Shutdown::Write).unwrap();
        guest.wait(52, "the end", |stream| stream.ended() == shutdown::SEND);
        guest.write_all(52, b"again");
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"again");
        guest.close(52);
        at_end(&mut client);

        // Each client has a port of its own.
        let mut clients = [host.client(53), host.client(54)];
        guest.take_client(53);
        guest.take_client(54);
        assert_ne!(line(&mut clients[0]), line(&mut clients[1]));
    }
}

#[test]
fn nobody_listens() {
    let host = Host::new();
    let mut guest = Guest::start(host.device(|_| {}), 0, 16);
    // On the host: no path, and a path on which nobody listens any more.
    drop(host.listen(8));
    assert!(path_of(&host, 8).exists());
    for port in [7, 8] {
        let request = packet(Operation::Request, 100, port, 0);
        guest.send_raw(&request, &[]);
        let before = guest.others.len();
        while guest.others.len() == before {
            guest.pump();
        }
        assert_eq!(guest.others[before], request.refusal());
    }
    // In the guest.
    let mut client = host.client(9);
    guest.wait(9, "a request", |stream| stream.got(Operation::Request));
    guest.send(9, Operation::Reset, 0, &[]);
    at_end(&mut client);
    let mut wrong = patient(UnixStream::connect(host.socket.path()).unwrap());
    wrong.write_all(b"HELLO\n").unwrap();
    // What it sent was not read, of which some kernels tell.
    assert!(!matches!(wrong.read(&mut [0]), Ok(1..)));
}

#[test]
fn a_host_that_does_not_read_holds_nobody_else_up() {
    for ring in Guest::rings() {
        let host = Host::new();
        let server = host.listen(1);
        let mut guest = Guest::start(host.device(|_| {}), ring, 32);
        guest.connect(10, 1, 1 << 20);
        let mut slow = accept(&server);
        guest.connect(11, 1, 1 << 20);
        let mut quick = accept(&server);
        let all = content(4 << 20, 3);
        // As much as fits into the sockets' buffers and the device's.
        let mut sent = 0;
        loop {
            sent += guest.write_some(10, &all[sent..]);
            thread::sleep(Duration::from_millis(20));
            guest.pump();
            if guest.write_some(10, &all[sent..sent + 1]) == 0 {
                break;
            }
            sent += 1;
        }
        let held = usize::try_from(BUFFER_BYTES).unwrap();
        assert!(
            (held..held + (1 << 20)).contains(&sent),
            "{sent} bytes are held"
        );
        for round in 0..20 {
            let bytes = content(10_000, round);
            guest.write_all(11, &bytes);
            let mut got = vec![0; bytes.len()];
            quick.read_exact(&mut got).unwrap();
            assert!(got == bytes);
        }
        // And nothing of the slow one is lost, though the guest has closed it meanwhile.
        let expected = all[..sent].to_vec();
        guest.send(10, Operation::Shutdown, shutdown::BOTH, &[]);
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            let mut piece = [0; 5000];
            loop {
                match slow.read(&mut piece).unwrap() {
                    0 => break,
                    count => got.extend_from_slice(&piece[..count]),
                }
            }
            assert!(got == expected);
        });
        guest.wait(10, "a reset", |stream| stream.got(Operation::Reset));
        reader.join().unwrap();
    }
}

#[test]
fn a_guest_that_does_not_read_holds_nobody_else_up() {
    for ring in Guest::rings() {
        let host = Host::new();
        let server = host.listen(1);
        let device = host.device(|options| options.name = "vsock-slow".to_owned());
        let mut guest = Guest::start(device, ring, 32);
        guest.connect(10, 1, 10_000);
        let mut slow = accept(&server);
        guest.connect(11, 1, 1 << 20);
        let mut quick = accept(&server);
        let all = content(1 << 20, 3);
        let expected = all.clone();
        let writer = thread::spawn(move || slow.write_all(&all).map(|()| slow));
        guest.wait(10, "all credit", |stream| stream.received.len() == 10_000);
        guest.wait(10, "a question", |stream| {
            stream.got(Operation::CreditRequest)
        });
        crate::testing::assert_idle("vsock-slow");
        for round in 0..20 {
            let bytes = content(10_000, round);
            quick.write_all(&bytes).unwrap();
            let before = guest.streams[&11].received.len();
            guest.wait(11, "the others", |stream| {
                stream.received.len() == before + bytes.len()
            });
            assert!(guest.streams[&11].received[before..] == bytes);
        }
        assert_eq!(guest.streams[&10].received.len(), 10_000);
        let asked = guest.streams[&10].operations.len();
        while guest.read_all(10) < expected.len() {}
        assert!(guest.streams[&10].received == expected);
        // One question for each time that there was no credit.
        let questions = guest.streams[&10].operations.len() - asked;
        assert!(questions <= expected.len() / 10_000 + 1, "{questions}");
        let stream = writer.join().unwrap().unwrap();
        drop(stream);
        guest.wait(10, "both ends", |stream| stream.ended() == shutdown::BOTH);
    }
}

#[test]
fn what_a_host_sent_before_it_closed_arrives() {
    let host = Host::new();
    let server = host.listen(1);
    let mut guest = Guest::start(host.device(|_| {}), 0, 4);
    guest.connect(10, 1, 30_000);
    let mut stream = accept(&server);
    let all = content(100_000, 9);
    stream.write_all(&all).unwrap();
    drop(stream);
    while guest.read_all(10) < all.len() {}
    assert!(guest.streams[&10].received == all);
    guest.wait(10, "both ends", |stream| stream.ended() == shutdown::BOTH);
    // What the guest still sends is taken and lost, as it is told.
    guest.write_all(10, &content(300_000, 1));
    guest.close(10);
}

#[test]
fn a_guest_that_receives_no_more_ends_the_hosts_writes() {
    let host = Host::new();
    let server = host.listen(1);
    let mut guest = Guest::start(host.device(|_| {}), 0, 16);
    guest.connect(10, 1, 1 << 20);
    let mut stream = accept(&server);
    guest.send(10, Operation::Shutdown, shutdown::RECEIVE, &[]);
    let error = loop {
        match stream.write_all(&[0; 1000]) {
            Ok(()) => thread::sleep(Duration::from_millis(1)),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    // The other half is as it was.
    guest.write_all(10, b"still");
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).unwrap();
    drop(stream);
    guest.wait(10, "both ends", |stream| stream.ended() == shutdown::BOTH);
}

#[test]
fn a_host_that_closes_without_reading_ends_both_halves() {
    let host = Host::new();
    let server = host.listen(1);
    let mut guest = Guest::start(host.device(|_| {}), 0, 16);
    guest.connect(10, 1, 1 << 20);
    let stream = accept(&server);
    guest.write_all(10, &content(200_000, 1));
    drop(stream);
    guest.wait(10, "both ends", |stream| stream.ended() == shutdown::BOTH);
    guest.close(10);
    // The guest can use its port again at once.
    guest.connect(10, 1, 1 << 20);
    drop(accept(&server));
}
