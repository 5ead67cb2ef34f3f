//! A driver for tests: the other side of the transport and of the rings.
//!
//! [`Driver`] owns a device on a transport, with memory, an interrupt and doorbells, and speaks the guest's
//! language to it: registers, descriptors, rings. Registers are named as on MMIO, whatever the transport
//! is. [`conformance`] is the suite that each device passes on each transport.

pub mod conformance;
mod driver_queue;
mod idle;
mod packed_queue;
mod split_queue;
pub mod transport;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bus::{Doorbell, DoorbellRegistry, MmioDevice};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::{GuestMemory, VirtioDevice, feature};
pub use driver_queue::{Buffer, DriverQueue};
pub use idle::assert_idle;
pub use transport::{Kind, Transport};

/// Bytes of each of the three regions of [`memory`].
pub const REGION_BYTES: usize = 0x10_0000;
/// Where the second region of [`memory`] begins: right behind the first, in another mapping.
pub const SECOND_REGION: u64 = 0x10_0000;
/// Where the third region of [`memory`] begins, after a hole.
pub const THIRD_REGION: u64 = 0x40_0000;
/// An address without memory.
pub const HOLE: u64 = 0x30_0000;

/// Longest wait for a device; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory with a seam and a hole.
pub fn memory() -> Arc<GuestMemory> {
    let ranges = [0, SECOND_REGION, THIRD_REGION].map(|start| (GuestAddress(start), REGION_BYTES));
    Arc::new(GuestMemory::from_ranges(&ranges).unwrap())
}

/// Registers by their offset, for tests.
pub mod register {
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the status, as a driver writes them.
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

/// A registry that remembers what is registered, and can refuse.
#[derive(Debug, Default)]
pub struct RecordedDoorbells {
    pub registered: Mutex<Vec<Doorbell>>,
    pub refuses: bool,
}

impl DoorbellRegistry for RecordedDoorbells {
    fn register(&self, doorbell: Doorbell, _event: &EventFd) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::other("refused by the test"));
        }
        self.registered.lock().unwrap().push(doorbell);
        Ok(())
    }

    fn unregister(&self, doorbell: Doorbell, _event: &EventFd) -> io::Result<()> {
        let mut registered = self.registered.lock().unwrap();
        let position = registered
            .iter()
            .position(|&entry| entry == doorbell)
            .expect("the device unregisters what it registered");
        registered.remove(position);
        Ok(())
    }
}

/// A guest's driver with its device.
#[derive(Debug)]
pub struct Driver {
    pub memory: Arc<GuestMemory>,
    pub transport: Transport,
    pub doorbells: Arc<RecordedDoorbells>,
    pub queues: Vec<DriverQueue>,
    /// The features of the last [`negotiate`](Self::negotiate).
    pub features: u64,
    next_free: u64,
}

impl Driver {
    /// Where the registers are.
    pub const BASE_ADDRESS: u64 = 0xfe00_0000;

