//! A network device under its driver's twin: on a real tap, and on a socket that stands for one.

mod fuzz;
mod headers;
mod mac;

mod on_socket;
mod on_tap;

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::tap::{HEADER_BYTES, TapOffloads};
use crate::testing::{Buffer, Driver, SECOND_REGION, THIRD_REGION, register, status};

/// A guest's network driver, in a few words.
pub(super) struct Guest {
    pub driver: Driver,
    next_receive: u64,
    next_transmit: u64,
    /// Address and length of the receive buffer at each descriptor.
    posted: Vec<(u64, u32)>,
}

impl Guest {
    /// A guest whose driver is up, with queues of `size`.
    pub fn start(net: Net, features: u64, size: u16) -> Self {
        let mut driver = Driver::new(Box::new(net));
        driver.start(features, size);
        assert_eq!(
            driver.status() & status::NEEDS_RESET,
            0,
            "it does not start"
        );
        Self {
            driver,
            next_receive: THIRD_REGION,
            next_transmit: SECOND_REGION,
            posted: vec![(0, 0); usize::from(size)],
        }
    }

    /// Makes a receive buffer of `bytes` available, without a doorbell.
    pub fn post(&mut self, bytes: u32) {
        let address = self.next_receive;
        self.next_receive += u64::from(bytes.next_multiple_of(64));
        if self.next_receive > THIRD_REGION + 0xf_0000 {
            self.next_receive = THIRD_REGION;
        }
        let head = self.driver.queues[0].add(&[Buffer::Writable(address, bytes)]);
        self.posted[usize::from(head)] = (address, bytes);
    }

    pub fn post_and_kick(&mut self, count: usize, bytes: u32) {
        for _ in 0..count {
            self.post(bytes);
        }
        self.driver.kick(receive::QUEUE_INDEX);
    }

    /// The next frame that was received, with its header and the number of its buffers.
    pub fn receive(&mut self) -> (FrameHeaderView, Vec<u8>) {
        let (head, written) = self.driver.wait_used(receive::QUEUE_INDEX);
        let mut bytes = self.buffer(head, written);
        let header = FrameHeaderView::new(&bytes);
        for _ in 1..header.buffer_count {
            // The others are there as soon as the first one is.
            let (head, written) = self.driver.queues[0].take_used().expect("frame is in part");
            bytes.extend(self.buffer(head, written));
        }
        (header, bytes.split_off(HEADER_BYTES))
    }

    fn buffer(&self, head: u32, written: u32) -> Vec<u8> {
        let (address, bytes) = self.posted[usize::try_from(head).unwrap()];
        assert!(written <= bytes);
        self.driver
            .fetch(address, usize::try_from(written).unwrap())
    }

    /// Makes a frame available for sending, without a doorbell: the header and the frame apart.
    pub fn queue_frame(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) {
        let header = self.place(&header);
        let frame_at = self.place(frame);
        let length = u32::try_from(frame.len()).unwrap();
        self.driver.queues[1].add(&[
            Buffer::Readable(header, 12),
            Buffer::Readable(frame_at, length),
        ]);
    }

    /// Sends a frame and waits until the device has done with it.
    pub fn send(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) {
        self.queue_frame(header, frame);
        self.driver.kick(transmit::QUEUE_INDEX);
        assert_eq!(self.driver.wait_used(transmit::QUEUE_INDEX).1, 0);
    }

    pub fn place(&mut self, bytes: &[u8]) -> u64 {
        let length = u64::try_from(bytes.len().next_multiple_of(64)).unwrap();
        if self.next_transmit + length > SECOND_REGION + 0x10_0000 {
            self.next_transmit = SECOND_REGION;
        }
        let address = self.next_transmit;
        self.next_transmit += length;
        self.driver
            .memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
        address
    }
}

/// What a driver reads of a header.
#[derive(Debug)]
pub(super) struct FrameHeaderView {
    pub flags: u8,
    pub gso_type: u8,
    pub buffer_count: u16,
}

impl FrameHeaderView {
    fn new(bytes: &[u8]) -> Self {
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            buffer_count: u16::from_le_bytes([bytes[10], bytes[11]]),
        }
    }
}

pub(super) fn options(name: &str) -> NetOptions {
    NetOptions {
        name: name.to_owned(),
        mac: MacAddress::derive(name),
        mtu: None,
    }
}

#[test]
fn offload_features_follow_from_the_tap() {
    use virtio_bindings::bindings::virtio_net::*;
    let of = offload::features_of;
    assert_eq!(of(TapOffloads::NONE), 0);
    assert_eq!(
        of(TapOffloads::CSUM),
        bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_GUEST_CSUM)
    );
    let old = of(TapOffloads::CSUM | TapOffloads::TSO4 | TapOffloads::TSO6);
    assert_ne!(old & bit(VIRTIO_NET_F_HOST_TSO4), 0);
    assert_eq!(old & bit(VIRTIO_NET_F_HOST_USO), 0);
    assert_eq!(of(TapOffloads::ALL).count_ones(), 13);

    let back = offload::offloads_of;
    assert_eq!(back(of(TapOffloads::ALL)), TapOffloads::ALL);
    // What depends on a feature that the driver left out is left out as well (5.1.3.1).
    assert_eq!(back(bit(VIRTIO_NET_F_GUEST_TSO4)), TapOffloads::NONE);
    assert_eq!(back(bit(VIRTIO_NET_F_CSUM)), TapOffloads::NONE);
    assert_eq!(
        back(bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_USO4)),
        TapOffloads::CSUM
    );
}

#[test]
fn mtu_below_the_smallest_is_refused() {
    let (socket, _peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let tap = Tap::from_socket(socket, TapOffloads::NONE);
    let error = Net::new(
        tap,
        NetOptions {
            mtu: Some(67),
            ..options("net0")
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "an MTU of 67 is too small: it is 68 to 65535 bytes"
    );
}

#[test]
fn configuration_space_is_that_of_the_options() {
    let (socket, _peer) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let tap = Tap::from_socket(socket, TapOffloads::ALL);
    let mac: MacAddress = "02:01:02:03:04:05".parse().unwrap();
    let net = Net::new(
        tap,
        NetOptions {
            mac,
            mtu: Some(1400),
            ..options("net0")
        },
    )
    .unwrap();
    let mut driver = Driver::new(Box::new(net));
    let wanted = bit(VIRTIO_NET_F_MTU) | bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS);
    assert_eq!(driver.offered_features() & wanted, wanted);
    assert_eq!(driver.read(register::DEVICE_ID), 1);
    assert_eq!(
        driver.config(0, 12),
        [2, 1, 2, 3, 4, 5, 1, 0, 1, 0, 0x78, 0x05]
    );
    assert_eq!(driver.config(12, 8), [0; 8]);
}
