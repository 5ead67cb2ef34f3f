//! The driver: it sets a device up, offers it buffers, rings for them, and breaks rules.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio::GuestMemory;
use virtio::worker::driven;
use vm_memory::{Bytes, GuestAddress};

use super::transport::{Field, Transport};
use super::{Device, Pace};
use crate::Input;

const REGION_BYTES: usize = 64 << 10;
const SECOND_REGION: u64 = 64 << 10;
const HOLE: u64 = 1 << 24;
/// Rings, [`RING_STRIDE`] for each queue: descriptor, driver and device areas.
const RINGS: u64 = 0x1000;
const RING_STRIDE: u64 = 0x1000;
const AREA: u64 = 0x400;
const SIZE: u16 = 16;
/// Headers of requests, indirect tables, and data across the seam of two regions.
const HEADERS: u64 = 0x8000;
const TABLES: u64 = 0x9000;
const DATA: u64 = SECOND_REGION - 0x2000;

const PACKED: u64 = 1 << 34;
const EVENT_INDEX: u64 = 1 << 29;
const NEEDS_RESET: u64 = 0x40;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

thread_local! {
    /// Mapped once.
    static MEMORY: Arc<GuestMemory> = {
        let ranges = [0, SECOND_REGION].map(|start| (GuestAddress(start), REGION_BYTES));
        Arc::new(GuestMemory::from_ranges(&ranges).expect("memory"))
    };
}

/// The driver's side of a queue: chains made available and used, in ring entries.
#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    available: u64,
}

/// A guest with one device.
pub struct Guest {
    transport: Transport,
    memory: Arc<GuestMemory>,
    pace: Pace,
    queues: u64,
    features: u64,
    rings: [Ring; 2],
    /// The far side of the network.
    link: Option<UnixDatagram>,
    blk: bool,
}

impl Guest {
    /// A guest whose driver has started `device`, which an input's first byte, `kind`, puts on a transport.
    pub fn new(kind: u8, device: Device, pace: Pace) -> Self {
        driven::set(pace == Pace::Driven);
        let memory = MEMORY.with(Arc::clone);
        let zeros = [0; REGION_BYTES];
        for start in [0, SECOND_REGION] {
            let cleared = memory.write_slice(&zeros, GuestAddress(start));
            cleared.expect("memory");
        }
        let Device {
            device,
            link,
            is_disk,
        } = device;
        let queues = u64::try_from(device.queue_max_sizes().len()).expect("few");
        let mut guest = Self {
            transport: Transport::new(kind, device, memory.clone()),
            memory,
            pace,
            queues,
            features: 0,
            rings: Default::default(),
            link,
            blk: is_disk,
        };
        guest.drain_link();
        guest.start(match kind & 0x80 {
            0 => !PACKED,
            _ => u64::MAX,
        });
        guest
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        // What goes into the hole is lost.
        let _lost = self.memory.write_slice(bytes, GuestAddress(address));
    }

    fn area(queue: u64, area: u64) -> u64 {
        RINGS + queue * RING_STRIDE + area * AREA
    }

    /// The set-up of 3.1.1 with these features, of those that are offered, with the registers where they
    /// are at first.
    fn start(&mut self, wanted: u64) {
        self.transport.set_up();
        let transport = &mut self.transport;
        transport.set(Field::STATUS, 0);
        assert_eq!(transport.get(Field::STATUS), 0, "a reset is refused");
        transport.set(Field::STATUS, 1);
        transport.set(Field::STATUS, 3);
        let mut offered = 0;
        for half in 0..2 {
            transport.set(Field::DEVICE_SELECT, half);
            offered |= transport.get(Field::DEVICE_FEATURES) << (32 * half);
        }
        self.features = offered & wanted | 1 << 32;
        for half in 0..2 {
            transport.set(Field::DRIVER_SELECT, half);
            transport.set(Field::DRIVER_FEATURES, self.features >> (32 * half));
        }
        transport.set(Field::STATUS, 11);
        assert_ne!(transport.get(Field::STATUS) & 8, 0, "features are refused");
        let zeros = [0; RING_STRIDE as usize];
        for queue in 0..self.queues {
            self.put(Self::area(queue, 0), &zeros);
            self.transport.set(Field::QUEUE_SELECT, queue);
            self.transport.set(Field::QUEUE_SIZE, u64::from(SIZE));
            for (area, field) in (0..).zip(Field::QUEUE_AREAS) {
                self.transport.set(field, Self::area(queue, area));
            }
            self.transport.set(Field::QUEUE_READY, 1);
        }
        self.rings = Default::default();
        self.transport.set(Field::STATUS, 15);
    }

