//! The block device.
//!
//! The host prepares each sector as 64 words, word `w` of sector `s` being
//! `(s << 16 | w) * 0x9e37_79b9_7f4a_7c15`, and looks for the complement where a test writes.

use runtime::dma::DmaBuffer;
use runtime::interrupts::count;
use runtime::report::Test;
use runtime::time::{SECONDS, wait_until};
use runtime::virtio::block::{
    BlockDevice, SECTOR_BYTES, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP, bit, kind, set_header,
};
use runtime::virtio::{Buffer, Device, Layout, device_id, feature};
use runtime::{Machine, lapic, println, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("blk-identity", identity),
    ("blk-read", read),
    ("blk-write", write),
    ("blk-unaligned", unaligned),
    ("blk-errors", errors),
    ("blk-read-only", read_only),
    ("blk-discard", discard),
    ("blk-batch", batch),
    ("blk-interrupt", interrupt),
    ("blk-config", config),
    ("blk-reset", reset),
    ("blk-count", count_boots),
];

const ALL: u64 = feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | bit::SEG_MAX
    | bit::RO
    | bit::BLK_SIZE
    | bit::FLUSH
    | bit::TOPOLOGY
    | bit::DISCARD
    | bit::WRITE_ZEROES;

fn device(machine: &Machine) -> Device {
    Device::first(machine, device_id::BLOCK)
}

