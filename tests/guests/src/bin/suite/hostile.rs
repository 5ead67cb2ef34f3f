//! Drivers that break the rules. After each offence the device must have set DEVICE_NEEDS_RESET, or be
//! sane all the same: in both cases a reset makes it work again, and the VMM lives.
//!
//! `target` on the command line says which queue is attacked: `blk`, `net-tx`, `net-rx` or `rng`. A receive
//! queue is not looked at before a packet arrives: the host has to keep them coming.

use runtime::dma::DmaBuffer;
use runtime::mmio::Registers;
use runtime::report::Test;
use runtime::time::{MILLISECONDS, SECONDS, spin};
use runtime::virtio::block::{self, BlockDevice, SECTOR_BYTES, kind, set_header};
use runtime::virtio::entropy::EntropyDevice;
use runtime::virtio::net::NetDevice;
use runtime::virtio::{
    Buffer, Descriptor, Device, Layout, Queue, Transport, device_id, feature, flag, mmio, pci,
    status,
};
use runtime::{Machine, println};

use crate::virtio_net;

pub const TESTS: &[(&str, Test)] = &[
    ("hostile-chains", chains),
    ("hostile-rings", rings),
    ("hostile-registers", registers),
    ("hostile-order", order),
    ("hostile-blk", block_requests),
];

/// In the hole below 4 GiB, where no memory is.
const HOLE: u64 = 0xd000_0000;
/// Beyond all memory, yet within the 52 bits of a physical address.
const FAR: u64 = 1 << 50;
/// Wraps around when a page is added.
const WRAPS: u64 = u64::MAX - 0xfff;

/// The queue under attack.
#[derive(Debug, Clone, Copy)]
struct Target {
    device: Device,
    queue: u16,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block,
    NetTransmit,
    NetReceive,
    Entropy,
}

/// What became of an offence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// DEVICE_NEEDS_RESET is set.
    Broken,
    /// The request came back.
    Completed,
    /// Neither.
    Ignored,
}

impl Target {
    fn chosen(machine: &Machine) -> Self {
        let (id, queue, kind) = match machine.option("target").unwrap_or("blk") {
            "blk" => (device_id::BLOCK, 0, Kind::Block),
            "net-tx" => (device_id::NET, 1, Kind::NetTransmit),
            "net-rx" => (device_id::NET, 0, Kind::NetReceive),
            "rng" => (device_id::ENTROPY, 0, Kind::Entropy),
            other => panic!("unknown target {other}"),
        };
        Self {
            device: Device::first(machine, id),
            queue,
            kind,
        }
    }

    /// Drives the device as one should, from its reset on.
    fn drive(self) {
        const ALL: u64 = feature::INDIRECT_DESC | feature::EVENT_IDX;
        match self.kind {
            Kind::Block => {
                let mut block = BlockDevice::start(self.device, ALL);
                let data = DmaBuffer::allocate(SECTOR_BYTES, 8);
                block.read(Layout::Indirect, 0, data);
                block.read(Layout::Chain, 1, data);
            }
            Kind::NetTransmit | Kind::NetReceive => {
                let mut net = NetDevice::start(self.device, ALL);
                net.offer_receive_buffers();
                virtio_net::resolve(&mut net);
            }
            Kind::Entropy => {
                let mut entropy = EntropyDevice::start(self.device, ALL);
                let data = DmaBuffer::allocate(64, 8);
                assert!(entropy.fill(Layout::Indirect, data) > 0);
            }
        }
        self.device.reset();
    }

    /// The device negotiated with indirect descriptors, the attacked queue and its siblings set up, not
    /// yet started.
    fn set_up(self) -> Queue {
        self.device.negotiate(feature::INDIRECT_DESC);
        let queue = Queue::new(self.queue, 16, false);
        self.device.set_up_queue(&queue);
        if matches!(self.kind, Kind::NetTransmit | Kind::NetReceive) {
            self.device
                .set_up_queue(&Queue::new(1 - self.queue, 16, false));
        }
        queue
    }

    /// Whether the device writes into the buffers of this queue from the start of a chain on.
    fn is_filled_by_device(self) -> bool {
        matches!(self.kind, Kind::NetReceive | Kind::Entropy)
    }

    fn outcome(self, queue: &mut Queue) -> Outcome {
        let limit = 200 * MILLISECONDS;
        let start = runtime::time::cycles();
        while runtime::time::cycles().wrapping_sub(start) < limit {
            if self.device.status() & status::NEEDS_RESET != 0 {
                return Outcome::Broken;
            }
            if queue.used_index() != 0 {
                return if self.device.is_broken_within(MILLISECONDS) {
                    Outcome::Broken
                } else {
                    Outcome::Completed
                };
            }
            spin(MILLISECONDS / 10);
        }
        Outcome::Ignored
    }

