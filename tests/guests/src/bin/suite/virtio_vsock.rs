//! The socket device, against sockets of the host: a server on port 1024 that sums what it gets and answers,
//! one on port 1025 that echoes, and one on port 1026 that never reads; a client for our port 52.
//!
//! Content is a sequence of 64-bit words that both sides know, so that a sum is enough to tell that nothing is
//! lost, doubled or out of place: each word counts with its position.

use runtime::Machine;
use runtime::dma::DmaBuffer;
use runtime::interrupts::count;
use runtime::report::Test;
use runtime::time::{MILLISECONDS, SECONDS, spin, wait_until};
use runtime::virtio::vsock::{STREAM, VsockDevice, operation};
use runtime::virtio::{Device, device_id, feature};
use runtime::{lapic, println, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("vsock-identity", identity),
    ("vsock-out", out),
    ("vsock-in", client),
    ("vsock-refused", refused),
    ("vsock-stalled", stalled),
    ("vsock-interrupt", interrupt),
];

const BOTH: u32 = 3;
const SEND: u32 = 2;

/// The words of a stream, and their sum.
#[derive(Debug, Clone, Copy)]
struct Words {
    state: u64,
    position: u64,
    sum: u64,
}

impl Words {
    const fn new(seed: u64) -> Self {
        Self {
            state: seed,
            position: 0,
            sum: 0,
        }
    }

    fn next(&mut self) -> u64 {
        // Xorshift (Marsaglia).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.add(self.state);
        self.state
    }

    fn add(&mut self, word: u64) {
        self.position += 1;
        self.sum = self
            .sum
            .wrapping_add(word.wrapping_mul(2 * self.position + 1));
    }
}

/// Sums what comes in pieces that do not end with words.
#[derive(Debug)]
struct Summed {
    words: Words,
    part: [u8; 8],
    have: usize,
}

impl Summed {
    fn take(&mut self, data: DmaBuffer) {
        for offset in 0..data.len() {
            self.part[self.have] = data.read_u8(offset);
            self.have += 1;
            if self.have == 8 {
                self.have = 0;
                self.words.add(u64::from_le_bytes(self.part));
            }
        }
    }
}

fn start(machine: &Machine, wanted: u64) -> VsockDevice {
    VsockDevice::start(Device::first(machine, device_id::SOCKET), wanted)
}

fn number(machine: &Machine, name: &str, otherwise: u64) -> u64 {
    machine
        .option(name)
        .map_or(otherwise, |text| text.parse().expect("a number"))
}

fn identity(machine: &Machine) {
    let vsock = start(machine, 0);
    assert_eq!(vsock.cid, number(machine, "cid", 3), "identifier");
    assert_ne!(vsock.features & STREAM, 0, "VIRTIO_VSOCK_F_STREAM");
    let packed = vsock.features & feature::RING_PACKED != 0;
    assert_eq!(
        packed,
        machine.option("rings") == Some("packed"),
        "RING_PACKED"
    );
    vsock.device.reset();
}

/// Sends `kib` KiB to a server that reads slowly, ends our half, and takes as much back, slowly as well.
fn out(machine: &Machine) {
    let bytes = number(machine, "kib", 1024) << 10;
    for wanted in [0, feature::EVENT_IDX] {
        let mut vsock = start(machine, wanted);
        vsock.add(2000, 1024, 20_000);
        transfer(&mut vsock, 2000, bytes);
        vsock.device.reset();
    }
}

/// For when no data can come.
fn none(_port: u32, _data: DmaBuffer) {
    panic!("data before its time");
}

/// Both directions of a stream that has yet to be connected.
fn transfer(vsock: &mut VsockDevice, port: u32, bytes: u64) {
    vsock.send(port, operation::REQUEST, 0, 0);
    vsock.wait(port, "a response", none, |stream| {
        stream.has_seen(operation::RESPONSE)
    });
    send_words(vsock, port, bytes);
    vsock.send(port, operation::SHUTDOWN, SEND, 0);
    receive_words(vsock, port, bytes);
    vsock.send(port, operation::SHUTDOWN, BOTH, 0);
    vsock.wait(port, "a reset", none, |stream| {
        stream.has_seen(operation::RESET)
    });
    vsock.forget(port);
}

fn send_words(vsock: &mut VsockDevice, port: u32, bytes: u64) {
    let mut words = Words::new(0x1234_5678_9abc_def1);
    let mut left = bytes as usize;
    while left > 0 {
        vsock.poll(none);
        let length = vsock.credit(port).min(left) & !7;
        if length == 0 {
            let more = wait_until(20 * SECONDS, || {
                vsock.poll(none);
                vsock.credit(port) >= 8
            });
            assert!(more, "no credit with {left} bytes left");
            continue;
        }
        for offset in (0..length).step_by(8) {
            vsock.data.write_u64(offset, words.next());
        }
        vsock.send_data(port, length);
        left -= length;
    }
    println!("SENT {:016x}", words.sum);
}