fn word(sector: u64, index: u64) -> u64 {
    (sector << 16 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether `data` has the sectors from `sector` on as prepared, or their complement.
fn check(data: DmaBuffer, sector: u64, complement: bool) {
    for offset in (0..data.len()).step_by(8) {
        let place = sector + (offset / SECTOR_BYTES) as u64;
        let expected = word(place, (offset % SECTOR_BYTES / 8) as u64);
        let expected = if complement { !expected } else { expected };
        assert_eq!(
            data.read_u64(offset),
            expected,
            "sector {place}, byte {}",
            offset % SECTOR_BYTES
        );
    }
}

/// Fills `data` with the complement of the sectors from `sector` on.
fn prepare(data: DmaBuffer, sector: u64) {
    for offset in (0..data.len()).step_by(8) {
        let place = sector + (offset / SECTOR_BYTES) as u64;
        let value = !word(place, (offset % SECTOR_BYTES / 8) as u64);
        data.write(offset, &value.to_le_bytes());
    }
}

/// Capacity and identity string are those of `blk.sectors` and `blk.serial`; the features that every
/// driver relies on are offered.
fn identity(machine: &Machine) {
    let mut block = BlockDevice::start(device(machine), ALL);
    println!(
        "features {:#x}, {} sectors",
        block.device.features(),
        block.capacity()
    );
    let packed = block.features & feature::RING_PACKED != 0;
    assert_eq!(
        packed,
        machine.option("rings") == Some("packed"),
        "RING_PACKED"
    );
    if machine.option("blk.sectors").is_some() {
        assert_eq!(
            block.capacity(),
            machine.number("blk.sectors", 0),
            "capacity"
        );
    }
    for (bit, name) in [
        (feature::INDIRECT_DESC, "INDIRECT_DESC"),
        (feature::EVENT_IDX, "EVENT_IDX"),
        (bit::FLUSH, "FLUSH"),
        (bit::SEG_MAX, "SEG_MAX"),
        (bit::BLK_SIZE, "BLK_SIZE"),
    ] {
        assert_ne!(block.features & bit, 0, "{name} is not offered");
    }
    assert!(block.config_u32(12) > 1, "seg_max");
    assert_eq!(block.config_u32(20) % 512, 0, "blk_size");
    let identity = DmaBuffer::allocate(20, 1);
    let data = [Buffer::FromDevice(identity)];
    let (status, _) = block.request(Layout::Chain, kind::GET_ID, 0, &data);
    assert_eq!(status, STATUS_OK, "GET_ID");
    if let Some(serial) = machine.option("blk.serial") {
        let mut bytes = [0; 20];
        identity.read(0, &mut bytes);
        let mut expected = [0; 20];
        expected[..serial.len()].copy_from_slice(serial.as_bytes());
        assert_eq!(bytes, expected, "identity");
    }
}

/// The whole disk, in requests of several sizes and layouts.
fn read(machine: &Machine) {
    for (wanted, layout) in [(0, Layout::Chain), (ALL, Layout::Indirect)] {
        let mut block = BlockDevice::start(device(machine), wanted);
        let capacity = block.capacity();
        let memory = DmaBuffer::allocate(64 * SECTOR_BYTES, 8);
        let mut sector = 0;
        while sector < capacity {
            for sectors in [1, 64, 3, 8] {
                let sectors = (capacity - sector).min(sectors);
                if sectors == 0 {
                    break;
                }
                let data = memory.slice(0, sectors as usize * SECTOR_BYTES);
                data.fill(0);
                block.read(layout, sector, data);
                check(data, sector, false);
                sector += sectors;
            }
        }
        // In five pieces.
        let pieces = [0, 1, 2, 3, 4].map(|index: usize| {
            Buffer::FromDevice(memory.slice(index * 3 * SECTOR_BYTES, 3 * SECTOR_BYTES))
        });
        let (status, written) = block.request(layout, kind::IN, 1, &pieces);
        assert_eq!(
            (status, written as usize),
            (STATUS_OK, 15 * SECTOR_BYTES + 1)
        );
        check(memory.slice(0, 15 * SECTOR_BYTES), 1, false);
        block.device.reset();
    }
}

/// Writes the complement to sectors 8 to 71 and to the last one, flushes, and reads it back.
fn write(machine: &Machine) {
    let mut block = BlockDevice::start(device(machine), ALL);
    let last = block.capacity() - 1;
    let memory = DmaBuffer::allocate(64 * SECTOR_BYTES, 8);
    prepare(memory, 8);
    block.write(Layout::Indirect, 8, memory);
    let one = DmaBuffer::allocate(SECTOR_BYTES, 8);
    prepare(one, last);
    block.write(Layout::Chain, last, one);
    block.flush();
    memory.fill(0);
    block.read(Layout::Chain, 8, memory);
    check(memory, 8, true);
    block.read(Layout::Chain, 7, one);
    check(one, 7, false);
    block.read(Layout::Chain, 72, one);
    check(one, 72, false);
    block.read(Layout::Chain, last, one);
    check(one, last, true);
    block.device.reset();
}

/// Buffers at odd addresses, cut at odd places, and a header in pieces: virtio 1.3, 2.7.4, forbids a
/// device to assume a framing.
fn unaligned(machine: &Machine) {
    let mut block = BlockDevice::start(device(machine), feature::INDIRECT_DESC);
    let memory = DmaBuffer::allocate(8 * SECTOR_BYTES, 8);
    let odd = DmaBuffer::allocate(8 * SECTOR_BYTES + 64, 1);
    for shift in [1, 2, 3, 7, 511] {
        let whole = odd.slice(1, 2 * SECTOR_BYTES);
        let pieces = [
            Buffer::FromDevice(whole.slice(0, shift)),
            Buffer::FromDevice(whole.slice(shift, 1)),
            Buffer::FromDevice(whole.slice(shift + 1, 2 * SECTOR_BYTES - shift - 1)),
        ];
        odd.fill(0);
        let (status, written) = block.request(Layout::Indirect, kind::IN, 5, &pieces);
        assert_eq!(
            (status, written as usize),
            (STATUS_OK, 2 * SECTOR_BYTES + 1),
            "shift {shift}"
        );
        check(whole, 5, false);
        assert_eq!(odd.read_u8(0), 0, "byte before the buffer");
        assert_eq!(
            odd.read_u8(1 + 2 * SECTOR_BYTES),
            0,
            "byte after the buffer"
        );
    }
    // Written from odd places, read back into an aligned one.
    let source = odd.slice(3, 2 * SECTOR_BYTES);
    prepare(source, 200);
    let pieces = [
        Buffer::ToDevice(source.slice(0, 100)),
        Buffer::ToDevice(source.slice(100, 513)),
        Buffer::ToDevice(source.slice(613, 2 * SECTOR_BYTES - 613)),
    ];
    let (status, _) = block.request(Layout::Chain, kind::OUT, 200, &pieces);
    assert_eq!(status, STATUS_OK, "write in pieces");
    block.read(Layout::Chain, 200, memory.slice(0, 2 * SECTOR_BYTES));
    check(memory.slice(0, 2 * SECTOR_BYTES), 200, true);
    // The header in three pieces, and the status behind the data in one descriptor.
    let header = DmaBuffer::allocate(16, 1);
    set_header(header, kind::IN, 9);
    let answer = odd.slice(0, SECTOR_BYTES + 1);
    answer.fill(0xee);
    let written = block.queue.request(
        block.device,
        Layout::Chain,
        &[
            Buffer::ToDevice(header.slice(0, 1)),
            Buffer::ToDevice(header.slice(1, 10)),
            Buffer::ToDevice(header.slice(11, 5)),
            Buffer::FromDevice(answer),
        ],
    );
    assert_eq!(written as usize, SECTOR_BYTES + 1);
    assert_eq!(
        answer.read_u8(SECTOR_BYTES),
        STATUS_OK,
        "status behind the data"
    );
    check(answer.slice(0, SECTOR_BYTES), 9, false);
    block.device.reset();
}

/// Requests that cannot be done fail with the right status, and the device goes on.
fn errors(machine: &Machine) {
    let mut block = BlockDevice::start(device(machine), ALL);
    let capacity = block.capacity();
    let memory = DmaBuffer::allocate(2 * SECTOR_BYTES, 8);
    let one = memory.slice(0, SECTOR_BYTES);
    for (what, kind, sector, data, expected) in [
        (
            "read beyond the end",
            kind::IN,
            capacity,
            Buffer::FromDevice(one),
            STATUS_IOERR,
        ),
        (
            "read across the end",
            kind::IN,
            capacity - 1,
            Buffer::FromDevice(memory),
            STATUS_IOERR,
        ),
        (
            "read far beyond",
            kind::IN,
            u64::MAX,
            Buffer::FromDevice(one),
            STATUS_IOERR,
        ),
        (
            "read that overflows",
            kind::IN,
            u64::MAX >> 9,
            Buffer::FromDevice(one),
            STATUS_IOERR,
        ),
        (
            "write beyond the end",
            kind::OUT,
            capacity,
            Buffer::ToDevice(one),
            STATUS_IOERR,
        ),
        (
            "write across the end",
            kind::OUT,
            capacity - 1,
            Buffer::ToDevice(memory),
            STATUS_IOERR,
        ),
        (
            "read of part of a sector",
            kind::IN,
            0,
            Buffer::FromDevice(one.slice(0, 511)),
            STATUS_IOERR,
        ),
        (
            "write of part of a sector",
            kind::OUT,
            0,
            Buffer::ToDevice(one.slice(0, 100)),
            STATUS_IOERR,
        ),
        (
            "unknown type",
            0x1234,
            0,
            Buffer::FromDevice(one),
            STATUS_UNSUPP,
        ),
    ] {
        let (status, _) = block.request(Layout::Chain, kind, sector, &[data]);
        assert_eq!(status, expected, "{what}");
        block.read(Layout::Chain, 3, one);
        check(one, 3, false);
    }
    block.device.reset();
}

/// The device says that it is read-only, refuses writes, and the disk is as it was.
fn read_only(machine: &Machine) {
    let mut block = BlockDevice::start(device(machine), ALL);
    assert_ne!(block.features & bit::RO, 0, "VIRTIO_BLK_F_RO");
    let one = DmaBuffer::allocate(SECTOR_BYTES, 8);
    one.fill(0);
    let data = [Buffer::ToDevice(one)];
    let (status, _) = block.request(Layout::Chain, kind::OUT, 3, &data);
    assert_eq!(status, STATUS_IOERR, "write to a read-only disk");
    block.read(Layout::Chain, 3, one);
    check(one, 3, false);
    block.device.reset();
    // Also when the driver did not accept the feature.
    let mut block = BlockDevice::start(device(machine), 0);
    one.fill(0);
    let (status, _) = block.request(Layout::Chain, kind::OUT, 3, &data);
    assert_eq!(status, STATUS_IOERR, "write to a read-only disk");
    block.device.reset();
}

/// Discard and write-zeroes on sectors 128 to 255, with segments that are right and wrong.
fn discard(machine: &Machine) {
    let mut block = BlockDevice::start(device(machine), ALL);
    let both = bit::DISCARD | bit::WRITE_ZEROES;
    assert_eq!(block.features & both, both, "DISCARD and WRITE_ZEROES");
    assert!(block.config_u32(36) > 0, "max_discard_sectors");
    assert!(block.config_u32(40) > 0, "max_discard_seg");
    assert!(block.config_u32(48) > 0, "max_write_zeroes_sectors");
    assert!(block.config_u32(52) > 0, "max_write_zeroes_seg");
    let segment = DmaBuffer::allocate(16, 1);
    let capacity = block.capacity();
    let mut run = |kind: u32, sector: u64, sectors: u32, flags: u32| {
        segment.write(0, &sector.to_le_bytes());
        segment.write(8, &sectors.to_le_bytes());
        segment.write(12, &flags.to_le_bytes());
        block
            .request(Layout::Chain, kind, 0, &[Buffer::ToDevice(segment)])
            .0
    };
    assert_eq!(
        run(kind::WRITE_ZEROES, 128, 64, 0),
        STATUS_OK,
        "write zeroes"
    );
    assert_eq!(
        run(kind::WRITE_ZEROES, 192, 32, 1),
        STATUS_OK,
        "write zeroes, unmap"
    );
    assert_eq!(run(kind::DISCARD, 224, 32, 0), STATUS_OK, "discard");
    assert_eq!(
        run(kind::DISCARD, capacity, 8, 0),
        STATUS_IOERR,
        "discard beyond the end"
    );
    assert_eq!(
        run(kind::DISCARD, u64::MAX - 4, 8, 0),
        STATUS_IOERR,
        "discard that overflows"
    );
    assert_eq!(
        run(kind::WRITE_ZEROES, capacity - 4, 8, 0),
        STATUS_IOERR,
        "zeroes across the end"
    );
    assert_eq!(
        run(kind::DISCARD, 224, 8, 1),
        STATUS_UNSUPP,
        "discard with the unmap flag"
    );
    assert_eq!(
        run(kind::WRITE_ZEROES, 224, 8, 0x8000),
        STATUS_UNSUPP,
        "unknown flag"
    );
    let memory = DmaBuffer::allocate(96 * SECTOR_BYTES, 8);
    memory.fill(0xff);
    block.read(Layout::Chain, 128, memory);
    for offset in (0..memory.len()).step_by(8) {
        assert_eq!(memory.read_u64(offset), 0, "offset {offset} of the zeroes");
    }
    let one = memory.slice(0, SECTOR_BYTES);
    block.read(Layout::Chain, 127, one);
    check(one, 127, false);
    block.read(Layout::Chain, 256, one);
    check(one, 256, false);
    block.device.reset();
}

/// Sixteen requests at a time, published before one doorbell; one interrupt for all of them.
fn batch(machine: &Machine) {
    const REQUESTS: u16 = 16;
    let device = device(machine);
    lapic::enable();
    device.route_interrupt(machine);
    privileged::interrupts_on();
    for (wanted, layout) in [
        (0, Layout::Chain),
        (feature::EVENT_IDX, Layout::Chain),
        (ALL, Layout::Indirect),
    ] {
        let mut block = BlockDevice::start(device, wanted);
        let event_index = block.features & feature::EVENT_IDX != 0;
        let headers = DmaBuffer::allocate(16 * usize::from(REQUESTS), 16);
        let statuses = DmaBuffer::allocate(usize::from(REQUESTS), 1);
        let memory = DmaBuffer::allocate(usize::from(REQUESTS) * 8 * SECTOR_BYTES, 8);
        let mut doorbells = 0;
        let interrupts_before = count(device.vector);
        for round in 0..20u64 {
            statuses.fill(0xee);
            memory.fill(0);
            if event_index {
                block.queue.set_used_event(REQUESTS);
            }
            for request in 0..REQUESTS {
                let index = usize::from(request);
                let header = headers.slice(index * 16, 16);
                set_header(header, kind::IN, (round * 16 + u64::from(request)) * 8);
                block.queue.set_request(
                    request * 3,
                    layout,
                    &[
                        Buffer::ToDevice(header),
                        Buffer::FromDevice(
                            memory.slice(index * 8 * SECTOR_BYTES, 8 * SECTOR_BYTES),
                        ),
                        Buffer::FromDevice(statuses.slice(index, 1)),
                    ],
                );
                block.queue.publish(request * 3);
            }
            doorbells += u64::from(block.queue.notify(device));
            let mut done = 0u16;
            for _ in 0..REQUESTS {
                let (head, written) = block.queue.wait_used(device);
                assert_eq!(head % 3, 0, "completed head");
                assert_eq!(done & 1 << (head / 3), 0, "head {head} is completed twice");
                done |= 1 << (head / 3);
                assert_eq!(written as usize, 8 * SECTOR_BYTES + 1);
            }
            assert_eq!(done, u16::MAX);
            for index in 0..usize::from(REQUESTS) {
                assert_eq!(statuses.read_u8(index), STATUS_OK);
            }
            check(memory, round * 128, false);
        }
        let interrupts = count(device.vector) - interrupts_before;
        println!("20 batches: {doorbells} doorbells, {interrupts} interrupts");
        assert!(interrupts >= 1, "no interrupt");
        if event_index {
            assert!(interrupts <= 20, "the event index is not respected");
        }
        device.reset();
    }
    privileged::interrupts_off();
}

/// One interrupt for each completion, none where the driver does not want it.
fn interrupt(machine: &Machine) {
    let device = device(machine);
    lapic::enable();
    device.route_interrupt(machine);
    privileged::interrupts_on();
    for wanted in [0, feature::EVENT_IDX] {
        let mut block = BlockDevice::start(device, wanted);
        let event_index = block.features & feature::EVENT_IDX != 0;
        let one = DmaBuffer::allocate(SECTOR_BYTES, 8);
        let first = count(device.vector);
        for round in 1..=10 {
            if event_index {
                block.queue.set_used_event(1);
            }
            block.read(Layout::Chain, round, one);
            assert!(
                wait_until(5 * SECONDS, || count(device.vector) >= first + round),
                "{} interrupts of {round}",
                count(device.vector) - first
            );
            let expected = device.used_buffer_status();
            assert_eq!(device.take_interrupt_status(), expected, "interrupt status");
            assert_eq!(
                device.take_interrupt_status(),
                0,
                "interrupt status after its acknowledgement"
            );
        }
        assert_eq!(count(device.vector), first + 10, "interrupts");
        if event_index {
            block.queue.set_used_event(0x4000);
        } else {
            block.queue.set_interrupts(false);
        }
        for sector in 0..10 {
            block.read(Layout::Chain, sector, one);
        }
        runtime::time::spin(5 * runtime::time::MILLISECONDS);
        assert_eq!(
            count(device.vector),
            first + 10,
            "interrupts that nobody wanted"
        );
        // Asleep until the completion.
        privileged::interrupts_off();
        if event_index {
            block.queue.set_used_event(1);
        } else {
            block.queue.set_interrupts(true);
        }
        let header = DmaBuffer::allocate(16, 16);
        let status = DmaBuffer::allocate(1, 1);
        set_header(header, kind::IN, 11);
        let buffers = [
            Buffer::ToDevice(header),
            Buffer::FromDevice(one),
            Buffer::FromDevice(status),
        ];
        block.queue.set_request(0, Layout::Chain, &buffers);
        block.queue.publish(0);
        block.queue.notify(device);
        privileged::halt();
        assert!(
            block.queue.take_used().is_some(),
            "woken before the completion"
        );
        check(one, 11, false);
        privileged::interrupts_on();
        device.reset();
    }
    privileged::interrupts_off();
}

/// The configuration can be read in every width, and beyond its end without harm.
fn config(machine: &Machine) {
    let block = BlockDevice::start(device(machine), ALL);
    let config = block.device.config();
    let generation = block.device.config_generation();
    let mut bytes = [0; 8];
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = config.read_u8(offset);
    }
    assert_eq!(
        u64::from_le_bytes(bytes),
        block.capacity(),
        "capacity by bytes"
    );
    let halves = [0, 2, 4, 6].map(|offset| config.read_u16(offset));
    assert_eq!(
        u64::from(halves[0]) | u64::from(halves[1]) << 16,
        block.capacity() & 0xffff_ffff
    );
    for offset in (0..0x100).step_by(4) {
        config.read_u32(offset);
    }
    config.write_u32(0, 0);
    assert_eq!(
        config.read_u32(0),
        block.capacity() as u32,
        "capacity is read-only"
    );
    assert_eq!(block.device.config_generation(), generation, "generation");
    block.device.reset();
}

/// A reset gives everything back, however often.
fn reset(machine: &Machine) {
    let one = DmaBuffer::allocate(SECTOR_BYTES, 8);
    for round in 0..20 {
        let wanted = if round % 2 == 0 { ALL } else { 0 };
        let mut block = BlockDevice::start(device(machine), wanted);
        block.read(Layout::Chain, round, one);
        check(one, round, false);
        // With a request in flight.
        let header = DmaBuffer::allocate(16, 16);
        let status = DmaBuffer::allocate(1, 1);
        set_header(header, kind::IN, 1);
        let buffers = [
            Buffer::ToDevice(header),
            Buffer::FromDevice(one),
            Buffer::FromDevice(status),
        ];
        block.queue.set_request(0, Layout::Chain, &buffers);
        block.queue.publish(0);
        block.queue.notify(block.device);
        block.device.reset();
        let used = block.queue.used_index();
        one.fill(0x11);
        runtime::time::spin(runtime::time::MILLISECONDS);
        assert_eq!(
            block.queue.used_index(),
            used,
            "the device writes after its reset"
        );
        assert_eq!(one.read_u8(0), 0x11, "the device writes after its reset");
        for queue in 0..2 {
            block.device.queue_size_max(queue);
            assert!(!block.device.queue_is_on());
        }
        assert_eq!(
            block.device.take_interrupt_status(),
            0,
            "interrupt status after a reset"
        );
    }
}

/// Adds one to the word at the start of sector 0 and prints `BOOT n`; without `boots`, that is all. With
/// it, the machine is reset by the keyboard controller until the word has that value.
fn count_boots(machine: &Machine) {
    let mut block = BlockDevice::start(device(machine), ALL);
    let one = DmaBuffer::allocate(SECTOR_BYTES, 8);
    block.read(Layout::Chain, 0, one);
    let boots = one.read_u64(0).wrapping_add(1);
    one.write(0, &boots.to_le_bytes());
    block.write(Layout::Chain, 0, one);
    block.flush();
    println!("BOOT {boots}");
    if boots < machine.number("boots", 0) {
        runtime::stop::Way::KeyboardController.take(machine.acpi.as_ref());
    }
}