    /// Commits one offence, and shows that the device works after a reset. With `must_break`, nothing but
    /// DEVICE_NEEDS_RESET will do.
    fn offend(self, name: &str, must_break: bool, offence: impl FnOnce(&mut Queue)) {
        let mut queue = self.set_up();
        self.device.start();
        offence(&mut queue);
        self.device.notify(self.queue);
        let outcome = self.outcome(&mut queue);
        println!("{name}: {outcome:?}");
        if must_break {
            assert_eq!(outcome, Outcome::Broken, "{name}");
        }
        if outcome == Outcome::Broken {
            let interrupt_status = self.device.take_interrupt_status();
            assert_ne!(
                interrupt_status & 2,
                0,
                "{name}: no configuration interrupt"
            );
            // It stays broken, and nothing more is done, until the reset.
            let used = queue.used_index();
            self.device.notify(self.queue);
            spin(MILLISECONDS);
            assert_ne!(
                self.device.status() & status::NEEDS_RESET,
                0,
                "{name}: bit is lost"
            );
            assert_eq!(queue.used_index(), used, "{name}: goes on though broken");
        }
        self.drive();
    }
}

/// A descriptor that is right for the start of any target's chain.
fn plain(target: Target, memory: DmaBuffer) -> Descriptor {
    let direction = if target.is_filled_by_device() {
        flag::WRITE
    } else {
        0
    };
    Descriptor {
        address: memory.address(),
        length: memory.len() as u32,
        flags: direction,
        next: 0,
    }
}

/// Chains that loop, point nowhere, or have impossible lengths, in the table and in indirect tables.
fn chains(machine: &Machine) {
    let target = Target::chosen(machine);
    target.drive();
    let memory = DmaBuffer::allocate(4096, 16);
    let good = plain(target, memory.slice(0, 16));
    let next = |index: u16| Descriptor {
        flags: good.flags | flag::NEXT,
        next: index,
        ..good
    };
    target.offend("descriptor that follows itself", true, |queue| {
        queue.set_descriptor(0, next(0));
        queue.publish(0);
    });
    target.offend("loop of three descriptors", true, |queue| {
        queue.set_descriptor(0, next(1));
        queue.set_descriptor(1, next(2));
        queue.set_descriptor(2, next(0));
        queue.publish(0);
    });
    target.offend("next beyond the table", true, |queue| {
        queue.set_descriptor(0, next(16));
        queue.publish(0);
    });
    target.offend("next far beyond the table", true, |queue| {
        queue.set_descriptor(0, next(u16::MAX));
        queue.publish(0);
    });
    target.offend("head beyond the table", true, |queue| {
        queue.set_descriptor(0, good);
        queue.publish(16);
    });
    target.offend("head far beyond the table", true, |queue| {
        queue.publish(u16::MAX);
    });
    for (name, address, length) in [
        ("buffer in the hole", HOLE, 4096),
        ("buffer beyond all memory", FAR, 4096),
        ("buffer that wraps around", WRAPS, 0x2000),
        ("buffer at the end of the address space", u64::MAX, 1),
        (
            "buffer across the end of memory",
            last_byte_of_ram(machine),
            4096,
        ),
        ("buffer of 4 GiB", 0, u32::MAX),
        ("buffer of no bytes", memory.address(), 0),
    ] {
        target.offend(name, false, |queue| {
            queue.set_descriptor(
                0,
                Descriptor {
                    address,
                    length,
                    ..good
                },
            );
            queue.publish(0);
        });
    }
    target.offend("the wrong direction", false, |queue| {
        let flags = good.flags ^ flag::WRITE;
        queue.set_descriptor(0, Descriptor { flags, ..good });
        queue.publish(0);
    });
    target.offend("readable behind writable", false, |queue| {
        let flags = flag::WRITE | flag::NEXT;
        queue.set_descriptor(
            0,
            Descriptor {
                flags,
                next: 1,
                ..good
            },
        );
        queue.set_descriptor(1, Descriptor { flags: 0, ..good });
        queue.publish(0);
    });
    target.offend("unknown flags", false, |queue| {
        queue.set_descriptor(
            0,
            Descriptor {
                flags: good.flags | 0xfff8,
                ..good
            },
        );
        queue.publish(0);
    });
    indirect_chains(machine, target, good);
}