    /// A machine with nothing but `device`, on MMIO.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::on(Kind::Mmio, device)
    }

    /// A machine with nothing but `device`.
    pub fn on(kind: Kind, device: Box<dyn VirtioDevice>) -> Self {
        Self::build(kind, device, memory(), RecordedDoorbells::default())
    }

    /// A machine with `device`, this memory and these doorbells.
    pub fn build(
        kind: Kind,
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        doorbells: RecordedDoorbells,
    ) -> Self {
        let doorbells = Arc::new(doorbells);
        let registry: Arc<dyn DoorbellRegistry> = doorbells.clone();
        Self {
            transport: Transport::new(kind, device, Arc::clone(&memory), registry),
            memory,
            doorbells,
            queues: Vec::new(),
            features: 0,
            next_free: 0x1000,
        }
    }

    pub fn read(&mut self, register: u64) -> u32 {
        let mut data = [0xff; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&mut self, register: u64, value: u32) {
        let effect = self.transport.write(register, &value.to_le_bytes());
        assert_eq!(effect, bus::Effect::None);
    }

    /// `length` bytes of the configuration space.
    pub fn config(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0xff; length];
        for (at, chunk) in (offset..).step_by(4).zip(data.chunks_mut(4)) {
            self.transport.read(register::CONFIG + at, chunk);
        }
        data
    }

    pub fn status(&mut self) -> u32 {
        self.read(register::STATUS)
    }

    pub fn offered_features(&mut self) -> u64 {
        self.write(register::DEVICE_FEATURES_SEL, 0);
        let low = self.read(register::DEVICE_FEATURES);
        self.write(register::DEVICE_FEATURES_SEL, 1);
        let high = self.read(register::DEVICE_FEATURES);
        u64::from(high) << 32 | u64::from(low)
    }

    /// Resets, and asks for `features` and VERSION_1. Returns whether the device agrees.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.reset();
        self.transport.use_interrupts();
        self.write(register::STATUS, status::ACKNOWLEDGE);
        let mut value = status::ACKNOWLEDGE | status::DRIVER;
        self.write(register::STATUS, value);
        self.features = features | feature::VERSION_1;
        for (select, half) in [(0, self.features), (1, self.features >> 32)] {
            self.write(register::DRIVER_FEATURES_SEL, select);
            self.write(register::DRIVER_FEATURES, low_half(half));
        }
        value |= status::FEATURES_OK;
        self.write(register::STATUS, value);
        self.status() & status::FEATURES_OK != 0
    }

    /// Lays a ring out for the next queue and tells the device of it.
    pub fn add_queue(&mut self, size: u16) {
        self.add_queue_with(size, |_| {});
    }

    /// As [`add_queue`](Self::add_queue), with `change` before the queue is said to be ready.
    pub fn add_queue_with(&mut self, size: u16, change: impl FnOnce(&mut Self)) {
        let index = u32::try_from(self.queues.len()).unwrap();
        let entries = usize::from(size);
        // As much as a split ring has; a packed one needs less.
        let areas = [16 * entries, 6 + 2 * entries, 6 + 8 * entries];
        let areas = areas.map(|bytes| self.allocate(bytes));
        let memory = Arc::clone(&self.memory);
        let queue = DriverQueue::new(memory, size, areas, self.features);
        self.queues.push(queue);
        self.write(register::QUEUE_SEL, index);
        self.write(register::QUEUE_SIZE, u32::from(size));
        for (register, address) in [
            (register::QUEUE_DESC_LOW, areas[0]),
            (register::QUEUE_DRIVER_LOW, areas[1]),
            (register::QUEUE_DEVICE_LOW, areas[2]),
        ] {
            self.write(register, low_half(address));
            self.write(register + 4, low_half(address >> 32));
        }
        self.transport.use_queue_interrupt(index);
        change(self);
        self.write(register::QUEUE_READY, 1);
    }

    /// The whole of 3.1.1 with every queue of the device at `size`.
    pub fn start(&mut self, features: u64, size: u16) {
        assert!(self.negotiate(features), "features {features:#x} refused");
        for index in 0.. {
            self.write(register::QUEUE_SEL, index);
            let largest = self.read(register::QUEUE_SIZE_MAX);
            if largest == 0 {
                break;
            }
            self.add_queue(size.min(u16::try_from(largest).unwrap()));
        }
        self.driver_ok();
    }

    pub fn driver_ok(&mut self) {
        let value = self.status() | status::DRIVER_OK;
        self.write(register::STATUS, value);
    }

    pub fn reset(&mut self) {
        self.write(register::STATUS, 0);
        assert_eq!(self.status(), 0);
        self.queues.clear();
        self.next_free = 0x1000;
        self.transport.take_interrupts();
    }

    /// Address of `length` bytes, zeroed, that nobody else uses, in the first region.
    pub fn allocate(&mut self, length: usize) -> u64 {
        let address = self.next_free;
        self.next_free += u64::try_from(length.next_multiple_of(64)).unwrap();
        assert!(self.next_free <= SECOND_REGION, "out of test memory");
        self.memory
            .write_slice(&vec![0; length], GuestAddress(address))
            .unwrap();
        address
    }

    /// Address of a copy of `data`.
    pub fn place(&mut self, data: &[u8]) -> u64 {
        let address = self.allocate(data.len());
        self.memory
            .write_slice(data, GuestAddress(address))
            .unwrap();
        address
    }

    pub fn fetch(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory
            .read_slice(&mut data, GuestAddress(address))
            .unwrap();
        data
    }

    /// Rings the doorbell over the bus.
    pub fn kick(&mut self, queue: u16) {
        self.write(register::QUEUE_NOTIFY, u32::from(queue));
    }

    /// Makes a chain of `buffers` available on `queue` and rings the doorbell.
    pub fn submit(&mut self, queue: u16, buffers: &[Buffer]) -> u16 {
        let head = self.queues[usize::from(queue)].add(buffers);
        self.kick(queue);
        head
    }

    /// The next used buffer of `queue`: its head and the bytes written.
    pub fn wait_used(&mut self, queue: u16) -> (u32, u32) {
        let index = usize::from(queue);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(used) = self.queues[index].take_used() {
                return used;
            }
            assert!(Instant::now() < end, "nothing used in time");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// [`submit`](Self::submit) and wait: bytes written.
    pub fn request(&mut self, queue: u16, buffers: &[Buffer]) -> u32 {
        let head = self.submit(queue, buffers);
        let (used, written) = self.wait_used(queue);
        assert_eq!(used, u32::from(head));
        written
    }

    /// Waits for an interrupt; returns what it says: 1 for used buffers, 2 for the configuration.
    pub fn wait_interrupt(&mut self) -> u32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(bits) = self.transport.take_interrupts() {
                return bits;
            }
            assert!(Instant::now() < end, "no interrupt in time");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// Whether an interrupt came since the last look.
    pub fn interrupted(&mut self) -> bool {
        self.transport.take_interrupts().is_some()
    }

    /// Waits until the device says that it needs a reset.
    pub fn wait_broken(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.status() & status::NEEDS_RESET == 0 {
            assert!(Instant::now() < end, "the device does not break");
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}
