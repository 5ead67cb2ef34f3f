use super::*;
use crate::testing::{Buffer, DriverQueue, HOLE, SECOND_REGION, memory};
use proptest::prelude::*;

const SIZE: u16 = 8;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const RING: u64 = feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC;

fn state() -> QueueState {
    QueueState {
        max_size: 16,
        size: SIZE,
        ready: true,
        descriptor_area: TABLE,
        driver_area: AVAILABLE,
        device_area: USED,
        ..QueueState::default()
    }
}

/// A queue, its driver, and a place for a chain.
fn queue(features: u64) -> (Queue, DriverQueue, DescriptorChain) {
    let memory = memory();
    let queue = Queue::new(state(), features, Arc::clone(&memory)).unwrap();
    let driver = DriverQueue::new(memory, SIZE, [TABLE, AVAILABLE, USED], features);
    let chain = DescriptorChain::new(&queue);
    (queue, driver, chain)
}

fn lengths(buffers: Buffers<'_>) -> Vec<usize> {
    buffers.segments().map(|segment| segment.len()).collect()
}

#[test]
fn a_chain_comes_in_its_order_and_goes_back_by_its_head() {
    let (mut queue, mut driver, mut chain) = queue(0);
    assert!(!queue.pop(&mut chain).unwrap());
    let head = driver.add(&[
        Buffer::Readable(0x4000, 3),
        Buffer::Readable(0x5000, 5),
        Buffer::Writable(0x6000, 7),
    ]);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.head().id(), head);
    assert_eq!((chain.readable().len(), chain.writable().len()), (8, 7));
    assert_eq!(lengths(chain.readable()), [3, 5]);
    assert_eq!(lengths(chain.writable()), [7]);
    assert!(!queue.pop(&mut chain).unwrap());
    queue.add_used(chain.head(), 7).unwrap();
    assert_eq!(driver.take_used(), Some((u32::from(head), 7)));
    let progress = queue.state().progress.unwrap();
    assert_eq!((progress.next_available, progress.next_used), (1, 1));
}

#[test]
fn bytes_are_copied_across_descriptors_and_split_anywhere() {
    let (mut queue, mut driver, mut chain) = queue(0);
    driver.add(&[
        Buffer::Readable(0x4000, 3),
        Buffer::Readable(0x5000, 5),
        Buffer::Writable(0x6000, 2),
        Buffer::Writable(SECOND_REGION - 1, 4),
    ]);
    queue
        .memory
        .write_slice(b"abc", GuestAddress(0x4000))
        .unwrap();
    queue
        .memory
        .write_slice(b"defgh", GuestAddress(0x5000))
        .unwrap();
    assert!(queue.pop(&mut chain).unwrap());
    // The last buffer goes from one mapping into the next.
    assert_eq!(lengths(chain.writable()), [2, 1, 3]);
    for at in 0..=8_u8 {
        let (first, rest) = chain.readable().split_at(u64::from(at)).unwrap();
        let mut bytes = [0; 8];
        let (left, right) = bytes.split_at_mut(usize::from(at));
        assert_eq!(first.copy_to(left), left.len());
        assert_eq!(rest.copy_to(right), right.len());
        assert_eq!(&bytes, b"abcdefgh");
        assert!(
            first
                .segments()
                .chain(rest.segments())
                .all(|part| part.len() > 0)
        );
    }
    assert!(chain.readable().split_at(9).is_none());
    assert_eq!(chain.writable().copy_from(b"0123456789"), 6);
    let mut bytes = [0; 10];
    assert_eq!(chain.writable().copy_to(&mut bytes), 6);
    assert_eq!(&bytes[..6], b"012345");
    let (_, middle) = chain.writable().split_at(1).unwrap();
    let (middle, _) = middle.split_at(3).unwrap();
    assert_eq!(lengths(middle), [1, 1, 1]);
    let segments: Vec<Segment> = middle.segments().collect();
    let iovecs = Segment::as_iovecs(&segments);
    assert_eq!(iovecs.len(), 3);
    assert_eq!(iovecs[0].iov_len, 1);
}

