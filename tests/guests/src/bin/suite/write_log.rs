//! A log of writes, for a machine that is killed in the middle of one.
//!
//! The disk has 16 regions. Record `n` goes to region `n % 16`, to a place and with a length that follow
//! from `n`; each of its sectors is 64 words: `n + 1`, the sector's number, and words that follow from
//! both. So the host knows from `n` alone what has to be where, and a sector says which record it is of.
//! Sixteen records are under way at a time, together with a flush of those before; when the flush has
//! completed, the guest says `FLUSHED` and how many records are on the disk.

use runtime::dma::DmaBuffer;
use runtime::report::Test;
use runtime::virtio::block::{BlockDevice, SECTOR_BYTES, STATUS_OK, bit, kind, set_header};
use runtime::virtio::{Buffer, Device, Layout, device_id, feature};
use runtime::{Machine, println};

pub const TESTS: &[(&str, Test)] = &[("blk-log", log)];

const REGIONS: u64 = 16;
const RECORD_SECTORS_MAX: u64 = 64;
/// The head of the flush; records have those below.
const FLUSH: u16 = REGIONS as u16;

/// The finaliser of SplitMix64: each bit of the result depends on each of `value`.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Where record `number` of a disk of `capacity` sectors begins, and how many sectors it has.
fn place(number: u64, capacity: u64) -> (u64, u64) {
    let region_sectors = capacity / REGIONS;
    let random = mix(number);
    let sectors = 1 + random % RECORD_SECTORS_MAX;
    let offset = (random >> 32) % (region_sectors - sectors);
    (number % REGIONS * region_sectors + offset, sectors)
}

/// Word `index` of `sector`, written by record `number`.
fn word(number: u64, sector: u64, index: u64) -> u64 {
    match index {
        0 => number + 1,
        1 => sector,
        _ => mix(number ^ sector << 20 ^ index << 56),
    }
}

/// A request's memory.
struct Request {
    header: DmaBuffer,
    data: DmaBuffer,
    status: DmaBuffer,
}

impl Request {
    fn new(data_bytes: usize) -> Self {
        Self {
            header: DmaBuffer::allocate(16, 16),
            data: DmaBuffer::allocate(data_bytes, 4096),
            status: DmaBuffer::allocate(1, 1),
        }
    }
}

/// Writes records from `log.from` on, until the machine is killed.
fn log(machine: &Machine) {
    let device = Device::first(machine, device_id::BLOCK);
    let mut block = BlockDevice::start(
        device,
        feature::INDIRECT_DESC | feature::EVENT_IDX | bit::FLUSH,
    );
    let capacity = block.capacity();
    let bytes = RECORD_SECTORS_MAX as usize * SECTOR_BYTES;
    let records: [Request; REGIONS as usize] = core::array::from_fn(|_| Request::new(bytes));
    let flush = Request::new(0);
    let mut next = machine.number("log.from", 0);
    println!("LOG");
    loop {
        let first = next;
        for (head, request) in (0..).zip(&records) {
            write_record(&mut block, request, head, next, capacity);
            next += 1;
        }
        set_header(flush.header, kind::FLUSH, 0);
        let buffers = [
            Buffer::ToDevice(flush.header),
            Buffer::FromDevice(flush.status),
        ];
        block.queue.set_request(FLUSH, Layout::Indirect, &buffers);
        flush.status.fill(0xee);
        block.queue.publish(FLUSH);
        block.queue.notify(device);
        for _ in 0..=REGIONS {
            let (head, _) = block.queue.wait_used(device);
            let request = records.get(usize::from(head)).unwrap_or(&flush);
            assert_eq!(
                request.status.read_u8(0),
                STATUS_OK,
                "request {head} of {first}"
            );
            if head == FLUSH {
                println!("FLUSHED {first}");
            }
        }
    }
}

/// Makes record `number` available.
fn write_record(block: &mut BlockDevice, request: &Request, head: u16, number: u64, capacity: u64) {
    let (sector, sectors) = place(number, capacity);
    let data = request.data.slice(0, sectors as usize * SECTOR_BYTES);
    for at in 0..sectors {
        for index in 0..64 {
            let offset = at as usize * SECTOR_BYTES + index as usize * 8;
            data.write_u64(offset, word(number, sector + at, index));
        }
    }
    set_header(request.header, kind::OUT, sector);
    request.status.fill(0xee);
    let buffers = [
        Buffer::ToDevice(request.header),
        Buffer::ToDevice(data),
        Buffer::FromDevice(request.status),
    ];
    block.queue.set_request(head, Layout::Indirect, &buffers);
    block.queue.publish(head);
}
