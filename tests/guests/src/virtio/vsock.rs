//! The socket device (virtio 1.3, 5.10): its packets, and streams with credit.

use crate::dma::DmaBuffer;
use crate::time::{SECONDS, wait_until};
use crate::virtio::{Buffer, Device, Layout, Queue, feature};

/// Bytes of a packet's header (virtio 1.3, 5.10.6).
pub const HEADER_BYTES: usize = 44;
/// Sockets of streams (virtio 1.3, 5.10.3).
pub const STREAM: u64 = 1 << 0;
/// The host's identifier.
pub const HOST_CID: u64 = 2;

/// What a packet is.
pub mod operation {
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// Takes one.
    pub const RESPONSE: u16 = 2;
    /// Refuses or ends one.
    pub const RESET: u16 = 3;
    /// Will send, or receive, no more.
    pub const SHUTDOWN: u16 = 4;
    /// Carries data.
    pub const DATA: u16 = 5;
    /// Tells of the buffer alone.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for that.
    pub const CREDIT_REQUEST: u16 = 7;
}

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;
const RECEIVE_BUFFERS: u16 = 32;
/// A header and as much data as Linux has room for.
const RECEIVE_BUFFER_BYTES: usize = HEADER_BYTES + 4096;
/// Most data of one packet of ours.
const SEND_MAX_BYTES: usize = 32 << 10;
/// Connections that the driver knows at a time.
const STREAMS: usize = 4;

/// Our end of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stream {
    /// Our port; 0 for none.
    pub port: u32,
    /// The host's.
    pub host_port: u32,
    /// Our buffer, as the host is told.
    pub buffer_bytes: u32,
    /// What has come, and what of it is told to have left the buffer.
    pub received: u32,
    /// See `received`.
    pub forwarded: u32,
    /// What was sent.
    pub sent: u32,
    host_buffer: u32,
    host_forwarded: u32,
    /// [`operation`]s that came, as bits.
    pub seen: u32,
    /// Flags of the host's shutdowns.
    pub ended: u32,
}

/// A started socket device.
#[derive(Debug)]
pub struct VsockDevice {
    /// The transport.
    pub device: Device,
    /// Our identifier.
    pub cid: u64,
    /// What was agreed upon.
    pub features: u64,
    streams: [Stream; STREAMS],
    receive: Queue,
    transmit: Queue,
    receive_memory: DmaBuffer,
    header: DmaBuffer,
    /// What [`send`](Self::send) sends.
    pub data: DmaBuffer,
}

impl VsockDevice {
    /// Resets and starts `device` with those of `wanted` that it offers, packed rings if it does, and with
    /// receive buffers.
    pub fn start(device: Device, wanted: u64) -> Self {
        let features = device.negotiate(wanted | STREAM | feature::RING_PACKED);
        let (receive, transmit, event) = (
            Queue::with(features, RECEIVE, 64),
            Queue::with(features, TRANSMIT, 16),
            Queue::with(features, EVENT, 8),
        );
        for queue in [&receive, &transmit, &event] {
            device.set_up_queue(queue);
        }
        device.start();
        let mut vsock = Self {
            device,
            cid: device.config().read_u64(0),
            features,
            streams: [Stream::default(); STREAMS],
            receive,
            transmit,
            receive_memory: DmaBuffer::allocate(
                usize::from(RECEIVE_BUFFERS) * RECEIVE_BUFFER_BYTES,
                64,
            ),
            header: DmaBuffer::allocate(HEADER_BYTES, 64),
            data: DmaBuffer::allocate(SEND_MAX_BYTES, 64),
        };
        for head in 0..RECEIVE_BUFFERS {
            vsock.offer(head);
        }
        vsock.receive.notify(device);
        vsock
    }

