//! A disk, a network interface and an entropy device behind virtio-mmio or virtio-pci, driven by a guest that
//! mostly knows how, and then does not: registers, rings of both kinds, buffers, pauses. Nothing panics, no
//! access hangs, and a device whose driver starts over serves it.
//!
//! An input is a choice of device and transport, then a list of actions; see [`Guest::step`].
#![no_main]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use block::{CacheMode, Disk, DiskOptions, EngineKind};
use bus::{MmioDevice, UnconnectedIrqLine};
use cuddy_fuzz::{Input, Sink};
use libfuzzer_sys::fuzz_target;
use pci::{EndpointKind, FunctionAddress, RootComplex, Windows};
use virtio::devices::blk::{Blk, BlkOptions};
use virtio::devices::net::{MacAddress, Net, NetOptions};
use virtio::devices::rng::Rng;
use virtio::tap::{Tap, TapOffloads};
use virtio::transport::{MmioTransport, PciInterrupts, PciTransport};
use virtio::{GuestMemory, VirtioDevice};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const STEPS_MAX: usize = 60;
const BASE: u64 = 0xc000_0000;
const REGION_BYTES: usize = 1 << 20;
const SECOND_REGION: u64 = 1 << 20;
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

/// Registers that both transports have: offset on MMIO, offset and bytes in the common configuration.
#[derive(Debug, Clone, Copy)]
struct Field(u64, u64, usize);
const DEVICE_SELECT: Field = Field(0x14, 0x00, 4);
const DEVICE_FEATURES: Field = Field(0x10, 0x04, 4);
const DRIVER_SELECT: Field = Field(0x24, 0x08, 4);
const DRIVER_FEATURES: Field = Field(0x20, 0x0c, 4);
const STATUS: Field = Field(0x70, 0x14, 1);
const QUEUE_SELECT: Field = Field(0x30, 0x16, 2);
const QUEUE_SIZE: Field = Field(0x38, 0x18, 2);
const QUEUE_READY: Field = Field(0x44, 0x1c, 2);
const QUEUE_AREAS: [Field; 3] = [
    Field(0x80, 0x20, 4),
    Field(0x90, 0x28, 4),
    Field(0xa0, 0x30, 4),
];

enum Transport {
    Mmio(MmioTransport),
    Pci(RootComplex, FunctionAddress, Arc<Mutex<PciTransport>>),
}

impl Transport {
    fn new(pci: bool, device: Box<dyn VirtioDevice>, memory: Arc<GuestMemory>) -> Self {
        if !pci {
            let event = EventFd::new(EFD_NONBLOCK).expect("an event");
            let transport = MmioTransport::new(device, memory, BASE, event, Arc::new(Sink));
            return Self::Mmio(transport.with_packed_rings(true));
        }
        let interrupts = PciInterrupts {
            messages: Arc::new(Sink),
            pin: Arc::new(UnconnectedIrqLine),
            interrupt_line: 16,
        };
        let transport = PciTransport::new(
            device,
            EndpointKind::Integrated,
            memory,
            interrupts,
            Arc::new(Sink),
        );
        let transport = transport.expect("a function").with_packed_rings(true);
        let transport = Arc::new(Mutex::new(transport));
        let windows = Windows::new(BASE..BASE + 0x10_0000, None).expect("a window");
        let mut complex = RootComplex::new(0, windows);
        let address = complex.add(transport.clone()).expect("room");
        let _effect = complex.write_config(address, 4, &[6, 4]);
        Self::Pci(complex, address, transport)
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Mmio(transport) => transport.read(offset & 0xfff, data),
            Self::Pci(complex, ..) => complex.read_bar(BASE + offset, data),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let _effect = match self {
            Self::Mmio(transport) => transport.write(offset & 0xfff, data),
            Self::Pci(complex, ..) => complex.write_bar(BASE + offset, data),
        };
    }

