//! The network device (virtio 1.3, 5.1), one pair of queues.

use crate::dma::DmaBuffer;
use crate::time::{SECONDS, wait_until};
use crate::virtio::{Buffer, Device, Layout, Queue, feature};

/// Bytes of the header before each packet (virtio 1.3, 5.1.6).
pub const HEADER_BYTES: usize = 12;
/// Flag of the header: the checksum from `csum_start` on is to be completed.
pub const NEEDS_CSUM: u8 = 1;

/// Feature bits (virtio 1.3, 5.1.3).
pub mod bit {
    /// The device completes checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes packets with incomplete checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The configuration has a MAC address.
    pub const MAC: u64 = 1 << 5;
    /// A packet may be spread over several receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
}

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const RECEIVE_BUFFERS: u16 = 32;
/// Each holds a header and a packet of an Ethernet without jumbo frames.
const RECEIVE_BUFFER_BYTES: usize = 1536 + HEADER_BYTES;

/// A started network device.
#[derive(Debug)]
pub struct NetDevice {
    /// The transport.
    pub device: Device,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// What was agreed upon.
    pub features: u64,
    /// Packets to us.
    pub receive: Queue,
    /// Packets from us.
    pub transmit: Queue,
    receive_memory: DmaBuffer,
    transmit_memory: DmaBuffer,
}

/// A packet that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Ethernet frame, without the header of virtio.
    pub frame: DmaBuffer,
    /// Flags of virtio's header.
    pub flags: u8,
    head: u16,
}

impl NetDevice {
    /// Resets and starts `device` with those of `wanted` that it offers, packed rings if it does, and with
    /// receive buffers.
    pub fn start(device: Device, wanted: u64) -> Self {
        let features = device.negotiate(wanted | bit::MAC | feature::RING_PACKED);
        let (receive, transmit) = (
            Queue::with(features, RECEIVE, 64),
            Queue::with(features, TRANSMIT, 64),
        );
        device.set_up_queue(&receive);
        device.set_up_queue(&transmit);
        device.start();
        let mut mac = [0; 6];
        for (offset, byte) in mac.iter_mut().enumerate() {
            *byte = device.config().read_u8(offset);
        }
        let buffers = usize::from(RECEIVE_BUFFERS);
        Self {
            device,
            mac,
            features,
            receive,
            transmit,
            receive_memory: DmaBuffer::allocate(buffers * RECEIVE_BUFFER_BYTES, 64),
            transmit_memory: DmaBuffer::allocate(2048, 64),
        }
    }

    /// Hands all receive buffers to the device.
    pub fn offer_receive_buffers(&mut self) {
        for head in 0..RECEIVE_BUFFERS {
            self.offer(head);
        }
        self.receive.notify(self.device);
    }

    /// Hands a received packet's buffer back.
    pub fn give_back(&mut self, received: Received) {
        self.offer(received.head);
        self.receive.notify(self.device);
    }

    /// Sends `frame` and waits until the device is done with it. `checksum` is the place from which and
    /// the one at which the device is to complete the checksum.
    ///
    /// # Panics
    ///
    /// When the device does not complete it.
    pub fn send(&mut self, layout: Layout, frame: &[u8], checksum: Option<(u16, u16)>) {
        let mut header = [0; HEADER_BYTES];
        if let Some((start, offset)) = checksum {
            header[0] = NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
        self.transmit_memory.write(0, &header);
        self.transmit_memory.write(HEADER_BYTES, frame);
        let buffers = [
            Buffer::ToDevice(self.transmit_memory.slice(0, HEADER_BYTES)),
            Buffer::ToDevice(self.transmit_memory.slice(HEADER_BYTES, frame.len())),
        ];
        let written = self.transmit.request(self.device, layout, &buffers);
        assert_eq!(written, 0, "bytes written into a packet that was sent");
    }

    /// The next received packet, waiting for at most `limit` cycles.
    ///
    /// # Panics
    ///
    /// When the device says an impossible length or number of buffers.
    pub fn receive(&mut self, limit: u64) -> Option<Received> {
        let mut used = None;
        wait_until(limit, || {
            used = self.receive.take_used();
            used.is_some()
        });
        let (head, written) = used?;
        let (memory, written) = (self.receive_buffer(head), written as usize);
        assert!(
            written > HEADER_BYTES && written <= memory.len(),
            "{written} bytes received into {}",
            memory.len()
        );
        assert_eq!(memory.read_u16(10), 1, "number of buffers of a packet");
        Some(Received {
            frame: memory.slice(HEADER_BYTES, written - HEADER_BYTES),
            flags: memory.read_u8(0),
            head,
        })
    }

    /// The next received packet of which `wanted` holds, the others given back.
    ///
    /// # Panics
    ///
    /// When none comes in five seconds.
    pub fn receive_matching(&mut self, mut wanted: impl FnMut(&Received) -> bool) -> Received {
        let start = crate::time::cycles();
        while crate::time::cycles().wrapping_sub(start) < 5 * SECONDS {
            if let Some(received) = self.receive(SECONDS) {
                if wanted(&received) {
                    return received;
                }
                self.give_back(received);
            }
        }
        panic!("no answer, status {:#x}", self.device.status())
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