    /// The connection at our `port`.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn stream(&mut self, port: u32) -> &mut Stream {
        self.streams
            .iter_mut()
            .find(|stream| stream.port == port)
            .unwrap_or_else(|| panic!("no stream at port {port}"))
    }

    /// Begins a connection that is ours alone so far.
    ///
    /// # Panics
    ///
    /// When there are too many.
    pub fn add(&mut self, port: u32, host_port: u32, buffer_bytes: u32) {
        *self.stream(0) = Stream {
            port,
            host_port,
            buffer_bytes,
            ..Stream::default()
        };
    }

    /// Forgets a connection.
    pub fn forget(&mut self, port: u32) {
        *self.stream(port) = Stream::default();
    }

    /// Sends a packet with the first `length` bytes of [`data`](Self::data), and waits until the device has
    /// taken it.
    pub fn send(&mut self, port: u32, operation: u16, flags: u32, length: usize) {
        let cid = self.cid;
        let stream = self.stream(port);
        let words = [
            stream.port,
            stream.host_port,
            length as u32,
            1 | u32::from(operation) << 16,
            flags,
            stream.buffer_bytes,
            stream.forwarded,
        ];
        self.header.write_u64(0, cid);
        self.header.write_u64(8, HOST_CID);
        for (place, word) in words.into_iter().enumerate() {
            self.header.write(16 + 4 * place, &word.to_le_bytes());
        }
        let buffers = [
            Buffer::ToDevice(self.header),
            Buffer::ToDevice(self.data.slice(0, length)),
        ];
        let count = if length == 0 { 1 } else { 2 };
        let written = self
            .transmit
            .request(self.device, Layout::Chain, &buffers[..count]);
        assert_eq!(written, 0, "bytes written into a packet that was sent");
    }

    /// How many bytes a packet to the host may have now.
    pub fn credit(&mut self, port: u32) -> usize {
        let stream = self.stream(port);
        let under_way = stream.sent.wrapping_sub(stream.host_forwarded);
        (stream.host_buffer.saturating_sub(under_way) as usize).min(SEND_MAX_BYTES)
    }

    /// Sends data, within the credit.
    pub fn send_data(&mut self, port: u32, length: usize) {
        assert!(length <= self.credit(port), "beyond the credit");
        self.send(port, operation::DATA, 0, length);
        let stream = self.stream(port);
        stream.sent = stream.sent.wrapping_add(length as u32);
    }

    /// Takes a packet that has come, if one has; `take` sees the port and the data of those that have some.
    ///
    /// # Panics
    ///
    /// When the packet is none that a device may send.
    pub fn poll(&mut self, mut take: impl FnMut(u32, DmaBuffer)) -> bool {
        let Some((head, written)) = self.receive.take_used() else {
            return false;
        };
        let memory = self.receive_buffer(head);
        let length = memory.read_u32(24);
        assert_eq!(written as usize, HEADER_BYTES + length as usize, "length");
        assert_eq!(memory.read_u64(0), HOST_CID, "source");
        assert_eq!(memory.read_u64(8), self.cid, "destination");
        assert_eq!(memory.read_u16(28), 1, "type");
        let (host_port, port) = (memory.read_u32(16), memory.read_u32(20));
        let operation = memory.read_u16(30);
        if operation == operation::REQUEST {
            self.add(port, host_port, 1 << 16);
        }
        let stream = self.stream(port);
        assert_eq!(stream.host_port, host_port, "the host's port");
        stream.seen |= 1 << operation;
        if operation != operation::RESET {
            stream.host_buffer = memory.read_u32(36);
            stream.host_forwarded = memory.read_u32(40);
        }
        if operation == operation::SHUTDOWN {
            stream.ended |= memory.read_u32(32);
        }
        if operation == operation::DATA {
            stream.received = stream.received.wrapping_add(length);
            let held = stream.received.wrapping_sub(stream.forwarded);
            assert!(held <= stream.buffer_bytes, "{held} bytes, beyond credit");
            take(port, memory.slice(HEADER_BYTES, length as usize));
        }
        self.offer(head);
        self.receive.notify(self.device);
        true
    }

    /// Waits for `done` of the connection at our `port`; data that comes meanwhile goes to `take`.
    ///
    /// # Panics
    ///
    /// When it does not come about in some seconds.
    pub fn wait(
        &mut self,
        port: u32,
        what: &str,
        mut take: impl FnMut(u32, DmaBuffer),
        done: impl Fn(&Stream) -> bool,
    ) {
        let in_time = wait_until(20 * SECONDS, || {
            while self.poll(&mut take) {}
            self.streams
                .iter()
                .any(|stream| stream.port == port && done(stream))
        });
        assert!(in_time, "{what}: {:?}", self.streams);
    }

    fn receive_buffer(&self, head: u16) -> DmaBuffer {
        self.receive_memory.slice(
            usize::from(head) * RECEIVE_BUFFER_BYTES,
            RECEIVE_BUFFER_BYTES,
        )
    }

    fn offer(&mut self, head: u16) {
        let buffer = Buffer::FromDevice(self.receive_buffer(head));
        self.receive.set_request(head, Layout::Chain, &[buffer]);
        self.receive.publish(head);
    }
}

impl Stream {
    /// Whether a packet with this [`operation`] has come.
    pub const fn has_seen(&self, operation: u16) -> bool {
        self.seen & 1 << operation != 0
    }
}
