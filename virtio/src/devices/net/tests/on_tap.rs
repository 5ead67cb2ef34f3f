//! The device on a real tap: needs root and /dev/net/tun.

use std::cell::{Cell, RefCell};

use virtio_bindings::bindings::virtio_net::*;

use super::*;
use crate::feature;
use crate::tap::tests::network::{self, PacketSocket, in_new_network};
use crate::testing::conformance::{self, Subject};

const RING: u64 = feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC;

#[test]
fn conforms() {
    in_new_network(|| {
        let count = Cell::new(0);
        let host = RefCell::new(None);
        let make = || -> Box<dyn VirtioDevice> {
            let name = format!("conforms{}", count.replace(count.get() + 1));
            let tap = Tap::create(&name).unwrap();
            host.replace(Some(PacketSocket::bind(&name)));
            Box::new(Net::new(tap, options(&name)).unwrap())
        };
        let seed = Cell::new(0_u8);
        let exercise = |driver: &mut Driver| {
            seed.set(seed.get().wrapping_add(1));
            let host = host.borrow();
            let host = host.as_ref().unwrap();
            let frame = network::frame(100, seed.get());
            let header = driver.place(&[0; HEADER_BYTES]);
            let address = driver.place(&frame);
            driver.request(
                1,
                &[Buffer::Readable(header, 12), Buffer::Readable(address, 100)],
            );
            assert_eq!(host.receive(), frame);

            let frame = network::frame(200, seed.get());
            let buffer = driver.allocate(256);
            driver.submit(0, &[Buffer::Writable(buffer, 256)]);
            host.send(&frame);
            assert_eq!(driver.wait_used(0).1, 212);
            assert_eq!(driver.fetch(buffer, 212)[12..], frame);
        };
        conformance::run(&Subject {
            make: &make,
            features: bit(VIRTIO_NET_F_MAC) | bit(VIRTIO_NET_F_STATUS),
            eager_queue: 1,
            exercise: &exercise,
        });
    });
}

#[test]
fn frames_of_all_lengths_pass_both_ways_unchanged() {
    in_new_network(|| {
        let tap = Tap::create("bulk0").unwrap();
        tap.set_mtu_bytes(9000).unwrap();
        let host = PacketSocket::bind("bulk0");
        let net = Net::new(tap, options("bulk0")).unwrap();
        let counters = net.counters();
        let mut guest = Guest::start(net, RING | bit(VIRTIO_NET_F_MRG_RXBUF), 128);
        guest.post_and_kick(64, 1526);
        let (mut frames, mut bytes) = (0_u64, 0_u64);
        for round in 0..400_usize {
            let length = 60 + (round * 997) % 8900;
            let frame = network::frame(length, u8::try_from(round % 251).unwrap());
            guest.send([0; HEADER_BYTES], &frame);
            assert_eq!(host.receive(), frame);
            host.send(&frame);
            let (header, received) = guest.receive();
            assert_eq!(
                usize::from(header.buffer_count),
                (length + 12).div_ceil(1526)
            );
            assert!(received == frame, "round {round}");
            guest.post_and_kick(usize::from(header.buffer_count), 1526);
            (frames, bytes) = (frames + 1, bytes + u64::try_from(length).unwrap());
        }
        let expected = DirectionCounts {
            frames,
            bytes,
            dropped: 0,
        };
        assert_eq!(counters.received(), expected);
        assert_eq!(counters.transmitted(), expected);
    });
}

#[test]
fn a_large_frame_to_the_guest_is_cut_unless_the_guest_cuts() {
    in_new_network(|| {
        let payload = network::frame(8000, 3);
        let (header, frame) = network::tcp_frame(&payload, 1000);
        let wanted = bit(VIRTIO_NET_F_MRG_RXBUF) | bit(VIRTIO_NET_F_GUEST_CSUM);
        for whole in [true, false] {
            let tap = Tap::create("large%d").unwrap();
            let host = PacketSocket::bind_with_headers(tap.name());
            let features = if whole {
                wanted | bit(VIRTIO_NET_F_GUEST_TSO4)
            } else {
                wanted
            };
            let net = Net::new(tap, options("large")).unwrap();
            let mut guest = Guest::start(net, RING | features, 128);
            guest.post_and_kick(100, 1526);
            host.send(&[&header[..], &frame[..]].concat());
            let (mut segments, mut received) = (0, Vec::new());
            while received.len() < payload.len() {
                let (header, segment) = guest.receive();
                if whole {
                    assert_eq!((header.flags, header.gso_type), (1, 1));
                    assert!(header.buffer_count > 1);
                } else {
                    assert_eq!(header.gso_type, 0);
                    assert!(segment.len() <= 1514);
                }
                received.extend_from_slice(&segment[network::TCP_HEADERS_BYTES..]);
                segments += 1;
            }
            assert_eq!(segments, if whole { 1 } else { 8 });
            assert!(received == payload);
        }
    });
}