fn indirect_chains(machine: &Machine, target: Target, good: Descriptor) {
    let table = |queue: &Queue, length: u32| Descriptor {
        address: queue.indirect_address(0),
        length,
        flags: flag::INDIRECT,
        next: 0,
    };
    for (name, length) in [
        ("indirect table of no bytes", 0),
        ("indirect table of half a descriptor", 8),
        ("indirect table of one and a half descriptors", 24),
        ("indirect table of 4 GiB", 0xffff_fff0),
    ] {
        target.offend(name, length < 0x1000, |queue| {
            queue.set_indirect_descriptor(0, 0, good);
            queue.set_descriptor(0, table(queue, length));
            queue.publish(0);
        });
    }
    for (name, address) in [
        ("indirect table in the hole", HOLE),
        ("indirect table beyond all memory", FAR),
        ("indirect table that wraps around", WRAPS),
        (
            "indirect table across the end of memory",
            last_byte_of_ram(machine),
        ),
    ] {
        target.offend(name, true, |queue| {
            queue.set_descriptor(
                0,
                Descriptor {
                    address,
                    ..table(queue, 0x2000)
                },
            );
            queue.publish(0);
        });
    }
    target.offend("indirect table in an indirect table", true, |queue| {
        let inner = Descriptor {
            address: queue.indirect_address(1),
            ..table(queue, 16)
        };
        queue.set_indirect_descriptor(1, 0, good);
        queue.set_indirect_descriptor(0, 0, inner);
        queue.set_descriptor(0, table(queue, 16));
        queue.publish(0);
    });
    target.offend("loop in an indirect table", true, |queue| {
        for index in 0..2u16 {
            let flags = good.flags | flag::NEXT;
            let next = 1 - index;
            queue.set_indirect_descriptor(
                0,
                usize::from(index),
                Descriptor {
                    flags,
                    next,
                    ..good
                },
            );
        }
        queue.set_descriptor(0, table(queue, 32));
        queue.publish(0);
    });
    target.offend("next beyond an indirect table", true, |queue| {
        let flags = good.flags | flag::NEXT;
        queue.set_indirect_descriptor(
            0,
            0,
            Descriptor {
                flags,
                next: 2,
                ..good
            },
        );
        queue.set_descriptor(0, table(queue, 32));
        queue.publish(0);
    });
    target.offend("indirect and next", true, |queue| {
        queue.set_indirect_descriptor(0, 0, good);
        let flags = flag::INDIRECT | flag::NEXT;
        queue.set_descriptor(
            0,
            Descriptor {
                flags,
                next: 1,
                ..table(queue, 16)
            },
        );
        queue.set_descriptor(1, good);
        queue.publish(0);
    });
}

/// The last byte of the highest RAM below 4 GiB.
fn last_byte_of_ram(machine: &Machine) -> u64 {
    machine
        .boot
        .regions()
        .iter()
        .filter(|region| region.kind == runtime::boot_info::RAM)
        .map(|region| region.start + region.length - 1)
        .filter(|last| *last < 1 << 32)
        .max()
        .unwrap_or(HOLE)
}

/// Indices that jump, and rings that are not in memory.
fn rings(machine: &Machine) {
    let target = Target::chosen(machine);
    target.drive();
    let memory = DmaBuffer::allocate(4096, 16);
    let good = plain(target, memory.slice(0, 16));
    for (name, index) in [
        ("available index one more than the queue's size", 17),
        ("available index that jumps ahead", 0x4000),
        ("available index that goes back", u16::MAX),
    ] {
        target.offend(name, true, |queue| {
            queue.set_descriptor(0, good);
            queue.set_available_index(index);
        });
    }
    target.offend("the same head throughout", false, |queue| {
        queue.set_descriptor(0, good);
        queue.set_available_index(16);
    });
    for (what, part) in [
        ("descriptor table", 0),
        ("available ring", 1),
        ("used ring", 2),
    ] {
        for (place, address) in [
            ("in the hole", HOLE),
            ("beyond all memory", FAR),
            ("that wraps around", WRAPS),
            (
                "across the end of memory",
                last_byte_of_ram(machine) & !0xfff | 0xff0,
            ),
        ] {
            move_ring(target, good, part, address, (what, place));
        }
        move_ring(
            target,
            good,
            part,
            memory.address() + 1,
            (what, "at an odd address"),
        );
    }
    // In read-only or reserved memory the rings are as bad as anywhere else, or merely useless.
    move_ring(target, good, 2, 0xe_0000, ("used ring", "over the tables"));
}

