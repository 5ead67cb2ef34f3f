//! A guest's driver for sockets, in a few words.

use std::collections::HashMap;
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress};

pub(in super::super) use super::super::packet;
use super::super::packet::{HEADER_BYTES, Header, Operation, shutdown};
use super::{PATIENCE, Vsock};
use crate::feature;
use crate::testing::{Buffer, Driver, SECOND_REGION, THIRD_REGION, status};

/// The guest's identifier.
pub const CID: u32 = 3;
/// Bytes between receive buffers.
const STRIDE: u64 = 0x2000;
/// Data of a receive buffer, as Linux has it.
const ROOM: u32 = 4096;
/// Most data of a packet of the guest's.
const DATA_MAX: usize = 64 * 1024;

/// A packet of this guest's to the host.
pub fn packet(operation: Operation, guest: u32, host: u32, length: u32) -> Header {
    Header {
        source_cid: u64::from(CID),
        destination_cid: 2,
        source_port: guest,
        destination_port: host,
        length,
        socket_type: 1,
        operation: operation.number(),
        buffer_bytes: 1 << 20,
        ..Header::default()
    }
}

/// The guest's end of a connection.
#[derive(Debug, Default)]
pub struct Stream {
    pub host_port: u32,
    pub buffer_bytes: u32,
    /// What the guest's program has taken of what was received.
    pub read: u32,
    pub received: Vec<u8>,
    pub sent: u32,
    pub host_buffer: u32,
    pub host_forwarded: u32,
    /// What came, but for data.
    pub operations: Vec<(Operation, u32)>,
}

impl Stream {
    pub fn got(&self, operation: Operation) -> bool {
        self.operations.iter().any(|&(got, _)| got == operation)
    }

    /// What the host will not do any more.
    pub fn ended(&self) -> u32 {
        let shut = self.operations.iter();
        let shut = shut.filter(|&&(operation, _)| operation == Operation::Shutdown);
        shut.fold(0, |all, (_, flags)| all | flags)
    }

    fn credit(&self) -> u32 {
        self.host_buffer - self.sent.wrapping_sub(self.host_forwarded)
    }
}

pub struct Guest {
    pub driver: Driver,
    /// By the guest's port.
    pub streams: HashMap<u32, Stream>,
    /// Packets for ports of which the guest knows nothing.
    pub others: Vec<Header>,
    next_place: u64,
    posted: HashMap<u32, u64>,
}

impl Guest {
    /// A guest whose driver is up, with this many receive buffers.
    pub fn start(device: Vsock, ring: u64, buffers: u64) -> Self {
        let mut driver = Driver::new(Box::new(device));
        driver.start(ring | 1, 128);
        assert_eq!(driver.status() & status::NEEDS_RESET, 0);
        let mut guest = Self {
            driver,
            streams: HashMap::new(),
            others: Vec::new(),
            next_place: SECOND_REGION,
            posted: HashMap::new(),
        };
        for number in 0..buffers {
            guest.post(THIRD_REGION + number * STRIDE);
        }
        guest.driver.kick(0);
        guest
    }

    /// With the event index and without, in rings of both kinds.
    pub fn rings() -> [u64; 3] {
        [
            0,
            feature::RING_EVENT_IDX,
            feature::RING_PACKED | feature::RING_EVENT_IDX,
        ]
    }

    pub fn post(&mut self, address: u64) {
        let length = 44 + ROOM;
        let head = self.driver.queues[0].add(&[Buffer::Writable(address, length)]);
        self.posted.insert(u32::from(head), address);
    }

    /// Sends a packet as it is, and waits until the device has taken it.
    pub fn send_raw(&mut self, header: &Header, data: &[u8]) {
        self.queue_raw(header, data);
        self.driver.kick(1);
        assert_eq!(self.driver.wait_used(1).1, 0);
    }

    /// Makes a packet available, without a doorbell.
    pub fn queue_raw(&mut self, header: &Header, data: &[u8]) {
        let length = u64::try_from(HEADER_BYTES + data.len()).unwrap();
        if self.next_place + length > SECOND_REGION + 0x10_0000 {
            self.next_place = SECOND_REGION;
        }
        let at = self.next_place;
        self.next_place += length.next_multiple_of(64);
        let memory = &self.driver.memory;
        memory
            .write_slice(&header.to_bytes(), GuestAddress(at))
            .unwrap();
        memory.write_slice(data, GuestAddress(at + 44)).unwrap();
        let mut buffers = vec![Buffer::Readable(at, 44)];
        if !data.is_empty() {
            buffers.push(Buffer::Readable(
                at + 44,
                u32::try_from(data.len()).unwrap(),
            ));
        }
        self.driver.queues[1].add(&buffers);
    }

