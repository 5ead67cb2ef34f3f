use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::queue::{DescriptorChain, Queue, QueueState};
use crate::testing::{self, Buffer, DriverQueue, SECOND_REGION};

const AREAS: [u64; 3] = [0x1000, 0x2000, 0x3000];

/// A chain with `bytes` in two pieces, the first one over the seam of two regions of memory.
fn chain(bytes: &[u8]) -> DescriptorChain {
    let memory = testing::memory();
    let at = SECOND_REGION - 100;
    memory.write_slice(bytes, GuestAddress(at)).unwrap();
    let state = QueueState {
        max_size: 16,
        size: 16,
        ready: true,
        descriptor_area: AREAS[0],
        driver_area: AREAS[1],
        device_area: AREAS[2],
        progress: None,
    };
    let mut queue = Queue::new(state, 0, Arc::clone(&memory)).unwrap();
    let length = u32::try_from(bytes.len()).unwrap();
    let half = length.div_ceil(2);
    let mut pieces = vec![Buffer::Readable(at, half)];
    if length > half {
        pieces.push(Buffer::Readable(at + u64::from(half), length - half));
    }
    DriverQueue::new(memory, 16, AREAS, 0).add(&pieces);
    let mut chain = DescriptorChain::new(&queue);
    assert!(queue.pop(&mut chain).unwrap());
    chain
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u8>),
    Consume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..400).prop_map(Step::Append),
        (0..400_usize).prop_map(Step::Consume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn bytes_come_out_as_they_went_in(
        capacity in 1..600_usize,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut ring = ByteRing::new(capacity);
        let mut model = VecDeque::new();
        for step in steps {
            match step {
                Step::Append(bytes) => {
                    let room = capacity - model.len();
                    let added = ring.append(chain(&bytes).readable());
                    prop_assert_eq!(added, bytes.len().min(room));
                    model.extend(&bytes[..added]);
                }
                Step::Consume(count) => {
                    ring.consume(count);
                    model.drain(..count.min(model.len()));
                }
            }
            prop_assert_eq!(ring.is_empty(), model.is_empty());
            // The front, and what is behind it.
            let front = ring.front();
            prop_assert_eq!(front.is_empty(), model.is_empty());
            prop_assert!(front.iter().eq(model.iter().take(front.len())));
        }
        let mut rest = Vec::new();
        while !ring.is_empty() {
            let front = ring.front().to_vec();
            ring.consume(front.len());
            rest.extend(front);
        }
        prop_assert!(rest.iter().eq(model.iter()));
    }
}
