//! Packed rings, driven by the other side, and compared with a model that knows nothing of wrap counters.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use crate::feature;
use crate::queue::{DescriptorChain, Head, Progress, Queue, QueueError, QueueState};
use crate::testing::{Buffer, DriverQueue, HOLE, SECOND_REGION, memory};

const SIZE: u16 = 5;
const RING: u64 = 0x1000;
const DRIVER: u64 = 0x2000;
const DEVICE: u64 = 0x3000;
const EVENTS: u64 = feature::RING_EVENT_IDX;
const INDIRECT: u64 = feature::RING_INDIRECT_DESC;

fn state(size: u16) -> QueueState {
    QueueState {
        max_size: 16,
        size,
        ready: true,
        descriptor_area: RING,
        driver_area: DRIVER,
        device_area: DEVICE,
        progress: None,
    }
}

/// A queue, its driver, and a place for a chain.
fn queue_of(size: u16, features: u64) -> (Queue, DriverQueue, DescriptorChain) {
    let memory = memory();
    let features = features | feature::RING_PACKED;
    let queue = Queue::new(state(size), features, Arc::clone(&memory)).unwrap();
    let driver = DriverQueue::new(memory, size, [RING, DRIVER, DEVICE], features);
    let chain = DescriptorChain::new(&queue);
    (queue, driver, chain)
}

fn queue(features: u64) -> (Queue, DriverQueue, DescriptorChain) {
    queue_of(SIZE, features)
}

fn pop(queue: &mut Queue, chain: &mut DescriptorChain) -> Option<(Head, u64, u64)> {
    let there = queue.pop(chain).unwrap();
    there.then(|| (chain.head(), chain.readable().len(), chain.writable().len()))
}

#[test]
fn chains_go_round_a_ring_that_is_no_power_of_two() {
    let (mut queue, mut driver, mut chain) = queue(INDIRECT);
    for round in 1..40_u32 {
        assert_eq!(pop(&mut queue, &mut chain), None);
        let id = driver.add(&[Buffer::Readable(0x4000, round), Buffer::Writable(0x5000, 3)]);
        let other = driver.add_indirect(
            0x7000,
            &[Buffer::Readable(0x4000, 8), Buffer::Writable(0x5000, round)],
        );
        let (first, read, written) = pop(&mut queue, &mut chain).unwrap();
        assert_eq!((first.id(), read, written), (id, u64::from(round), 3));
        let (second, read, written) = pop(&mut queue, &mut chain).unwrap();
        assert_eq!((second.id(), read, written), (other, 8, u64::from(round)));
        assert_eq!(pop(&mut queue, &mut chain), None);
        // The order of completion is the device's.
        queue.add_used(second, round).unwrap();
        assert_eq!(driver.take_used(), Some((u32::from(other), round)));
        queue.add_used(first, 0).unwrap();
        assert_eq!(driver.take_used(), Some((u32::from(id), 0)));
    }
}

#[test]
fn staged_buffers_become_visible_together() {
    let (mut queue, mut driver, mut chain) = queue(0);
    for _ in 0..7 {
        let mut heads = Vec::new();
        for _ in 0..3 {
            driver.add(&[Buffer::Writable(0x4000, 8)]);
            heads.push(pop(&mut queue, &mut chain).unwrap().0);
        }
        for head in heads {
            queue.stage_used(head, 4).unwrap();
            assert!(!driver.has_used());
            assert!(!queue.needs_notification().unwrap());
        }
        queue.publish_used().unwrap();
        assert!(queue.needs_notification().unwrap());
        for _ in 0..3 {
            assert_eq!(driver.take_used().unwrap().1, 4);
        }
        queue.publish_used().unwrap();
        assert!(!driver.has_used());
    }
}

#[test]
fn flags_suppress_in_both_directions() {
    let (mut queue, mut driver, mut chain) = queue(0);
    queue.disable_notification().unwrap();
    assert!(!driver.wants_doorbell());
    driver.add(&[Buffer::Writable(0x4000, 1)]);
    assert!(queue.enable_notification().unwrap());
    assert!(driver.wants_doorbell());
    for (unwanted, told) in [(false, true), (true, false)] {
        driver.set_no_interrupt(unwanted);
        let (head, ..) = pop(&mut queue, &mut chain).unwrap();
        queue.add_used(head, 1).unwrap();
        assert_eq!(queue.needs_notification().unwrap(), told);
        assert!(driver.take_used().is_some());
        driver.add(&[Buffer::Writable(0x4000, 1)]);
    }
    // A place counts only where it was negotiated; what is reserved asks for everything.
    driver.packed().set_event(0);
    let (head, ..) = pop(&mut queue, &mut chain).unwrap();
    queue.add_used(head, 1).unwrap();
    assert!(queue.needs_notification().unwrap());
}

