//! The device on a socket that stands for a tap: what a test has to see or to hold back exactly.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use super::*;
use crate::feature;
use crate::tap::tests::network;
use crate::testing::assert_idle;

const RING: u64 = feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC;
const PACKED: u64 = feature::RING_PACKED;
const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const PATIENCE: Duration = Duration::from_secs(10);

/// A guest, the far side of its tap, and the device's counters.
struct Link {
    guest: Guest,
    host: UnixDatagram,
    counters: Arc<NetCounters>,
}

impl Link {
    fn new(name: &str, features: u64, queue_size: u16) -> Self {
        let (near, host) = UnixDatagram::pair().unwrap();
        host.set_read_timeout(Some(PATIENCE)).unwrap();
        let net = Net::new(Tap::from_socket(near, TapOffloads::NONE), options(name)).unwrap();
        let counters = net.counters();
        Self {
            guest: Guest::start(net, features, queue_size),
            host,
            counters,
        }
    }

    fn send(&self, frame: &[u8]) {
        let bytes = [&[0; HEADER_BYTES][..], frame].concat();
        assert_eq!(self.host.send(&bytes).unwrap(), bytes.len());
    }

    fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 70_000];
        let length = self.host.recv(&mut bytes).expect("no frame from the guest");
        bytes[HEADER_BYTES..length].to_vec()
    }

    fn wait_for(&self, what: &str, done: impl Fn(&NetCounters) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(&self.counters) {
            assert!(Instant::now() < end, "not in time: {what}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

#[test]
fn a_tap_without_room_holds_the_queue_up_and_loses_nothing() {
    for ring in [0, RING, PACKED, PACKED | RING] {
        let mut link = Link::new("full0", ring, 256);
        let mut sent = Vec::new();
        for index in 0..3_u8 {
            for round in 0..120 {
                let frame = network::frame(2000 + round, index);
                link.guest.queue_frame([0; HEADER_BYTES], &frame);
                sent.push(frame);
            }
            link.guest.driver.kick(transmit::QUEUE_INDEX);
            if index == 0 {
                // Some are in the socket; the others wait, and the thread with them.
                link.wait_for("some frames", |counters| counters.transmitted().frames > 0);
                std::thread::sleep(Duration::from_millis(20));
                let through = link.counters.transmitted().frames;
                assert!(through < 120, "the socket took all of {through}");
                assert_idle("full0");
                // A stop while the tap is full gives back what was not sent.
                link.guest.driver.transport.pause();
                link.guest.driver.transport.resume();
            }
            for frame in &sent {
                assert!(link.receive() == *frame);
            }
            for _ in sent.drain(..) {
                assert_eq!(link.guest.driver.wait_used(transmit::QUEUE_INDEX).1, 0);
            }
        }
        assert_eq!(link.counters.transmitted().frames, 360);
        assert_eq!(link.counters.transmitted().dropped, 0);
    }
}

#[test]
fn a_driver_without_buffers_stops_the_reading() {
    let merged = RING | MERGEABLE;
    for features in [0, RING, MERGEABLE, merged, PACKED, PACKED | merged] {
        let mut link = Link::new("starved0", features, 16);
        for seed in 0..5 {
            link.send(&network::frame(300, seed));
        }
        assert_idle("starved0");
        assert_eq!(link.counters.received(), DirectionCounts::default());
        for seed in 0..5 {
            link.guest.post_and_kick(1, 2048);
            let (header, frame) = link.guest.receive();
            assert_eq!(header.buffer_count, 1);
            assert_eq!(frame, network::frame(300, seed));
        }
        assert_eq!(link.counters.received().dropped, 0);
    }
}

#[test]
fn a_frame_waits_for_enough_mergeable_buffers() {
    for ring in [RING, PACKED | RING] {
        let mut link = Link::new("parked0", ring | MERGEABLE, 64);
        link.guest.post_and_kick(2, 1000);
        let frame = network::frame(7000, 1);
        link.send(&frame);
        assert_idle("parked0");
        assert!(link.guest.driver.queues[0].take_used().is_none());
        for _ in 0..6 {
            link.guest.post_and_kick(1, 1000);
        }
        let (header, received) = link.guest.receive();
        assert_eq!(header.buffer_count, 8);
        assert!(received == frame);
    }
}

/// Ends the watcher, also when the test fails.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn buffers_of_one_frame_appear_together() {
    let mut link = Link::new("together0", RING | MERGEABLE, 256);
    let queue = link.guest.driver.queues[0].split();
    let (memory, index_at) = (Arc::clone(&link.guest.driver.memory), queue.used + 2);
    let done = Done(Arc::default());
    let done_too = Arc::clone(&done.0);
    let watcher = std::thread::spawn(move || {
        let mut seen = 0_u32;
        while !done_too.load(Ordering::Acquire) {
            let index: u16 = memory
                .load(GuestAddress(index_at), Ordering::Acquire)
                .unwrap();
            assert_eq!(index % 8, 0, "a frame is there in part");
            seen += 1;
        }
        seen
    });
    for round in 0..300_u16 {
        // In place when there are many buffers, by way of the host when there are few.
        let posted = if round % 2 == 0 { 8 } else { 80 };
        let outstanding = {
            let queue = link.guest.driver.queues[0].split();
            queue.next_available - queue.next_used
        };
        link.guest
            .post_and_kick(usize::from(posted - outstanding.min(posted)), 1000);
        let frame = network::frame(7900, u8::try_from(round % 200).unwrap());
        link.send(&frame);
        let (header, received) = link.guest.receive();
        assert_eq!(header.buffer_count, 8);
        assert!(received == frame, "round {round}");
    }
    drop(done);
    assert!(watcher.join().unwrap() > 0);
    assert_eq!(link.counters.received().frames, 300);
}

#[test]
fn a_frame_that_never_fits_is_dropped_and_the_next_one_passes() {
    for features in [0, MERGEABLE, PACKED, PACKED | MERGEABLE] {
        let mut link = Link::new("nofit0", features, 4);
        link.guest.post_and_kick(4, 200);
        link.send(&network::frame(2000, 1));
        link.wait_for("a dropped frame", |counters| {
            counters.received().dropped == 1
        });
        link.send(&network::frame(150, 2));
        assert_eq!(link.guest.receive().1, network::frame(150, 2));
        assert_eq!(link.counters.received().frames, 1);
    }
}

#[test]
fn a_frame_that_just_fits_and_one_byte_more() {
    let mut link = Link::new("fits0", 0, 4);
    link.guest.post_and_kick(2, 512);
    link.send(&network::frame(501, 1));
    link.send(&network::frame(500, 2));
    let (header, frame) = link.guest.receive();
    assert_eq!(header.buffer_count, 1);
    assert_eq!(frame, network::frame(500, 2));
    assert_eq!(link.counters.received().dropped, 1);
}

#[test]
fn buffers_without_room_for_a_header_go_back_empty() {
    for features in [0, RING | MERGEABLE, PACKED, PACKED | RING | MERGEABLE] {
        let mut link = Link::new("tiny0", features, 8);
        link.guest.post(11);
        link.guest.post_and_kick(1, 1000);
        assert_eq!(link.guest.driver.wait_used(0).1, 0);
        link.send(&network::frame(400, 1));
        assert_eq!(link.guest.receive().1, network::frame(400, 1));
    }
}

#[test]
fn a_header_may_lie_in_pieces() {
    let mut link = Link::new("pieces0", RING, 16);
    let frame = network::frame(100, 1);
    let bytes = [&[0; HEADER_BYTES][..], &frame[..]].concat();
    let at = link.guest.place(&bytes);
    let chain = |make: fn(u64, u32) -> Buffer, at: u64| {
        [
            make(at, 5),
            make(at + 5, 3),
            make(at + 8, 9),
            make(at + 17, 95),
        ]
    };
    link.guest.driver.request(1, &chain(Buffer::Readable, at));
    assert_eq!(link.receive(), frame);
    let to = link.guest.driver.allocate(112);
    link.guest.driver.submit(0, &chain(Buffer::Writable, to));
    link.send(&frame);
    assert_eq!(link.guest.driver.wait_used(0).1, 112);
    assert_eq!(link.guest.driver.fetch(to + 12, 100), frame);
    assert_eq!(link.guest.driver.fetch(to + 10, 2), [1, 0]);
}

#[test]
fn a_stop_gives_unused_buffers_back_in_their_order() {
    for features in [RING | MERGEABLE, 0, PACKED | RING | MERGEABLE, PACKED] {
        let mut link = Link::new("stops0", features, 32);
        link.guest.post_and_kick(32, 1000);
        for seed in 0..32 {
            link.send(&network::frame(100, seed));
            assert_eq!(link.guest.receive().1, network::frame(100, seed));
            link.guest.driver.transport.pause();
            link.guest.driver.transport.resume();
        }
        assert!(!link.guest.driver.queues[0].has_used());
        assert_eq!(link.counters.received().frames, 32);
    }
}

#[test]
fn interrupts_follow_the_event_index() {
    let mut link = Link::new("events0", RING | MERGEABLE, 64);
    link.guest.post_and_kick(60, 1000);
    link.guest.driver.queues[0].split().set_used_event(20);
    // Six buffers a frame: the index passes 20 with the fourth frame alone.
    for seed in 0..9 {
        link.send(&network::frame(5500, seed));
        link.wait_for("a frame", |counters| {
            counters.received().frames == u64::from(seed) + 1
        });
        // The interrupt comes right after the frame is counted, if it comes.
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(link.guest.driver.interrupted(), seed == 3, "frame {seed}");
    }
}

#[test]
fn frames_beyond_the_negotiated_mtu_do_not_reach_the_driver() {
    let (near, host) = UnixDatagram::pair().unwrap();
    let tap = Tap::from_socket(near, TapOffloads::NONE);
    let net = Net::new(
        tap,
        NetOptions {
            mtu: Some(1000),
            ..options("mtu0")
        },
    )
    .unwrap();
    let counters = net.counters();
    let guest = Guest::start(net, RING | bit(VIRTIO_NET_F_MTU), 8);
    let mut link = Link {
        guest,
        host,
        counters,
    };
    link.guest.post_and_kick(4, 4096);
    link.send(&network::frame(1019, 1));
    link.send(&network::frame(1018, 2));
    assert_eq!(link.guest.receive().1, network::frame(1018, 2));
    assert_eq!(link.counters.received().dropped, 1);
}

#[test]
fn chains_that_are_no_frames_are_dropped_and_given_back() {
    let mut link = Link::new("noframe0", RING, 16);
    let at = link.guest.place(&[0; 4096]);
    let chains: [&[Buffer]; 5] = [
        &[Buffer::Readable(at, 11)],
        &[Buffer::Readable(at, 12)],
        &[Buffer::Readable(at, 25)],
        &[Buffer::Writable(at, 100)],
        &[Buffer::Readable(THIRD_REGION, 70_000)],
    ];
    for chain in chains {
        assert_eq!(link.guest.driver.request(1, chain), 0);
    }
    assert_eq!(link.counters.transmitted().dropped, 5);
    let frame = network::frame(64, 1);
    link.guest.send([0; HEADER_BYTES], &frame);
    assert_eq!(link.receive(), frame);
}