    /// A place in memory, most often a good one.
    fn address(input: &mut Input<'_>) -> u64 {
        match input.byte() {
            0..0x60 => DATA + (u64::from(input.byte()) << 5),
            0x60..0xc0 => DATA + u64::from(input.word() & 0x3fff),
            0xc0..0xe0 => HEADERS + u64::from(input.byte()),
            0xe0..0xf0 => HOLE - u64::from(input.byte()),
            0xf0..0xf8 => RINGS + u64::from(input.word() & 0x1fff),
            _ => input.number(),
        }
    }

    fn length(input: &mut Input<'_>) -> u32 {
        match input.byte() {
            one @ 0..0x80 => 1 << (one & 15),
            sectors @ 0x80..0xc0 => u32::from(sectors & 31) * 512,
            small @ 0xc0..0xf8 => u32::from(small & 63),
            _ => input.double(),
        }
    }

    /// Makes a chain available, as well as this driver can.
    fn offer(&mut self, input: &mut Input<'_>) {
        let shape = input.byte();
        let queue = u64::from(shape & 1) % self.queues;
        let ring = self.rings[usize::from(shape & 1) % 2].available;
        let mut list = [(0, 0, 0); 5];
        let mut count = 0;
        if self.blk || shape & 8 != 0 {
            let header = HEADERS + 16 * (ring % 64);
            let kind: u32 = input.one_of(&[0, 1, 4, 8, 11, 13, 0xff]);
            self.put(header, &kind.to_le_bytes());
            self.put(header + 8, &input.number().to_le_bytes());
            list[0] = (header, if self.blk { 16 } else { 12 }, 0);
            count = 1;
        }
        let mut writes = if self.blk { 0 } else { shape >> 4 & 2 };
        for _ in 0..shape >> 1 & 3 {
            let turn = input.byte();
            if turn & 1 != 0 {
                writes = 2;
            }
            let flags = if turn & 0xf0 == 0xf0 {
                u16::from(turn) & 7
            } else {
                u16::from(writes)
            };
            list[count] = (Self::address(input), Self::length(input), flags);
            count += 1;
        }
        if self.blk || count == 0 {
            list[count] = (DATA - 16 - ring % 64, 1, WRITE);
            count += 1;
        }
        let list = &list[..count];
        let indirect = shape & 0x80 != 0;
        if self.features & PACKED != 0 {
            self.offer_packed(queue, list, indirect);
        } else {
            self.offer_split(queue, list, indirect);
        }
    }

    fn offer_split(&mut self, queue: u64, list: &[(u64, u32, u16)], indirect: bool) {
        let ring = &mut self.rings[usize::try_from(queue).expect("an index")];
        let number = ring.available;
        ring.available += 1;
        let head = number % 3 * 5;
        let table = if indirect {
            TABLES + 256 * (number % 8)
        } else {
            Self::area(queue, 0)
        };
        let first = if indirect { 0 } else { head };
        for (index, (address, length, flags)) in (first..).zip(list) {
            let more = index + 1 < first + list.len() as u64;
            let flags = flags | if more { NEXT } else { 0 };
            let next = u16::try_from(index + 1).expect("an index");
            self.write_descriptor(table + 16 * index, *address, *length, [flags, next]);
        }
        if indirect {
            let at = Self::area(queue, 0) + 16 * head;
            let bytes = 16 * u32::try_from(list.len()).expect("a length");
            self.write_descriptor(at, table, bytes, [INDIRECT, 0]);
        }
        let driver = Self::area(queue, 1);
        let head = u16::try_from(head).expect("an index");
        self.put(
            driver + 4 + 2 * (number % u64::from(SIZE)),
            &head.to_le_bytes(),
        );
        let index = u16::try_from(number + 1 & 0xffff).expect("an index");
        self.put(driver + 2, &index.to_le_bytes());
    }

    fn offer_packed(&mut self, queue: u64, list: &[(u64, u32, u16)], indirect: bool) {
        let number = usize::try_from(queue).expect("an index");
        let first = self.rings[number].available;
        let whole = [(TABLES, 16 * list.len() as u32, INDIRECT)];
        let mut entries = list;
        if indirect {
            for (index, (address, length, flags)) in (0..).zip(list) {
                self.write_descriptor(TABLES + 16 * index, *address, *length, [0, *flags]);
            }
            entries = &whole;
        }
        for (place, (address, length, flags)) in (first..).zip(entries).rev_by_length() {
            let more = place + 1 < first + entries.len() as u64;
            let wrap = place / u64::from(SIZE) % 2 == 0;
            let flags = flags | if more { NEXT } else { 0 } | if wrap { 1 << 7 } else { 1 << 15 };
            let at = Self::area(queue, 0) + 16 * (place % u64::from(SIZE));
            let id = u16::try_from(first & 0xffff).expect("an id");
            self.write_descriptor(at, *address, *length, [id, flags]);
        }
        self.rings[number].available += entries.len() as u64;
    }