    fn get(&mut self, field: Field) -> u64 {
        let mut data = [0; 8];
        match self {
            Self::Mmio(_) => self.read(field.0, &mut data[..4]),
            Self::Pci(..) => self.read(field.1, &mut data[..field.2]),
        }
        u64::from_le_bytes(data)
    }

    fn set(&mut self, field: Field, value: u64) {
        let data = value.to_le_bytes();
        match self {
            Self::Mmio(_) => self.write(field.0, &data[..4]),
            Self::Pci(..) => self.write(field.1, &data[..field.2]),
        }
    }

    fn kick(&mut self, queue: u64) {
        match self {
            Self::Mmio(_) => self.write(0x50, &queue.to_le_bytes()[..4]),
            Self::Pci(..) => self.write(0x3000 + 4 * queue, &[0; 2]),
        }
    }

    fn pause_and_resume(&mut self) {
        match self {
            Self::Mmio(transport) => {
                transport.pause();
                transport.resume();
            }
            Self::Pci(.., transport) => {
                let mut transport = transport.lock().expect("no panic");
                transport.pause();
                transport.resume();
            }
        }
    }
}

/// The driver's side of a queue: chains made available and used, in ring entries.
#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    available: u64,
}

struct Guest {
    transport: Transport,
    memory: Arc<GuestMemory>,
    queues: u64,
    features: u64,
    rings: [Ring; 2],
    /// The far side of the network.
    link: Option<UnixDatagram>,
    blk: bool,
}

