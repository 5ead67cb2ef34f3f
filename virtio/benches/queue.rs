//! What a request costs the device in its ring: taken, given back with its batch, notifications asked for
//! and looked at. Split and packed rings, direct and indirect descriptors, a request as a disk's: header,
//! data, status. `cargo bench -p virtio`; only ratios within one run count.
//!
//! The driver's side is the twin of the tests, and is not timed.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio::queue::{DescriptorChain, Queue, QueueState};
use virtio::{GuestMemory, feature};
use vm_memory::GuestAddress;

use driver_queue::{Buffer, DriverQueue};

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../src/testing/driver_queue.rs"]
mod driver_queue;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../src/testing/packed_queue.rs"]
mod packed_queue;
#[path = "../src/testing/split_queue.rs"]
mod split_queue;

/// The machine is busy with other things as well: the fewest of many is what the code costs.
const ROUNDS: u32 = 100_000;
const SIZE: u16 = 256;
const AREAS: [u64; 3] = [0x1000, 0x3000, 0x4000];
const TABLES: u64 = 0x1_0000;
const DATA: u64 = 0x10_0000;

struct Rings {
    queue: Queue,
    driver: DriverQueue,
    chain: DescriptorChain,
}

impl Rings {
    fn new(features: u64) -> Self {
        // As a machine with two regions of memory has it.
        let ranges = [(GuestAddress(0), 8 << 20), (GuestAddress(1 << 32), 1 << 20)];
        let memory = Arc::new(GuestMemory::from_ranges(&ranges).expect("memory"));
        let state = QueueState {
            max_size: SIZE,
            size: SIZE,
            ready: true,
            descriptor_area: AREAS[0],
            driver_area: AREAS[1],
            device_area: AREAS[2],
            progress: None,
        };
        let queue = Queue::new(state, features, Arc::clone(&memory)).expect("a queue");
        Self {
            chain: DescriptorChain::new(&queue),
            queue,
            driver: DriverQueue::new(memory, SIZE, AREAS, features),
        }
    }

    /// Time that the device needs for `batch` requests at once.
    fn serve(&mut self, batch: u32, indirect: bool) -> Duration {
        for request in 0..batch {
            let at = DATA + u64::from(request) * 0x2000;
            let buffers = [
                Buffer::Readable(at, 16),
                Buffer::Writable(at + 0x1000, 4096),
                Buffer::Writable(at + 16, 1),
            ];
            if indirect {
                self.driver
                    .add_indirect(TABLES + u64::from(request) * 64, &buffers);
            } else {
                self.driver.add(&buffers);
            }
        }
        let start = Instant::now();
        self.queue.disable_notification().expect("a ring");
        for _ in 0..batch {
            assert!(self.queue.pop(&mut self.chain).expect("a ring"));
            black_box(self.chain.writable().len());
            self.queue
                .stage_used(self.chain.head(), 4097)
                .expect("a ring");
        }
        self.queue.publish_used().expect("a ring");
        black_box(self.queue.needs_notification().expect("a ring"));
        black_box(self.queue.enable_notification().expect("a ring"));
        let spent = start.elapsed();
        for _ in 0..batch {
            self.driver.take_used().expect("a used buffer");
        }
        spent
    }
}

fn main() {
    let base = feature::RING_EVENT_IDX | feature::RING_INDIRECT_DESC;
    println!("ns a request, fewest of {ROUNDS} rounds that alternate");
    for (layout, indirect) in [("direct", false), ("indirect", true)] {
        for batch in [1, 32] {
            let mut kinds = [0, feature::RING_PACKED].map(|kind| Rings::new(base | kind));
            let mut fewest = [Duration::MAX; 2];
            for _ in 0..ROUNDS {
                for (rings, fewest) in kinds.iter_mut().zip(&mut fewest) {
                    *fewest = rings.serve(batch, indirect).min(*fewest);
                }
            }
            let [split, packed] = fewest.map(|time| time.as_secs_f64() * 1e9 / f64::from(batch));
            println!(
                "{layout:8} by {batch:2}: split {split:4.0}, packed {packed:4.0}, ratio {:.2}",
                packed / split
            );
        }
    }
}