#[test]
fn an_indirect_table_may_follow_direct_descriptors() {
    let (mut queue, mut driver, mut chain) = queue(RING);
    driver.add_indirect(
        0x7000,
        &[Buffer::Readable(0x4000, 16), Buffer::Writable(0x5000, 1)],
    );
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!((chain.readable().len(), chain.writable().len()), (16, 1));
    // 2.7.5.3.2: direct ones, then one indirect one; its write flag means nothing.
    driver.split().write_descriptor(4, (0x4000, 8, 1, 5));
    driver.split().write_descriptor(5, (0x7000, 32, 4 | 2, 0));
    driver.split().offer(4);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!((chain.readable().len(), chain.writable().len()), (24, 1));
}

#[test]
fn an_indirect_chain_may_be_longer_than_the_ring_but_not_than_the_device_offered() {
    for (count, fits) in [(16, true), (17, false)] {
        let (mut queue, mut driver, mut chain) = queue(RING);
        driver.add_indirect(0x7000, &vec![Buffer::Readable(0x4000, 1); count]);
        match queue.pop(&mut chain) {
            Ok(popped) => assert!(popped && fits),
            Err(error) => assert!(!fits && matches!(error, QueueError::TooLong { longest: 16 })),
        }
    }
}

#[test]
fn the_first_error_ends_the_use_of_the_ring() {
    let (mut queue, mut driver, mut chain) = queue(0);
    driver.add(&[Buffer::Readable(HOLE, 1)]);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(
        error,
        QueueError::OutsideMemory {
            address: HOLE,
            length: 1
        }
    ));
    assert!(chain.readable().is_empty() && chain.writable().is_empty());
    driver.add(&[Buffer::Readable(0x4000, 1)]);
    assert!(matches!(queue.pop(&mut chain), Err(QueueError::Unusable)));
    assert!(matches!(
        queue.add_used(chain.head(), 0),
        Err(QueueError::Unusable)
    ));
    assert!(matches!(
        queue.needs_notification(),
        Err(QueueError::Unusable)
    ));
    assert!(matches!(
        queue.enable_notification(),
        Err(QueueError::Unusable)
    ));
    assert!(matches!(
        queue.disable_notification(),
        Err(QueueError::Unusable)
    ));
    assert_eq!(driver.split().used_index(), 0);
}

#[test]
fn chains_can_be_put_back() {
    let (mut queue, mut driver, mut chain) = queue(0);
    driver.add(&[Buffer::Writable(0x4000, 1)]);
    driver.add(&[Buffer::Writable(0x4000, 2)]);
    assert!(queue.pop(&mut chain).unwrap());
    let first = chain.head();
    assert!(queue.pop(&mut chain).unwrap());
    queue.undo_pop(chain.head());
    queue.undo_pop(first);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.writable().len(), 1);
}

#[test]
fn the_event_index_suppresses_in_both_directions() {
    let (mut queue, mut driver, mut chain) = queue(RING);
    for _ in 0..4 {
        driver.add(&[Buffer::Writable(0x4000, 1)]);
    }
    assert!(queue.enable_notification().unwrap());
    assert_eq!(driver.split().available_event(), 0);
    driver.split().set_used_event(2);
    for expected in [false, false, true, false] {
        assert!(queue.pop(&mut chain).unwrap());
        queue.add_used(chain.head(), 1).unwrap();
        assert_eq!(queue.needs_notification().unwrap(), expected);
    }
    assert!(!queue.enable_notification().unwrap());
    assert_eq!(driver.split().available_event(), 4);
}

#[test]
fn flags_suppress_in_both_directions_without_the_event_index() {
    let (mut queue, mut driver, mut chain) = queue(0);
    queue.disable_notification().unwrap();
    assert_eq!(driver.split().used_flags(), 1);
    driver.add(&[Buffer::Writable(0x4000, 1)]);
    assert!(queue.enable_notification().unwrap());
    assert_eq!(driver.split().used_flags(), 0);
    assert!(!queue.needs_notification().unwrap());
    driver.add(&[Buffer::Writable(0x4000, 1)]);
    assert!(queue.pop(&mut chain).unwrap());
    queue.add_used(chain.head(), 1).unwrap();
    assert!(queue.needs_notification().unwrap());
    driver.set_no_interrupt(true);
    assert!(queue.pop(&mut chain).unwrap());
    queue.add_used(chain.head(), 1).unwrap();
    assert!(!queue.needs_notification().unwrap());
}