impl Guest {
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
        if let Transport::Pci(complex, address, _) = &self.transport {
            wake(complex, *address);
            let base = u32::try_from(BASE).expect("a low address");
            let _effect = complex.write_config(*address, 0x10, &base.to_le_bytes());
            let _effect = complex.write_config(*address, 0x14, &[0; 4]);
            let _effect = complex.write_config(*address, 4, &[6, 4]);
        }
        let transport = &mut self.transport;
        transport.set(STATUS, 0);
        assert_eq!(transport.get(STATUS), 0, "a reset is refused");
        transport.set(STATUS, 1);
        transport.set(STATUS, 3);
        let mut offered = 0;
        for half in 0..2 {
            transport.set(DEVICE_SELECT, half);
            offered |= transport.get(DEVICE_FEATURES) << (32 * half);
        }
        self.features = offered & wanted | 1 << 32;
        for half in 0..2 {
            transport.set(DRIVER_SELECT, half);
            transport.set(DRIVER_FEATURES, self.features >> (32 * half));
        }
        transport.set(STATUS, 11);
        assert_ne!(transport.get(STATUS) & 8, 0, "features are refused");
        let zeros = [0; RING_STRIDE as usize];
        for queue in 0..self.queues {
            self.put(Self::area(queue, 0), &zeros);
            self.transport.set(QUEUE_SELECT, queue);
            self.transport.set(QUEUE_SIZE, u64::from(SIZE));
            for (area, field) in (0..).zip(QUEUE_AREAS) {
                self.transport.set(field, Self::area(queue, area));
            }
            self.transport.set(QUEUE_READY, 1);
        }
        self.rings = Default::default();
        self.transport.set(STATUS, 15);
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
        let before = self.ring_bytes(queue % self.queues);
        self.transport.kick(queue);
        let end = Instant::now() + Duration::from_millis(1);
        while Instant::now() < end
            && self.transport.get(STATUS) & NEEDS_RESET == 0
            && self.ring_bytes(queue % self.queues) == before
        {
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
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
            _ => {
                if let Transport::Pci(complex, address, _) = &self.transport {
                    let offset = u16::from(input.byte());
                    let length = input.one_of(&[4, 2, 1]);
                    let value = input.double().to_le_bytes();
                    let _effect = complex.write_config(*address, offset, &value[..length]);
                    complex.read_config(*address, offset, &mut [0; 4][..length]);
                }
            }
        }
        if let Some(link) = &self.link {
            let mut drain = [0; 2048];
            while link.recv(&mut drain).is_ok() {}
        }
    }

    /// A new driver is served, whatever came before.
    fn finish(&mut self) {
        self.start(0);
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
        self.transport.kick(queue);
        let end = Instant::now() + Duration::from_secs(5);
        let used = GuestAddress(Self::area(queue, 2) + 2);
        while self.memory.read_obj::<u16>(used).expect("a ring") == 0 {
            assert_eq!(
                self.transport.get(STATUS),
                15,
                "a good driver's device breaks"
            );
            assert!(Instant::now() < end, "a good driver is not served");
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

/// Puts a function into D0, by its capability of power management.
fn wake(complex: &RootComplex, address: FunctionAddress) {
    let mut at = 0x34;
    for _ in 0..48 {
        let mut head = [0; 4];
        complex.read_config(address, at & 0xfc, &mut head);
        let next = if at == 0x34 { head[0] } else { head[1] };
        if at != 0x34 && head[0] == 1 {
            let _effect = complex.write_config(address, at + 4, &[0; 2]);
            return;
        }
        at = u16::from(next);
    }
}

/// The last one first, where the length is known by the slice.
trait RevByLength: Iterator + Sized {
    fn rev_by_length(self) -> std::iter::Rev<std::vec::IntoIter<Self::Item>> {
        self.collect::<Vec<_>>().into_iter().rev()
    }
}

impl<I: Iterator> RevByLength for I {}

/// A disk of 64 KiB, whose image is gone with it.
fn disk(kind: u8) -> (Box<dyn VirtioDevice>, File) {
    // SAFETY: the name is a string that ends in a zero.
    let descriptor = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(descriptor >= 0, "no memfd");
    // SAFETY: the descriptor was just made, and is nobody else's.
    let file = unsafe { File::from_raw_fd(descriptor) };
    file.set_len(64 << 10).expect("room for the image");
    let disk = Disk::open(&DiskOptions {
        cache: CacheMode::Unsafe,
        readonly: kind & 0x40 != 0,
        lock: false,
        ..DiskOptions::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
    })
    .expect("a disk");
    let options = BlkOptions {
        engine: match kind >> 4 & 3 {
            0 => EngineKind::IoUring,
            1 => EngineKind::Threads,
            _ => EngineKind::Sync,
        },
        queues: 1 + u16::from(kind >> 3 & 1),
        ..BlkOptions::new("disk0")
    };
    (Box::new(Blk::new(disk, options)), file)
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let kind = input.byte();
    let (mut link, mut image) = (None, None);
    let device: Box<dyn VirtioDevice> = match kind & 3 {
        0 | 1 => {
            let (device, file) = disk(kind);
            image = Some(file);
            device
        }
        2 => {
            let (near, far) = UnixDatagram::pair().expect("a pair of sockets");
            far.set_nonblocking(true).expect("a socket");
            link = Some(far);
            let options = NetOptions {
                name: "net0".to_owned(),
                mac: MacAddress::derive("fuzz"),
                mtu: (kind & 0x40 != 0).then_some(1000),
            };
            let tap = Tap::from_socket(near, TapOffloads::NONE);
            Box::new(Net::new(tap, options).expect("an interface"))
        }
        _ => Box::new(Rng::new()),
    };
    let ranges = [0, SECOND_REGION].map(|start| (GuestAddress(start), REGION_BYTES));
    let memory = Arc::new(GuestMemory::from_ranges(&ranges).expect("memory"));
    let mut guest = Guest {
        queues: u64::try_from(device.queue_max_sizes().len()).expect("few"),
        transport: Transport::new(kind & 4 != 0, device, memory.clone()),
        memory,
        features: 0,
        rings: Default::default(),
        link,
        blk: image.is_some(),
    };
    guest.start(match kind & 0x80 {
        0 => !PACKED,
        _ => u64::MAX,
    });
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        guest.step(&mut input);
    }
    guest.finish();
});