/// Takes `bytes` bytes, and the host's end behind them. Now and then the program does something else.
fn receive_words(vsock: &mut VsockDevice, port: u32, bytes: u64) {
    let mut got = Summed {
        words: Words::new(0),
        part: [0; 8],
        have: 0,
    };
    let mut rounds = 0;
    while u64::from(vsock.stream(port).received) < bytes {
        let before = vsock.stream(port).received;
        vsock.wait(
            port,
            "data",
            |_, data| got.take(data),
            |stream| stream.received > before,
        );
        rounds += 1;
        if rounds % 16 == 0 {
            spin(2 * MILLISECONDS);
        }
        let stream = vsock.stream(port);
        if stream.received - stream.forwarded > stream.buffer_bytes / 2 {
            stream.forwarded = stream.received;
            vsock.send(port, operation::CREDIT_UPDATE, 0, 0);
        }
    }
    assert_eq!(u64::from(vsock.stream(port).received), bytes, "bytes");
    vsock.wait(port, "the host's end", none, |stream| {
        stream.ended & SEND != 0
    });
    println!("RECEIVED {:016x}", got.words.sum);
}

/// A client of the host's, from its request to its end.
fn client(machine: &Machine) {
    let mut vsock = start(machine, feature::EVENT_IDX);
    println!("LISTENING");
    vsock.wait(
        52,
        "a request",
        |_, _| {},
        |stream| stream.has_seen(operation::REQUEST),
    );
    vsock.send(52, operation::RESPONSE, 0, 0);
    let bytes = number(machine, "kib", 1024) << 10;
    receive_words(&mut vsock, 52, bytes);
    send_words(&mut vsock, 52, bytes);
    vsock.send(52, operation::SHUTDOWN, BOTH, 0);
    vsock.wait(
        52,
        "a reset",
        |_, _| {},
        |stream| stream.has_seen(operation::RESET),
    );
    vsock.device.reset();
}

/// A port at which nobody listens, on either side.
fn refused(machine: &Machine) {
    let mut vsock = start(machine, 0);
    vsock.add(2000, 9, 1000);
    vsock.send(2000, operation::REQUEST, 0, 0);
    vsock.wait(
        2000,
        "a refusal",
        |_, _| {},
        |stream| stream.has_seen(operation::RESET),
    );
    println!("LISTENING");
    vsock.wait(
        53,
        "a request",
        |_, _| {},
        |stream| stream.has_seen(operation::REQUEST),
    );
    vsock.send(53, operation::RESET, 0, 0);
    vsock.device.reset();
}

/// A server that never reads, while another one echoes.
fn stalled(machine: &Machine) {
    let mut vsock = start(machine, 0);
    for (port, host_port) in [(2000, 1026), (2001, 1025)] {
        vsock.add(port, host_port, 1 << 20);
        vsock.send(port, operation::REQUEST, 0, 0);
        vsock.wait(
            port,
            "a response",
            |_, _| {},
            |stream| stream.has_seen(operation::RESPONSE),
        );
    }
    // Until there is no credit, and none comes.
    loop {
        let length = vsock.credit(2000);
        if length > 0 {
            vsock.send_data(2000, length);
        } else if !wait_until(SECONDS / 10, || {
            vsock.poll(|_, _| {});
            vsock.credit(2000) > 0
        }) {
            break;
        }
    }
    let sent = vsock.stream(2000).sent;
    println!("HELD {sent}");
    for round in 1..=20 {
        vsock.data.fill(round);
        vsock.send_data(2001, 3000);
        let expected = u32::from(round) * 3000;
        vsock.wait(
            2001,
            "the echo",
            |_, data| assert!((0..data.len()).all(|at| data.read_u8(at) == round)),
            |stream| stream.received == expected,
        );
        vsock.stream(2001).forwarded = expected;
    }
    assert_eq!(vsock.credit(2000), 0, "credit");
    vsock.device.reset();
}

/// A packet that comes interrupts.
fn interrupt(machine: &Machine) {
    let device = Device::first(machine, device_id::SOCKET);
    lapic::enable();
    device.route_interrupt(machine);
    privileged::interrupts_on();
    let mut vsock = VsockDevice::start(device, 0);
    vsock.add(2000, 9, 1000);
    vsock.send(2000, operation::REQUEST, 0, 0);
    assert!(
        wait_until(5 * SECONDS, || count(device.vector) > 0),
        "no interrupt"
    );
    vsock.wait(
        2000,
        "a refusal",
        |_, _| {},
        |stream| stream.has_seen(operation::RESET),
    );
    privileged::interrupts_off();
    vsock.device.reset();
}