/// Starts the device with one part of the queue elsewhere.
fn move_ring(target: Target, good: Descriptor, part: usize, address: u64, name: (&str, &str)) {
    target.device.negotiate(feature::INDIRECT_DESC);
    let is_memory = address < HOLE && address & 0xfff != 0xff0;
    let mut queue = Queue::new(target.queue, 16, false);
    let mut addresses = [
        queue.descriptors_address(),
        queue.available_address(),
        queue.used_address(),
    ];
    addresses[part] = address;
    target.device.write_queue(target.queue, 16, addresses);
    if matches!(target.kind, Kind::NetTransmit | Kind::NetReceive) {
        target
            .device
            .set_up_queue(&Queue::new(1 - target.queue, 16, false));
    }
    target.device.start();
    queue.set_descriptor(0, good);
    queue.publish(0);
    target.device.notify(target.queue);
    let outcome = target.outcome(&mut queue);
    println!("{} {}: {outcome:?}", name.0, name.1);
    assert!(
        outcome == Outcome::Broken || is_memory,
        "{} {}",
        name.0,
        name.1
    );
    target.drive();
}

/// Registers with values, widths and offsets that make no sense.
fn registers(machine: &Machine) {
    let target = Target::chosen(machine);
    let device = target.device;
    target.drive();
    for size in [
        0,
        3,
        5,
        0x8000,
        0x1_0000,
        u32::MAX,
        device.queue_size_max(target.queue) * 2,
    ] {
        device.negotiate(0);
        let queue = Queue::new(target.queue, 16, false);
        device.write_queue(
            target.queue,
            size,
            [
                queue.descriptors_address(),
                queue.available_address(),
                queue.used_address(),
            ],
        );
        device.start();
        device.notify(target.queue);
        spin(MILLISECONDS);
        target.drive();
    }
    // Queues that are not there.
    device.negotiate(0);
    for number in [3, 64, 0x7fff, 0xffff] {
        assert_eq!(device.queue_size_max(number), 0, "size of queue {number}");
        device.write_queue(number, 16, [0x100_0000; 3]);
        assert!(!device.queue_is_on(), "queue {number} is on");
    }
    device.select_queue(u32::MAX);
    assert_eq!(device.queue_size_max(u16::MAX), 0);
    device.start();
    for number in [3, 64, 0xffff, u32::MAX] {
        device.ring(number);
    }
    target.drive();
    // Every register, in every width, read and written with ones; the status last.
    match device.transport {
        Transport::Mmio(page) => {
            let all = (0..0x200).chain([0x201, 0x3fc, 0xffc]);
            let status = mmio::register::STATUS..mmio::register::STATUS + 4;
            let others = (0..0x200).filter(|offset| !status.contains(offset));
            sweep(page.registers, all, others);
        }
        Transport::Pci(parts) => {
            let all = (0..0x40).chain([0x41, 0x1000, 0x2000, 0x3ffc, 0x4000, 0x6000, 0x7ff8]);
            let others = (0..0x40).filter(|offset| *offset != pci::register::STATUS);
            sweep(parts.common, all, others);
        }
    }
    for value in [0xff, 0x40, 0x80, u32::MAX, 4, 8, 0xffff_ff00] {
        device.set_status(value);
        device.status();
    }
    target.drive();
    // Feature words that are not there read as 0.
    for select in [2, 3, 0x7fff_ffff, u32::MAX] {
        assert_eq!(device.features_word(select), 0);
        device.write_features_word(select, u32::MAX);
    }
    target.drive();
}

/// Reads and then writes registers in every width.
fn sweep(
    registers: Registers,
    read: impl Iterator<Item = usize>,
    written: impl Iterator<Item = usize>,
) {
    for offset in read {
        registers.read_u8(offset);
        registers.read_u16(offset);
        registers.read_u32(offset);
        registers.read_u64(offset);
    }
    for offset in written {
        registers.write_u8(offset, 0xff);
        registers.write_u16(offset, 0xffff);
        registers.write_u32(offset, u32::MAX);
        registers.write_u64(offset, u64::MAX);
    }
}

