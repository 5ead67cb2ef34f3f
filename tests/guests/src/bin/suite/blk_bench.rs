//! Load for a block device, for measurements: as many requests at a time as are asked for, on all queues,
//! by polling.
//!
//! `bench=r4k@32,w1m@4` are the loads, one after the other: reads or writes, of 4 KiB at random places or
//! of 1 MiB one after the other, and how many are under way in each queue. `bench.queues` is the number of
//! queues, `bench.cycles` how long each load goes on. The driver rings doorbells as the device wants them,
//! with the event index where it is offered, as an operating system's does; it wants no interrupt, and watches the used
//! rings.

use runtime::dma::DmaBuffer;
use runtime::report::Test;
use runtime::time::cycles;
use runtime::virtio::block::{SECTOR_BYTES, STATUS_OK, bit, kind, set_header};
use runtime::virtio::{Buffer, Device, Layout, Queue, device_id, feature};
use runtime::{Machine, println};

pub const TESTS: &[(&str, Test)] = &[("blk-bench", bench)];

const QUEUES_MAX: usize = 4;
const QUEUE_SIZE: u16 = 256;
/// Longest piece of a request where a request has several: what every such device takes.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 4;
/// All requests' data.
const DATA_BYTES: usize = 16 << 20;
/// Offset of the number of queues in the configuration (virtio 1.3, 5.2.4).
const NUM_QUEUES: usize = 34;

/// What is measured.
#[derive(Clone, Copy)]
struct Load {
    kind: u32,
    bytes: usize,
    /// Requests under way in each queue.
    depth: u16,
}

impl Load {
    /// From `r4k@32`.
    fn parse(word: &str) -> Self {
        let (what, depth) = word.split_once('@').expect("load@depth");
        let (kind, size) = match what.split_at(1) {
            ("r", size) => (kind::IN, size),
            ("w", size) => (kind::OUT, size),
            _ => panic!("unknown load {word}"),
        };
        let bytes = match size {
            "4k" => 4 << 10,
            "1m" => 1 << 20,
            _ => panic!("unknown size in {word}"),
        };
        let depth = depth.parse().expect("a depth");
        Self { kind, bytes, depth }
    }
}

/// Where requests go.
struct Positions {
    random: u64,
    next: u64,
    blocks: u64,
    bytes: usize,
}

impl Positions {
    /// The sector of the next request.
    fn next(&mut self) -> u64 {
        let block = if self.bytes > 4096 {
            self.next += 1;
            self.next % self.blocks
        } else {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % self.blocks
        };
        block * (self.bytes / SECTOR_BYTES) as u64
    }
}

/// Times in cycles, counted in classes that are 3 % wide.
struct Latencies {
    classes: [u32; Self::CLASSES],
    longest: u64,
}

impl Latencies {
    /// Classes of each power of two.
    const FINE: u64 = 32;
    const CLASSES: usize = 60 * Self::FINE as usize;

    const fn new() -> Self {
        Self {
            classes: [0; Self::CLASSES],
            longest: 0,
        }
    }

    fn add(&mut self, time: u64) {
        self.longest = self.longest.max(time);
        let class = if time < Self::FINE {
            time
        } else {
            let octave = u64::from(time.ilog2()) - 5;
            octave * Self::FINE + (time >> octave)
        };
        self.classes[class as usize] += 1;
    }

    /// The time within which this many of a thousand were done.
    fn within(&self, of_thousand: u64) -> u64 {
        let total: u64 = self.classes.iter().map(|&count| u64::from(count)).sum();
        let wanted = (total * of_thousand).div_ceil(1000);
        let mut seen = 0;
        for (class, &count) in (0u64..).zip(&self.classes) {
            seen += u64::from(count);
            if seen >= wanted {
                let octave = (class / Self::FINE).saturating_sub(1);
                return (class - octave * Self::FINE) << octave;
            }
        }
        self.longest
    }
}

/// The requests of one queue, by their heads.
struct Slots {
    queue: Queue,
    headers: DmaBuffer,
    statuses: DmaBuffer,
    started: [u64; QUEUE_SIZE as usize],
}

impl Slots {
    fn new(number: u16, event_index: bool) -> Self {
        Self {
            queue: Queue::new(number, QUEUE_SIZE, event_index),
            headers: DmaBuffer::allocate(usize::from(QUEUE_SIZE) * 16, 16),
            statuses: DmaBuffer::allocate(usize::from(QUEUE_SIZE), 1),
            started: [0; QUEUE_SIZE as usize],
        }
    }

    /// Writes the descriptors of the requests of `load`, whose data is in `data`, in so many pieces. Heads
    /// are `stride` descriptors apart.
    fn prepare(&self, load: Load, layout: Layout, stride: u16, pieces: usize, data: DmaBuffer) {
        let length = load.bytes / pieces;
        for slot in 0..usize::from(load.depth) {
            let header = self.headers.slice(slot * 16, 16);
            set_header(header, load.kind, 0);
            let mut buffers = [Buffer::ToDevice(header); PIECES_MAX + 2];
            for piece in 0..pieces {
                let place = data.slice(slot * load.bytes + piece * length, length);
                buffers[1 + piece] = match load.kind {
                    kind::IN => Buffer::FromDevice(place),
                    _ => Buffer::ToDevice(place),
                };
            }
            buffers[1 + pieces] = Buffer::FromDevice(self.statuses.slice(slot, 1));
            self.queue
                .set_request(slot as u16 * stride, layout, &buffers[..pieces + 2]);
        }
    }