#[test]
fn a_place_in_the_ring_suppresses_in_both_directions() {
    let (mut queue, mut driver, mut chain) = queue(EVENTS);
    for round in 0..30 {
        // Two descriptors, then one; the driver asks for word of the one behind both.
        driver.packed().set_event(3 * round + 2);
        assert!(!queue.enable_notification().unwrap());
        driver.add(&[Buffer::Readable(0x4000, 1), Buffer::Readable(0x4000, 1)]);
        assert!(driver.wants_doorbell());
        driver.add(&[Buffer::Writable(0x4000, 1)]);
        assert!(!driver.wants_doorbell());
        queue.disable_notification().unwrap();
        for told in [false, true] {
            let (head, ..) = pop(&mut queue, &mut chain).unwrap();
            queue.add_used(head, 0).unwrap();
            assert_eq!(queue.needs_notification().unwrap(), told, "round {round}");
            assert!(!queue.needs_notification().unwrap());
            driver.take_used().unwrap();
            driver.packed().set_event(3 * round + 2);
        }
    }
}

#[test]
fn a_place_that_is_not_there_never_comes_and_any_comes_in_two_rounds() {
    let (mut queue, mut driver, mut chain) = queue_of(1, EVENTS);
    driver.packed().set_event_bits(SIZE | 1 << 15);
    for untold in 1..6 {
        for _ in 0..untold {
            driver.add(&[Buffer::Writable(0x4000, 1)]);
            let (head, ..) = pop(&mut queue, &mut chain).unwrap();
            queue.add_used(head, 1).unwrap();
            driver.take_used().unwrap();
            driver.packed().set_event_bits(SIZE | 1 << 15);
        }
        assert!(!queue.needs_notification().unwrap());
    }
    for bits in [0, 1 << 15] {
        for _ in 0..3 {
            driver.add(&[Buffer::Writable(0x4000, 1)]);
            let (head, ..) = pop(&mut queue, &mut chain).unwrap();
            queue.add_used(head, 1).unwrap();
            driver.take_used().unwrap();
        }
        driver.packed().set_event_bits(bits);
        assert!(queue.needs_notification().unwrap());
    }
}

#[test]
fn no_more_than_the_ring_is_under_way() {
    let (mut queue, mut driver, mut chain) = queue(0);
    for _ in 0..SIZE {
        driver.add(&[Buffer::Writable(0x4000, 1)]);
        pop(&mut queue, &mut chain).unwrap();
    }
    assert_eq!(pop(&mut queue, &mut chain), None);
    // A driver that does not wait for its descriptors.
    let flags = driver.packed().available_bits(u64::from(SIZE));
    driver.packed().write_descriptor(0, (0x4000, 1, 0, flags));
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::Overrun { size: SIZE }));
    assert!(matches!(
        queue.enable_notification(),
        Err(QueueError::Unusable)
    ));
}

#[test]
fn a_list_ends_where_descriptors_are_in_use() {
    let (mut queue, mut driver, mut chain) = queue(0);
    driver.add(&[Buffer::Writable(0x4000, 1); 2]);
    pop(&mut queue, &mut chain).unwrap();
    for place in 2..u64::from(SIZE) + 2 {
        let flags = driver.packed().available_bits(place) | 1;
        let index = u16::try_from(place % u64::from(SIZE)).unwrap();
        driver
            .packed()
            .write_descriptor(index, (0x4000, 1, 0, flags));
    }
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::Overrun { .. }));
}

#[test]
fn what_was_not_taken_is_not_given_back() {
    let (mut queue, mut driver, mut chain) = queue(0);
    driver.add(&[Buffer::Writable(0x4000, 1)]);
    let (head, ..) = pop(&mut queue, &mut chain).unwrap();
    queue.undo_pop(head);
    assert_eq!(pop(&mut queue, &mut chain).unwrap().0, head);
    queue.add_used(head, 1).unwrap();
    let error = queue.add_used(head, 1).unwrap_err();
    assert!(matches!(error, QueueError::NotTaken { .. }));
}