/// Steps of the initialisation in the wrong order, left out, or done twice.
fn order(machine: &Machine) {
    let target = Target::chosen(machine);
    let device = target.device;
    target.drive();
    // The doorbell before everything.
    device.reset();
    device.notify(target.queue);
    target.drive();
    // Features that were not offered, or no VERSION_1: FEATURES_OK must not stay.
    for features in [0, feature::VERSION_1 | !device.features()] {
        device.reset();
        device.set_status(status::ACKNOWLEDGE | status::DRIVER);
        device.write_features(features);
        device.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        assert_eq!(
            device.status() & status::FEATURES_OK,
            0,
            "the features {features:#x} are accepted"
        );
    }
    target.drive();
    // DRIVER_OK without features, without queues, twice.
    device.reset();
    device.set_status(status::DRIVER_OK);
    device.notify(target.queue);
    target.drive();
    device.negotiate(0);
    device.start();
    device.start();
    device.notify(target.queue);
    spin(MILLISECONDS);
    target.drive();
    // Queue registers while the device runs.
    let queue = target.set_up();
    device.start();
    device.write_queue(target.queue, 8, [HOLE, FAR, WRAPS]);
    device.turn_queue(false);
    device.turn_queue(true);
    device.notify(target.queue);
    spin(MILLISECONDS);
    assert_eq!(queue.used_index(), 0, "completions of nothing");
    target.drive();
    // Features while it runs.
    target.set_up();
    device.start();
    device.write_features(u64::MAX);
    device.notify(target.queue);
    target.drive();
    // Doorbells without end, of an empty queue.
    target.set_up();
    device.start();
    for _ in 0..1000 {
        device.notify(target.queue);
    }
    target.drive();
    // Resets in the middle of requests, many times.
    for _ in 0..50 {
        let mut queue = target.set_up();
        device.start();
        let memory = DmaBuffer::allocate(64, 16);
        queue.set_descriptor(0, plain(target, memory));
        queue.publish(0);
        device.notify(target.queue);
        device.reset();
    }
    target.drive();
}

/// Requests of the block device that lack something.
fn block_requests(machine: &Machine) {
    let target = Target::chosen(machine);
    assert_eq!(target.kind, Kind::Block);
    let memory = DmaBuffer::allocate(8192, 16);
    let (header, data, answer) = (
        memory.slice(0, 16),
        memory.slice(512, 512),
        memory.slice(2048, 1),
    );
    let read = [
        Buffer::ToDevice(header),
        Buffer::FromDevice(data),
        Buffer::FromDevice(answer),
    ];
    let requests: [(&str, &[Buffer]); 8] = [
        ("nothing but a header", &read[..1]),
        ("nothing but a status", &read[2..]),
        ("nothing but data", &read[1..2]),
        (
            "a short header",
            &[Buffer::ToDevice(header.slice(0, 15)), read[2]],
        ),
        (
            "a header for the device to write",
            &[Buffer::FromDevice(header), read[2]],
        ),
        (
            "a status for the device to read",
            &[read[0], read[1], Buffer::ToDevice(answer)],
        ),
        (
            "a write whose data the device is to write",
            &[read[0], read[1], read[2]],
        ),
        (
            "an identity of three bytes",
            &[read[0], Buffer::FromDevice(data.slice(0, 3)), read[2]],
        ),
    ];
    for (name, buffers) in requests {
        for kind in [
            kind::IN,
            kind::OUT,
            kind::FLUSH,
            kind::GET_ID,
            kind::DISCARD,
            kind::WRITE_ZEROES,
        ] {
            target.offend(name, false, |queue| {
                // A sector that no other test looks at.
                set_header(header, kind, 1000);
                queue.set_request(0, Layout::Chain, buffers);
                queue.publish(0);
            });
        }
    }
    // Data outside of memory, with a status that can be written: an error for the guest, or a reset.
    for address in [HOLE, FAR, WRAPS] {
        for kind in [kind::IN, kind::OUT] {
            let mut queue = target.set_up();
            target.device.start();
            set_header(header, kind, 1000);
            answer.fill(0xee);
            queue.set_request(0, Layout::Chain, &read);
            let direction = if kind == kind::IN { flag::WRITE } else { 0 };
            queue.set_descriptor(
                1,
                Descriptor {
                    address,
                    length: 8192,
                    flags: direction | flag::NEXT,
                    next: 2,
                },
            );
            queue.publish(0);
            target.device.notify(target.queue);
            let outcome = target.outcome(&mut queue);
            println!(
                "data at {address:#x}: {outcome:?}, status {:#x}",
                answer.read_u8(0)
            );
            assert_ne!(outcome, Outcome::Ignored, "no answer");
            if outcome == Outcome::Completed {
                assert_eq!(answer.read_u8(0), block::STATUS_IOERR);
            }
            target.drive();
        }
    }
    spin(SECONDS / 100);
}