    /// Makes a request available.
    fn submit(&mut self, slot: usize, stride: u16, sector: u64) {
        self.headers.write_u64(slot * 16 + 8, sector);
        self.started[slot] = cycles();
        self.queue.publish(slot as u16 * stride);
    }

    /// The next completed request.
    fn take(&mut self, stride: u16) -> Option<usize> {
        let (head, _) = self.queue.take_used()?;
        let slot = usize::from(head / stride);
        assert_eq!(self.statuses.read_u8(slot), STATUS_OK, "request {slot}");
        Some(slot)
    }
}

fn bench(machine: &Machine) {
    const MQ: u64 = 1 << 12;
    let device = Device::first(machine, device_id::BLOCK);
    let wanted = feature::INDIRECT_DESC | feature::EVENT_IDX | bit::SEG_MAX | bit::FLUSH | MQ;
    let features = device.negotiate(wanted);
    let event_index = features & feature::EVENT_IDX != 0;
    let layout = if features & feature::INDIRECT_DESC != 0 {
        Layout::Indirect
    } else {
        Layout::Chain
    };
    let there = if features & MQ != 0 {
        device.config().read_u16(NUM_QUEUES)
    } else {
        1
    };
    let count = machine.number("bench.queues", 1) as usize;
    assert!(
        count <= QUEUES_MAX.min(usize::from(there)),
        "the device has {there} queues"
    );
    let mut queues: [Slots; QUEUES_MAX] =
        core::array::from_fn(|number| Slots::new(number as u16, event_index));
    let queues = &mut queues[..count];
    for slots in queues.iter() {
        device.set_up_queue(&slots.queue);
        if !event_index {
            slots.queue.set_interrupts(false);
        }
    }
    device.start();
    let capacity = device.config().read_u64(0);
    let data = DmaBuffer::allocate(DATA_BYTES, 4096);
    let limit = machine.number("bench.cycles", 500_000_000);
    println!("{capacity} sectors, event index {event_index}, {layout:?}");
    for name in machine.option("bench").unwrap_or("").split(',') {
        let load = Load::parse(name);
        // Without a maximum there is one piece in each request (virtio 1.3, 5.2.5).
        let pieces = if features & bit::SEG_MAX != 0 {
            load.bytes.div_ceil(PIECE_BYTES)
        } else {
            1
        };
        let stride = match layout {
            Layout::Indirect => 1,
            Layout::Chain => 2 + pieces as u16,
        };
        if load.depth * stride > QUEUE_SIZE {
            println!("SKIP {name}");
            continue;
        }
        let share = DATA_BYTES / count;
        for (index, slots) in queues.iter().enumerate() {
            slots.prepare(
                load,
                layout,
                stride,
                pieces,
                data.slice(index * share, share),
            );
        }
        let blocks = capacity / (load.bytes / SECTOR_BYTES) as u64;
        run(device, queues, name, load, stride, blocks, limit);
    }
    device.reset();
}

fn run(
    device: Device,
    queues: &mut [Slots],
    name: &str,
    load: Load,
    stride: u16,
    blocks: u64,
    limit: u64,
) {
    static mut LATENCIES: Latencies = Latencies::new();
    let place = &raw mut LATENCIES;
    // SAFETY: one processor runs this, and nobody else has a reference; too large for the stack.
    let latencies = unsafe { &mut *place };
    *latencies = Latencies::new();
    let mut positions = Positions {
        random: 0x9e37_79b9_7f4a_7c15 ^ cycles(),
        next: 0,
        blocks,
        bytes: load.bytes,
    };
    let (mut doorbells, mut measured, mut all) = (0u64, 0u64, 0u64);
    println!("BEGIN {name}");
    let start = cycles();
    for slots in queues.iter_mut() {
        for slot in 0..usize::from(load.depth) {
            slots.submit(slot, stride, positions.next());
        }
        doorbells += u64::from(slots.queue.notify(device));
    }
    let mut under_way = queues.len() as u64 * u64::from(load.depth);
    let mut end = start;
    while under_way > 0 {
        for slots in queues.iter_mut() {
            let mut again = false;
            while let Some(slot) = slots.take(stride) {
                let now = cycles();
                all += 1;
                if now - start < limit {
                    latencies.add(now - slots.started[slot]);
                    measured += 1;
                    end = now;
                    slots.submit(slot, stride, positions.next());
                    again = true;
                } else {
                    under_way -= 1;
                }
            }
            if again {
                // No interrupt for a long time.
                slots.queue.set_used_event(0x4000);
                doorbells += u64::from(slots.queue.notify(device));
            }
        }
        core::hint::spin_loop();
    }
    println!(
        "END {name} {measured} {} {all} {doorbells} {} {} {} {}",
        end - start,
        latencies.within(500),
        latencies.within(990),
        latencies.within(999),
        latencies.longest,
    );
}
