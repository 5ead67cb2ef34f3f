//! The socket device, driven by a guest that speaks with sockets of the host.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use cuddy_tests::{Machine, MachineBuilder};
use tempfile::TempDir;

const KIB: usize = 512;

/// The words that the guest's test sends, or as many to be sent to it; with their sum.
struct Words {
    state: u64,
    position: u64,
    sum: u64,
}

impl Words {
    fn new(seed: u64) -> Self {
        Self {
            state: seed,
            position: 0,
            sum: 0,
        }
    }

    fn add(&mut self, word: u64) {
        self.position += 1;
        let weight = 2 * self.position + 1;
        self.sum = self.sum.wrapping_add(word.wrapping_mul(weight));
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.add(self.state);
            bytes.extend_from_slice(&self.state.to_le_bytes());
        }
        bytes
    }

    fn of(bytes: &[u8]) -> Self {
        let mut words = Self::new(0);
        for word in bytes.chunks(8) {
            words.add(u64::from_le_bytes(word.try_into().unwrap()));
        }
        words
    }
}

/// The folder of a machine's socket.
struct Host {
    folder: TempDir,
}

impl Host {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vm.vsock")
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("vm.vsock_{port}"))).unwrap()
    }

    fn machine(&self, tests: &str) -> MachineBuilder {
        let value = format!("cid=3,socket={}", self.path().display());
        MachineBuilder::suite(tests).argument("--vsock", value)
    }

    fn connect(&self, port: u32) -> UnixStream {
        let mut stream = UnixStream::connect(self.path()).unwrap();
        writeln!(stream, "CONNECT {port}").unwrap();
        stream
    }
}

/// Reads to the end, with a rest now and then.
fn read_slowly(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 7919];
    for round in 0_u32.. {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            count => bytes.extend_from_slice(&piece[..count]),
        }
        if round.is_multiple_of(32) {
            thread::sleep(Duration::from_millis(2));
        }
    }
    bytes
}

/// Takes `rounds` streams, one after the other: sums what comes, and sends as much back. Gives the sums, what
/// came first.
fn serve_sums(server: UnixListener, rounds: usize) -> Receiver<(u64, u64)> {
    let (sums, receiver) = channel();
    thread::spawn(move || {
        for _ in 0..rounds {
            let mut stream = server.accept().unwrap().0;
            let got = read_slowly(&mut stream);
            let mut back = Words::new(0xfeed_f00d_dead_beef);
            stream.write_all(&back.bytes(got.len())).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            sums.send((Words::of(&got).sum, back.sum)).unwrap();
            // The guest closes.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    });
    receiver
}

fn lines_after(finished: &cuddy_tests::Finished, prefix: &str) -> Vec<String> {
    let lines = finished.lines();
    let lines = lines.iter().filter_map(|line| line.strip_prefix(prefix));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_guest_has_the_identifier_that_was_given() {
    let host = Host::new();
    host.machine("vsock-identity").pass_on_each_transport();
    assert!(!host.path().exists(), "the path is left behind");
}

#[test]
fn streams_to_the_host_are_whole_with_slow_readers_on_both_sides() {
    for (transport, rings) in [("pci", "split"), ("mmio", "split"), ("pci", "packed")] {
        let host = Host::new();
        let sums = serve_sums(host.listen(1024), 2);
        let packed = if rings == "packed" { "on" } else { "off" };
        let finished = host
            .machine("vsock-out")
            .argument("--transport", transport)
            .argument("--packed-rings", packed)
            .option(&format!("kib={KIB}"))
            .pass();
        let (sent, received) = (
            lines_after(&finished, "SENT "),
            lines_after(&finished, "RECEIVED "),
        );
        for round in 0..2 {
            let (got, back) = sums.recv().unwrap();
            assert_eq!(sent[round], format!("{got:016x}"), "{transport} {rings}");
            assert_eq!(
                received[round],
                format!("{back:016x}"),
                "{transport} {rings}"
            );
        }
    }
}

#[test]
fn a_client_of_the_host_has_a_stream_both_ways() {
    for transport in ["pci", "mmio"] {
        let host = Host::new();
        let mut machine = host
            .machine("vsock-in")
            .argument("--transport", transport)
            .option(&format!("kib={KIB}"))
            .start();
        machine.expect("LISTENING");
        let mut stream = host.connect(52);
        let mut there = Words::new(77);
        let content = there.bytes(KIB << 10);
        let mut writer = stream.try_clone().unwrap();
        let writer = thread::spawn(move || {
            writer.write_all(&content).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"OK ");
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
        }
        let back = read_slowly(&mut stream);
        writer.join().unwrap();
        let finished = passed(machine, "vsock-in");
        assert_eq!(back.len(), KIB << 10);
        assert_eq!(
            finished.after("SENT "),
            format!("{:016x}", Words::of(&back).sum)
        );
        assert_eq!(finished.after("RECEIVED "), format!("{:016x}", there.sum));
    }
}

fn passed(machine: Machine, name: &str) -> cuddy_tests::Finished {
    let finished = machine.finish();
    assert!(finished.has_line(&format!("PASS {name}")), "{finished}");
    assert_eq!(finished.code(), Some(0), "{finished}");
    finished
}

#[test]
fn nobody_listens_on_either_side() {
    let host = Host::new();
    let mut machine = host.machine("vsock-refused").start();
    machine.expect("LISTENING");
    let mut stream = host.connect(53);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    passed(machine, "vsock-refused");
}

#[test]
fn a_server_that_never_reads_holds_nobody_else_up() {
    for transport in ["pci", "mmio"] {
        let host = Host::new();
        let stalled = host.listen(1026);
        let echo = host.listen(1025);
        let server = thread::spawn(move || {
            let _stalled = stalled.accept().unwrap();
            let mut stream = echo.accept().unwrap().0;
            let mut bytes = [0; 4096];
            loop {
                match stream.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => stream.write_all(&bytes[..count]).unwrap(),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
        });
        let finished = host
            .machine("vsock-stalled")
            .argument("--transport", transport)
            .pass();
        server.join().unwrap();
        let held: usize = finished.after("HELD ").parse().unwrap();
        // The device's buffer, and what a socket of the host's holds.
        assert!((256 << 10..2 << 20).contains(&held), "{held} bytes");
    }
}

#[test]
fn packets_interrupt() {
    let host = Host::new();
    for irqchip in ["split", "kernel"] {
        host.machine("vsock-interrupt")
            .argument("--irqchip", irqchip)
            .pass_on_each_transport();
    }
}

#[test]
fn a_reset_ends_streams_and_the_next_guest_has_its_own() {
    let host = Host::new();
    let echo = host.listen(1025);
    let _stalled = host.listen(1026);
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let mut stream = echo.accept().unwrap().0;
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                stream.write_all(&bytes[..count]).unwrap();
            }
        }
    });
    let mut machine = host
        .machine("vsock-stalled")
        .argument("--on-reboot", "restart")
        .option("end=ask")
        .start();
    machine.expect("DONE");
    machine.send(b"acpi-reset\n");
    machine.expect("DONE");
    machine.send(b"poweroff\n");
    let finished = machine.finish();
    assert_eq!(finished.code(), Some(0), "{finished}");
    server.join().unwrap();
    assert!(!host.path().exists());
}