    fn write_descriptor(&self, at: u64, address: u64, length: u32, words: [u16; 2]) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&words[0].to_le_bytes());
        bytes[14..].copy_from_slice(&words[1].to_le_bytes());
        self.put(at, &bytes);
    }

    fn ring_bytes(&self, queue: u64) -> Vec<u8> {
        let mut bytes = vec![0; 3 * AREA as usize];
        let _there = self
            .memory
            .read_slice(&mut bytes, GuestAddress(Self::area(queue, 0)));
        bytes
    }

    /// Rings, and gives the device some time to use something or to break.
    fn kick(&mut self, queue: u64) {
        if self.pace == Pace::Driven {
            self.transport.kick(queue);
            driven::run_pending();
            return self.drain_link();
        }
        let before = self.ring_bytes(queue % self.queues);
        self.transport.kick(queue);
        let end = Instant::now() + Duration::from_millis(1);
        while Instant::now() < end
            && self.transport.get(Field::STATUS) & NEEDS_RESET == 0
            && self.ring_bytes(queue % self.queues) == before
        {
            std::thread::sleep(Duration::from_micros(20));
        }
        self.drain_link();
    }

    /// What was sent is nobody's.
    fn drain_link(&self) {
        if let Some(link) = &self.link {
            let mut drain = [0; 2048];
            while link.recv(&mut drain).is_ok() {}
        }
    }

    /// Something that a guest, its owner or its network may do.
    pub fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 | 1 => {
                let offset = match input.byte() {
                    common @ 0..0xc0 => u64::from(common),
                    table @ 0xc0..0xe0 => 0x4000 + u64::from(table & 31),
                    _ => u64::from(input.word() & 0x7fff),
                };
                let length = input.one_of(&[4, 4, 2, 1, 8]);
                let value = input.number().to_le_bytes();
                self.transport.write(offset, &value[..length]);
            }
            2 => {
                let offset = u64::from(input.word() & 0x7fff);
                let length = input.one_of(&[4, 4, 2, 1, 8]);
                self.transport.read(offset, &mut [0xff; 8][..length]);
            }
            3 => {
                let at = RINGS + u64::from(input.word() & 0x1fff);
                let bytes = input.take(8);
                self.put(at, bytes);
            }
            4..9 => self.offer(input),
            9..12 => {
                let queue = u64::from(input.byte() & 3);
                self.kick(queue);
            }
            12 => self.transport.pause_and_resume(),
            13 => {
                let features = input.quad();
                let kept = if input.byte() & 3 == 0 {
                    0
                } else {
                    EVENT_INDEX | 1 << 28
                };
                self.start(features | kept);
            }
            14 => {
                if let Some(link) = &self.link {
                    let mut frame = vec![0; usize::from(input.word() & 0x7ff)];
                    let given = input.take(24);
                    let length = given.len().min(frame.len());
                    frame[..length].copy_from_slice(&given[..length]);
                    // The link may be full.
                    let _full = link.send(&frame);
                }
            }
            _ => self.transport.configure(input),
        }
    }

    /// A new driver is served, whatever came before.
    pub fn finish(&mut self) {
        self.start(0);
        self.drain_link();
        let queue = self.queues - 1;
        if self.blk {
            self.put(HEADERS, &[0; 16]);
            let request = [(HEADERS, 16, 0), (DATA, 512, WRITE), (DATA + 512, 1, WRITE)];
            self.offer_split(queue, &request, false);
        } else if self.link.is_some() {
            self.put(HEADERS, &[0; 12]);
            self.offer_split(queue, &[(HEADERS, 12, 0), (DATA, 64, 0)], false);
        } else {
            self.offer_split(queue, &[(DATA, 64, WRITE)], false);
        }
        self.kick(queue);
        let end = Instant::now() + Duration::from_secs(5);
        let used = GuestAddress(Self::area(queue, 2) + 2);
        while self.memory.read_obj::<u16>(used).expect("a ring") == 0 {
            assert_eq!(
                self.transport.get(Field::STATUS),
                15,
                "a good driver's device breaks"
            );
            assert!(Instant::now() < end, "a good driver is not served");
            match self.pace {
                Pace::Driven => driven::run_pending(),
                Pace::Threads => std::thread::sleep(Duration::from_micros(20)),
            }
        }
    }
}

/// The last one first, where the length is known by the slice.
trait RevByLength: Iterator + Sized {
    fn rev_by_length(self) -> std::iter::Rev<std::vec::IntoIter<Self::Item>> {
        self.collect::<Vec<_>>().into_iter().rev()
    }
}

impl<I: Iterator> RevByLength for I {}