#[test]
fn rings_that_cannot_be_are_refused() {
    let fine = state(SIZE);
    let place = |next_available, next_used| QueueState {
        progress: Some(Progress {
            next_available,
            next_used,
        }),
        ..fine
    };
    let bad = [
        QueueState { size: 0, ..fine },
        QueueState { size: 17, ..fine },
        QueueState {
            size: 0xffff,
            max_size: 0xffff,
            ..fine
        },
        QueueState {
            descriptor_area: RING + 8,
            ..fine
        },
        QueueState {
            descriptor_area: HOLE - 32,
            ..fine
        },
        QueueState {
            descriptor_area: u64::MAX - 15,
            ..fine
        },
        QueueState {
            driver_area: DRIVER + 2,
            ..fine
        },
        QueueState {
            device_area: HOLE,
            ..fine
        },
        place(SIZE, 0),
        place(0, SIZE | 1 << 15),
        // More than the ring is under way.
        place(1, 1 << 15),
        place(1 << 15, 1 | 1 << 15),
    ];
    for state in bad {
        let made = Queue::new(state, feature::RING_PACKED, memory());
        assert!(made.is_err(), "{state:?}");
    }
    for state in [fine, place(0, 1 << 15), place(1 << 15, 4)] {
        Queue::new(state, feature::RING_PACKED, memory()).unwrap();
    }
}

/// What driver and device do, in any order.
#[derive(Debug, Clone)]
enum Step {
    /// A chain of so many direct descriptors, or of that many in a table.
    Add {
        elements: u16,
        indirect: bool,
    },
    Pop,
    /// Uses one of those under way, whichever.
    Stage {
        which: usize,
        written: u32,
    },
    Publish,
    TakeUsed,
    /// The driver asks for word at the next so many descriptors.
    Event {
        ahead: u64,
    },
    Notify,
    /// The same queue is made again from its state.
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u16..4, any::<bool>())
            .prop_map(|(elements, indirect)| Step::Add { elements, indirect }),
        4 => Just(Step::Pop),
        4 => (any::<usize>(), 0_u32..4)
            .prop_map(|(which, written)| Step::Stage { which, written }),
        3 => Just(Step::Publish),
        4 => Just(Step::TakeUsed),
        1 => (0_u64..8).prop_map(|ahead| Step::Event { ahead }),
        2 => Just(Step::Notify),
        1 => Just(Step::Resume),
    ]
}

/// A chain in the model: its id, ring entries, and bytes.
type Chain = (u16, u64, u64);