    pub fn send(&mut self, port: u32, operation: Operation, flags: u32, data: &[u8]) {
        let stream = &self.streams[&port];
        let header = Header {
            flags,
            buffer_bytes: stream.buffer_bytes,
            forwarded_bytes: stream.read,
            ..packet(
                operation,
                port,
                stream.host_port,
                u32::try_from(data.len()).unwrap(),
            )
        };
        self.send_raw(&header, data);
    }

    /// Takes what has come, and gives the buffers back.
    pub fn pump(&mut self) {
        let mut any = false;
        while let Some((head, written)) = self.driver.queues[0].take_used() {
            let address = self.posted[&head];
            let bytes = self
                .driver
                .fetch(address, usize::try_from(written).unwrap());
            let (header, data) = bytes.split_first_chunk().expect("a header");
            let header = Header::from_bytes(header);
            assert_eq!(usize::try_from(header.length).unwrap(), data.len());
            self.take(&header, data);
            self.post(address);
            any = true;
        }
        if any {
            self.driver.kick(0);
        }
    }

    fn take(&mut self, header: &Header, data: &[u8]) {
        assert_eq!(
            (header.source_cid, header.destination_cid),
            (2, u64::from(CID))
        );
        let operation = Operation::from_number(header.operation).expect("an operation");
        if operation == Operation::Request {
            let stream = Stream {
                host_port: header.source_port,
                buffer_bytes: 1 << 20,
                ..Stream::default()
            };
            self.streams.insert(header.destination_port, stream);
        }
        let Some(stream) = self.streams.get_mut(&header.destination_port) else {
            self.others.push(*header);
            return;
        };
        if operation != Operation::Reset {
            stream.host_buffer = header.buffer_bytes;
            stream.host_forwarded = header.forwarded_bytes;
        }
        if operation == Operation::Data {
            stream.received.extend_from_slice(data);
            let held = u32::try_from(stream.received.len()).unwrap() - stream.read;
            assert!(
                held <= stream.buffer_bytes,
                "{held} bytes are beyond the credit"
            );
        } else {
            stream.operations.push((operation, header.flags));
        }
    }

    /// Waits until `done` of the stream at `port`.
    pub fn wait(&mut self, port: u32, what: &str, done: impl Fn(&Stream) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.pump();
            if self.streams.get(&port).is_some_and(&done) {
                return;
            }
            assert_eq!(self.driver.status() & status::NEEDS_RESET, 0, "{what}");
            assert!(
                Instant::now() < end,
                "not in time: {what}: {:?}",
                self.operations(port)
            );
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }

    fn operations(&self, port: u32) -> Option<&[(Operation, u32)]> {
        self.streams
            .get(&port)
            .map(|stream| stream.operations.as_slice())
    }

    /// Asks for a port of the host. Whoever listens there takes it.
    pub fn connect(&mut self, port: u32, host_port: u32, buffer_bytes: u32) {
        let stream = Stream {
            host_port,
            buffer_bytes,
            ..Stream::default()
        };
        self.streams.insert(port, stream);
        self.send(port, Operation::Request, 0, &[]);
        self.wait(port, "a response", |stream| stream.got(Operation::Response));
    }

    /// Takes a client of the host's for `port`.
    pub fn take_client(&mut self, port: u32) {
        self.wait(port, "a request", |stream| stream.got(Operation::Request));
        self.send(port, Operation::Response, 0, &[]);
    }

    /// Sends all of `data`, as credit comes.
    pub fn write_all(&mut self, port: u32, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            rest = &rest[self.write_some(port, rest)..];
            if !rest.is_empty() {
                self.wait(port, "credit", |stream| stream.credit() > 0);
            }
        }
    }

    /// Sends what there is credit for now; how much that is.
    pub fn write_some(&mut self, port: u32, data: &[u8]) -> usize {
        let mut done = 0;
        loop {
            self.pump();
            let credit = usize::try_from(self.streams[&port].credit()).unwrap();
            let length = credit.min(DATA_MAX).min(data.len() - done);
            if length == 0 {
                return done;
            }
            self.send(port, Operation::Data, 0, &data[done..done + length]);
            self.streams.get_mut(&port).unwrap().sent += u32::try_from(length).unwrap();
            done += length;
        }
    }

    /// The guest's program takes all that has come; the host hears of it.
    pub fn read_all(&mut self, port: u32) -> usize {
        self.pump();
        let stream = self.streams.get_mut(&port).unwrap();
        stream.read = u32::try_from(stream.received.len()).unwrap();
        let length = stream.received.len();
        self.send(port, Operation::CreditUpdate, 0, &[]);
        length
    }

    /// Closes the guest's end, and waits for the last word.
    pub fn close(&mut self, port: u32) {
        self.send(port, Operation::Shutdown, shutdown::BOTH, &[]);
        self.wait(port, "a reset", |stream| stream.got(Operation::Reset));
        self.streams.remove(&port);
    }
}