#[test]
fn without_checksum_offload_the_guest_gets_whole_checksums() {
    in_new_network(|| {
        let payload = network::frame(400, 4);
        let (mut header, frame) = network::tcp_frame(&payload, 1000);
        // No segmentation: a frame whose checksum alone is missing.
        header[1..6].fill(0);
        let tap = Tap::create("sum0").unwrap();
        let host = PacketSocket::bind_with_headers("sum0");
        let mut guest = Guest::start(Net::new(tap, options("sum0")).unwrap(), RING, 16);
        guest.post_and_kick(8, 2048);
        host.send(&[&header[..], &frame[..]].concat());
        let (header, received) = guest.receive();
        assert_eq!(
            (header.flags, header.gso_type, header.buffer_count),
            (0, 0, 1)
        );
        assert!(network::tcp_checksum_is_right(&received));
    });
}

#[test]
fn a_large_frame_from_the_guest_reaches_the_host_whole() {
    in_new_network(|| {
        let payload = network::frame(20_000, 5);
        let (header, frame) = network::tcp_frame(&payload, 1000);
        let tap = Tap::create("out0").unwrap();
        let host = PacketSocket::bind_with_headers("out0");
        let features = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4);
        let net = Net::new(tap, options("out0")).unwrap();
        let counters = net.counters();
        let mut guest = Guest::start(net, RING | features, 16);
        let mut full_header = [0; HEADER_BYTES];
        full_header[..header.len()].copy_from_slice(&header);
        guest.send(full_header, &frame);
        let received = host.receive_with_header();
        assert_eq!(
            received[1], 1,
            "one frame for TCP over IPv4, still to be cut"
        );
        assert!(received[header.len()..] == frame);
        assert_eq!(counters.transmitted().dropped, 0);
    });
}

#[test]
fn headers_that_the_kernel_refuses_cost_their_frame_alone() {
    in_new_network(|| {
        let tap = Tap::create("bad0").unwrap();
        let host = PacketSocket::bind("bad0");
        let net = Net::new(tap, options("bad0")).unwrap();
        let counters = net.counters();
        let offered = net.features();
        let mut guest = Guest::start(net, RING | offered, 16);
        let frame = network::frame(100, 6);
        // TCP segmentation of a frame that is no IP at all, and others of the kind.
        let headers: [[u8; HEADER_BYTES]; 4] = [
            [1, 1, 54, 0, 0xb4, 5, 99, 0, 16, 0, 0, 0],
            [1, 1, 54, 0, 0xb4, 5, 0xff, 0xff, 0xff, 0xff, 0, 0],
            [1, 0x7f, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0],
            [1, 5, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0],
        ];
        for header in headers {
            guest.send(header, &frame);
        }
        assert_eq!(
            counters.transmitted(),
            DirectionCounts {
                dropped: 4,
                ..Default::default()
            }
        );
        guest.send([0; HEADER_BYTES], &frame);
        assert_eq!(host.receive(), frame);
    });
}

#[test]
fn frames_from_before_the_driver_do_not_reach_it_in_a_form_that_it_refused() {
    in_new_network(|| {
        let (header, frame) = network::tcp_frame(&network::frame(8000, 7), 1000);
        let tap = Tap::create("stale0").unwrap();
        tap.set_offloads(TapOffloads::CSUM | TapOffloads::TSO4)
            .unwrap();
        let host = PacketSocket::bind_with_headers("stale0");
        host.send(&[&header[..], &frame[..]].concat());
        let net = Net::new(tap, options("stale0")).unwrap();
        let counters = net.counters();
        let mut guest = Guest::start(net, RING | bit(VIRTIO_NET_F_MRG_RXBUF), 64);
        guest.post_and_kick(60, 1526);
        let plain = network::frame(99, 8);
        host.send(&[&[0; 10][..], &plain[..]].concat());
        let (header, received) = guest.receive();
        assert_eq!(header.gso_type, 0);
        assert_eq!(received, plain);
        assert_eq!(counters.received().dropped, 1);
    });
}

#[test]
fn a_deleted_interface_takes_the_link_down_and_nothing_else() {
    in_new_network(|| {
        network::make_persistent_tap("dies0", false);
        let tap = Tap::open("dies0").unwrap();
        let index = network::index("dies0");
        let net = Net::new(tap, options("dies0")).unwrap();
        let counters = net.counters();
        let mut guest = Guest::start(net, RING, 16);
        guest.post_and_kick(4, 2048);
        assert_eq!(guest.driver.config(6, 2), [1, 0]);
        network::delete(index);
        assert_eq!(guest.driver.wait_interrupt(), 2);
        assert_eq!(guest.driver.config(6, 2), [0, 0]);
        guest.send([0; HEADER_BYTES], &network::frame(60, 9));
        assert_eq!(counters.transmitted().dropped, 1);
        // The driver may start over; the link stays down.
        guest.driver.start(RING, 16);
        assert_eq!(guest.driver.config(6, 2), [0, 0]);
    });
}