proptest! {
    #[test]
    fn a_ring_does_what_its_model_does(
        size in 1_u16..9,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let features = EVENTS | INDIRECT | feature::RING_PACKED;
        let (mut queue, mut driver, mut chain) = queue_of(size, features);
        let (mut available, mut taken) = (VecDeque::<Chain>::new(), Vec::<(Head, Chain)>::new());
        let (mut staged, mut used) = (Vec::new(), VecDeque::new());
        // Descriptors given back to the driver so far, how many of them it was told of, and what it wants.
        let (mut used_total, mut told, mut event) = (0, 0, None);
        for step in steps {
            match step {
                Step::Add { elements, indirect } => {
                    let ring = driver.packed();
                    let entries = if indirect { 1 } else { u64::from(elements) };
                    let under_way = ring.next_available - ring.next_used;
                    if under_way + entries > u64::from(size) {
                        continue;
                    }
                    let list = vec![Buffer::Writable(0x8000, 7); usize::from(elements)];
                    let table = 0x9000 + 0x100 * (ring.next_available % 64);
                    let id = if indirect {
                        driver.add_indirect(table, &list)
                    } else {
                        driver.add(&list)
                    };
                    available.push_back((id, entries, u64::from(elements) * 7));
                }
                Step::Pop => {
                    let popped = pop(&mut queue, &mut chain);
                    let expected = available.pop_front();
                    prop_assert_eq!(
                        popped.map(|(head, _, bytes)| (head.id(), u64::from(head.entries), bytes)),
                        expected
                    );
                    taken.extend(popped.map(|popped| popped.0).zip(expected));
                }
                Step::Stage { which, written } if !taken.is_empty() => {
                    let (head, chain) = taken.remove(which % taken.len());
                    queue.stage_used(head, written).unwrap();
                    staged.push((chain, written));
                }
                Step::Stage { .. } => {}
                Step::Publish => {
                    queue.publish_used().unwrap();
                    used_total += staged.iter().map(|((_, entries, _), _)| entries).sum::<u64>();
                    used.extend(staged.drain(..));
                }
                Step::TakeUsed => {
                    let expected = used.pop_front();
                    let expected = expected.map(|((id, ..), written)| (u32::from(id), written));
                    prop_assert_eq!(driver.take_used(), expected);
                    if expected.is_some() {
                        event = Some(driver.packed().next_used);
                    }
                }
                Step::Event { ahead } => {
                    let at = driver.packed().next_used + ahead % (2 * u64::from(size));
                    driver.packed().set_event(at);
                    event = Some(at);
                }
                Step::Notify => {
                    let round = 2 * u64::from(size);
                    let wanted = match event {
                        // A driver that has said nothing wants to hear of everything.
                        None => told < used_total,
                        Some(at) => (told..used_total).any(|place| place % round == at % round),
                    };
                    prop_assert_eq!(queue.needs_notification().unwrap(), wanted);
                    told = used_total;
                }
                Step::Resume => {
                    // A stop publishes and tells first.
                    queue.publish_used().unwrap();
                    used_total += staged.iter().map(|((_, entries, _), _)| entries).sum::<u64>();
                    used.extend(staged.drain(..));
                    told = used_total;
                    let memory = Arc::clone(&queue.memory);
                    queue = Queue::new(queue.state(), features, memory).unwrap();
                }
            }
        }
    }

    #[test]
    fn random_rings_neither_panic_nor_hang(
        ring in prop::collection::vec(
            (prop_oneof![8 => 0x4000_u64..0x8000, 1 => Just(SECOND_REGION - 8), 1 => (HOLE - 32)..HOLE, 1 => any::<u64>()],
             prop_oneof![4 => 1_u32..64, 1 => (0_u32..8).prop_map(|n| n * 16), 1 => any::<u32>()],
             any::<u16>(),
             prop_oneof![6 => (0_u16..8).prop_map(|flags| flags | 1 << 7), 1 => any::<u16>()]),
            usize::from(SIZE)),
        indirect in prop::collection::vec(any::<u8>(), 256),
        wish in any::<u32>(),
        progress in prop_oneof![
            4 => Just(None),
            1 => (0..SIZE, 0..SIZE, any::<bool>(), any::<bool>()).prop_map(|(a, b, c, d)| {
                let bits = |index, wrap| index | u16::from(wrap) << 15;
                Some(Progress { next_available: bits(a, c), next_used: bits(b, d) })
            }),
        ],
        features in prop_oneof![Just(0), Just(EVENTS | INDIRECT)],
    ) {
        let memory = memory();
        memory.write_slice(&indirect, GuestAddress(0x4000)).unwrap();
        memory.write_obj(wish, GuestAddress(DRIVER)).unwrap();
        let features = features | feature::RING_PACKED;
        let state = QueueState { progress, ..state(SIZE) };
        let Ok(mut queue) = Queue::new(state, features, Arc::clone(&memory)) else {
            return Ok(());
        };
        let mut driver = DriverQueue::new(memory, SIZE, [RING, DRIVER, DEVICE], features);
        for (index, descriptor) in (0..).zip(ring) {
            driver.packed().write_descriptor(index, descriptor);
        }
        let mut chain = DescriptorChain::new(&queue);
        let mut popped = 0;
        while let Ok(true) = queue.pop(&mut chain) {
            popped += 1;
            // What is used is no longer available: once round, and once more with the other counter.
            prop_assert!(popped <= 2 * SIZE);
            let whole = chain.readable().len() + chain.writable().len();
            prop_assert!(whole > 0 && whole <= 1 << 32);
            chain.writable().copy_from(&[0; 64]);
            let _broken_or_not = queue.needs_notification();
            if popped % 2 == 0 && queue.add_used(chain.head(), 1).is_err() {
                break;
            }
        }
        let _broken_or_not = queue.enable_notification();
    }
}