#[test]
fn indices_wrap() {
    let memory = memory();
    let state = QueueState {
        progress: Some(Progress {
            next_available: u16::MAX,
            next_used: u16::MAX,
        }),
        ..state()
    };
    let mut queue = Queue::new(state, 0, Arc::clone(&memory)).unwrap();
    let mut driver = DriverQueue::new(memory, SIZE, [TABLE, AVAILABLE, USED], 0);
    driver.split().next_available = u16::MAX;
    driver.split().next_used = u16::MAX;
    let mut chain = DescriptorChain::new(&queue);
    for length in 1..20 {
        driver.add(&[Buffer::Writable(0x4000, length)]);
        assert!(queue.pop(&mut chain).unwrap());
        queue.add_used(chain.head(), length).unwrap();
        assert_eq!(
            driver.take_used(),
            Some((u32::from(chain.head().id()), length))
        );
    }
}

#[test]
fn a_queue_that_the_driver_left_alone_has_nothing_and_harms_nothing() {
    let state = QueueState {
        ready: false,
        driver_area: HOLE,
        size: 3,
        ..state()
    };
    let mut queue = Queue::new(state, RING, memory()).unwrap();
    let mut chain = DescriptorChain::new(&queue);
    assert!(!queue.ready());
    assert!(!queue.pop(&mut chain).unwrap());
    assert!(!queue.enable_notification().unwrap());
    queue.disable_notification().unwrap();
}

/// Numbers that are near something that exists.
fn near() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0x1000_u64..0x1100,
        4 => 0x4000_u64..0x8000,
        1 => (SECOND_REGION - 32)..(SECOND_REGION + 32),
        1 => (HOLE - 32)..HOLE,
        1 => any::<u64>(),
    ]
}

proptest! {
    #[test]
    fn random_rings_neither_panic_nor_hang(
        descriptors in prop::collection::vec(
            (near(), prop_oneof![4 => 1_u32..64, 1 => (0_u32..8).prop_map(|n| n * 16), 1 => any::<u32>()],
             prop_oneof![0_u16..8, any::<u16>()], prop_oneof![0..=SIZE, any::<u16>()]),
            usize::from(SIZE)),
        indirect in prop::collection::vec(any::<u8>(), 256),
        heads in prop::collection::vec(prop_oneof![0..=SIZE, any::<u16>()], 0..20),
        jump in prop_oneof![9 => Just(None), 1 => any::<u16>().prop_map(Some)],
        features in prop_oneof![Just(0), Just(RING)],
    ) {
        let (mut queue, mut driver, mut chain) = queue(features);
        queue.memory.write_slice(&indirect, GuestAddress(0x4000)).unwrap();
        for (index, descriptor) in (0..).zip(descriptors) {
            driver.split().write_descriptor(index, descriptor);
        }
        let mut popped = 0;
        for head in heads {
            driver.split().offer(head);
            if let Some(index) = jump {
                driver.split().set_available_index(index);
            }
            while let Ok(true) = queue.pop(&mut chain) {
                popped += 1;
                prop_assert!(popped <= 0x1_0000);
                prop_assert!(chain.head().id() < SIZE);
                let whole = chain.readable().len() + chain.writable().len();
                prop_assert!(whole > 0 && whole <= 1 << 32);
                let pieces = chain.readable().segments().chain(chain.writable().segments());
                let sum: usize = pieces.map(|segment| segment.len()).sum();
                prop_assert_eq!(u64::try_from(sum).unwrap(), whole);
                chain.writable().copy_from(&[0; 64]);
                if queue.add_used(chain.head(), 1).is_err() {
                    break;
                }
            }
            let _broken_or_not = queue.needs_notification();
            let _broken_or_not = queue.enable_notification();
        }
    }
}
