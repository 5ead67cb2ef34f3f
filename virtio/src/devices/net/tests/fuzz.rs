//! Any headers, any chains and any frames: the device serves, or is broken and says so, and serves
//! again after a reset.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::feature;
use crate::tap::tests::network;
use crate::testing::HOLE;

#[derive(Debug, Clone)]
enum Action {
    /// A chain on a queue, with a header at its start.
    Chain {
        queue: u16,
        header: [u8; HEADER_BYTES],
        buffers: Vec<(bool, u64, u32)>,
    },
    /// A descriptor as it comes, offered by itself.
    Raw {
        queue: u16,
        descriptor: (u64, u32, u16, u16),
    },
    /// A frame, or something like it, from the host.
    Frame {
        bytes: Vec<u8>,
    },
    Pause,
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => THIRD_REGION..THIRD_REGION + 0xf_0000,
        2 => SECOND_REGION - 64..SECOND_REGION + 64,
        1 => HOLE - 64..HOLE + 64,
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let length = prop_oneof![4 => 1_u32..200, 4 => 200_u32..5000, 1 => 0_u32..0x8_0000];
    let buffer = (any::<bool>(), address(), length);
    let header = prop_oneof![
        Just([0; HEADER_BYTES]),
        any::<[u8; HEADER_BYTES]>(),
        (0_u8..2, 0_u8..6)
            .prop_map(|(flags, kind)| { [flags, kind, 54, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0] }),
    ];
    prop_oneof![
        6 => (0_u16..2, header, prop::collection::vec(buffer, 1..6)).prop_map(
            |(queue, header, mut buffers)| {
                // In the order that the ring demands, most of the time.
                if buffers.len() % 5 != 0 {
                    buffers.sort_by_key(|(writable, ..)| *writable);
                }
                Action::Chain { queue, header, buffers }
            }
        ),
        1 => (0_u16..2, (address(), any::<u32>(), 0_u16..8, 0_u16..20))
            .prop_map(|(queue, descriptor)| Action::Raw { queue, descriptor }),
        6 => prop::collection::vec(any::<u8>(), 0..3000).prop_map(|bytes| Action::Frame { bytes }),
        1 => Just(Action::Pause),
    ]
}

fn apply(guest: &mut Guest, host: &UnixDatagram, action: &Action) {
    match action {
        Action::Chain {
            queue,
            header,
            buffers,
        } => {
            let header = guest.place(header);
            let mut chain = vec![Buffer::Readable(header, 12)];
            if *queue == 0 {
                chain.clear();
            }
            chain.extend(buffers.iter().map(|&(writable, address, length)| {
                if writable || *queue == 0 {
                    Buffer::Writable(address, length)
                } else {
                    Buffer::Readable(address, length)
                }
            }));
            guest.driver.submit(*queue, &chain);
        }
        Action::Raw { queue, descriptor } => {
            let ring = guest.driver.queues[usize::from(*queue)].split();
            ring.write_descriptor(3, *descriptor);
            ring.offer(3);
            guest.driver.kick(*queue);
        }
        Action::Frame { bytes } => {
            // The socket may be full: then there is nothing to be had of it.
            let _full = host.send(bytes);
        }
        Action::Pause => {
            guest.driver.transport.pause();
            guest.driver.transport.resume();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        // A case that hangs costs the patience of the driver's twin each time.
        max_shrink_iters: 10,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_that_a_guest_or_a_network_does_ends_the_device(
        actions in prop::collection::vec(action(), 1..40),
        offered in any::<bool>(),
        mergeable in any::<bool>(),
    ) {
        let (near, host) = UnixDatagram::pair().unwrap();
        host.set_nonblocking(true).unwrap();
        let tap = Tap::from_socket(near, TapOffloads::NONE);
        let net = Net::new(tap, options("fuzz0")).unwrap();
        let mut features = if offered { net.features() } else { 0 };
        if mergeable {
            features |= bit(VIRTIO_NET_F_MRG_RXBUF);
        }
        features |= feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC;
        let mut guest = Guest::start(net, features, 16);
        let mut drain = vec![0; 70_000];
        for action in &actions {
            apply(&mut guest, &host, action);
            while host.recv(&mut drain).is_ok() {}
        }
        // What was to be sent is given back, all of it, unless the device is broken and says so: a
        // thread that panicked would do neither.
        let end = Instant::now() + Duration::from_secs(10);
        while guest.driver.status() & status::NEEDS_RESET == 0 {
            let queue = guest.driver.queues[usize::from(transmit::QUEUE_INDEX)].split();
            if queue.used_index() == queue.next_available {
                break;
            }
            while host.recv(&mut drain).is_ok() {}
            prop_assert!(Instant::now() < end, "neither served nor broken");
            std::thread::sleep(Duration::from_micros(50));
        }

        // A new start serves, whatever came before.
        guest.driver.start(features, 16);
        guest.posted.fill((0, 0));
        std::thread::sleep(Duration::from_millis(1));
        while host.recv(&mut drain).is_ok() {}
        let frame = network::frame(100, 1);
        guest.send([0; HEADER_BYTES], &frame);
        host.set_nonblocking(false).unwrap();
        let length = host.recv(&mut drain).unwrap();
        prop_assert_eq!(&drain[HEADER_BYTES..length], &frame[..]);
        guest.post_and_kick(16, 4096);
        let marker = network::frame(77, 2);
        host.send(&[&[0; HEADER_BYTES][..], &marker[..]].concat()).unwrap();
        // What was under way before the reset comes first.
        loop {
            let (_, received) = guest.receive();
            if received == marker {
                break;
            }
            guest.post_and_kick(1, 4096);
        }
    }
}
