//! The MMIO transport (virtio 1.3, 4.2).

use crate::mmio::Registers;
use crate::time::{MILLISECONDS, SECONDS, spin, wait_until};
use crate::virtio::Queue;
use crate::{Machine, interrupts, ioapic};

/// Offsets of registers (virtio 1.3, 4.2.2).
pub mod register {
    /// "virt".
    pub const MAGIC: usize = 0x00;
    /// 2.
    pub const VERSION: usize = 0x04;
    /// Device type, 0 where no device is.
    pub const DEVICE_ID: usize = 0x08;
    /// 32 feature bits, chosen by the next one.
    pub const DEVICE_FEATURES: usize = 0x10;
    /// Which 32 feature bits.
    pub const DEVICE_FEATURES_SELECT: usize = 0x14;
    /// 32 feature bits of the driver.
    pub const DRIVER_FEATURES: usize = 0x20;
    /// Which 32 feature bits of the driver.
    pub const DRIVER_FEATURES_SELECT: usize = 0x24;
    /// Which queue the queue registers mean.
    pub const QUEUE_SELECT: usize = 0x30;
    /// The largest size of the queue, 0 where there is none.
    pub const QUEUE_SIZE_MAX: usize = 0x34;
    /// The queue's size.
    pub const QUEUE_SIZE: usize = 0x38;
    /// 1 when the queue is in use.
    pub const QUEUE_READY: usize = 0x44;
    /// Doorbell: the queue's number.
    pub const QUEUE_NOTIFY: usize = 0x50;
    /// Bit 0: used buffers; bit 1: configuration change.
    pub const INTERRUPT_STATUS: usize = 0x60;
    /// Clears bits of the interrupt status.
    pub const INTERRUPT_ACK: usize = 0x64;
    /// Device status.
    pub const STATUS: usize = 0x70;
    /// Descriptor area, low half; the high half follows.
    pub const QUEUE_DESCRIPTORS: usize = 0x80;
    /// Driver area (available ring), low half.
    pub const QUEUE_DRIVER: usize = 0x90;
    /// Device area (used ring), low half.
    pub const QUEUE_DEVICE: usize = 0xa0;
    /// Changes when the configuration changes.
    pub const CONFIG_GENERATION: usize = 0xfc;
    /// Device-specific configuration.
    pub const CONFIG: usize = 0x100;
}

/// Bits of the device status (virtio 1.3, 2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u32 = 1;
    /// The guest can drive it.
    pub const DRIVER: u32 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u32 = 4;
    /// Feature negotiation is complete.
    pub const FEATURES_OK: u32 = 8;
    /// The device cannot go on.
    pub const NEEDS_RESET: u32 = 0x40;
}

/// Device-independent feature bits (virtio 1.3, chapter 6).
pub mod feature {
    /// Indirect descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event`.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
}

/// Device types (virtio 1.3, chapter 5).
pub mod device_id {
    /// Network card.
    pub const NET: u32 = 1;
    /// Block device.
    pub const BLOCK: u32 = 2;
    /// Entropy source.
    pub const ENTROPY: u32 = 4;
}

/// Global system interrupts of the devices in the order of their addresses.
const DEFAULT_GSIS: [u32; 15] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 14, 15];
/// First vector that devices get.
const FIRST_VECTOR: u8 = 0x60;

/// A device behind the MMIO transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its registers.
    pub registers: Registers,
    /// Its device type.
    pub id: u32,
    /// Its pin of the I/O APIC.
    pub gsi: u32,
    /// Vector of its interrupt after [`Device::route_interrupt`].
    pub vector: u8,
}

impl Device {
    /// All devices of the machine. Where they are is for the command line to say: `virtio.base`,
    /// `virtio.stride`, `virtio.count`, `virtio.gsi` (of the first one, the others following).
    pub fn all(machine: &Machine) -> impl Iterator<Item = Self> + use<> {
        let base = machine.number("virtio.base", 0xfe00_0000) as usize;
        let stride = machine.number("virtio.stride", 0x1000) as usize;
        let count = machine.number("virtio.count", DEFAULT_GSIS.len() as u64) as usize;
        let first_gsi = machine
            .option("virtio.gsi")
            .map(|_| machine.number("virtio.gsi", 0) as u32);
        (0..count).filter_map(move |slot| {
            // SAFETY: the machine's window for such devices; nothing else is there.
            let registers = unsafe { Registers::at(base + slot * stride) };
            let id = (registers.read_u32(register::MAGIC) == u32::from_le_bytes(*b"virt"))
                .then(|| registers.read_u32(register::DEVICE_ID))?;
            (id != 0).then(|| Self {
                registers,
                id,
                gsi: first_gsi.map_or_else(|| DEFAULT_GSIS[slot], |first| first + slot as u32),
                vector: FIRST_VECTOR + slot as u8,
            })
        })
    }

    /// The first device of that type.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn first(machine: &Machine, id: u32) -> Self {
        Self::all(machine)
            .find(|device| device.id == id)
            .unwrap_or_else(|| panic!("no virtio device of type {id}"))
    }

    /// Device status.
    pub fn status(self) -> u32 {
        self.registers.read_u32(register::STATUS)
    }

    /// Resets the device and waits until it is (virtio 1.3, 4.2.2.1).
    ///
    /// # Panics
    ///
    /// When the status does not become 0 within a second.
    pub fn reset(self) {
        self.registers.write_u32(register::STATUS, 0);
        assert!(
            wait_until(SECONDS, || self.status() == 0),
            "status {:#x} after a reset",
            self.status()
        );
    }

    /// What the device offers.
    pub fn features(self) -> u64 {
        self.registers
            .write_u32(register::DEVICE_FEATURES_SELECT, 0);
        let low = self.registers.read_u32(register::DEVICE_FEATURES);
        self.registers
            .write_u32(register::DEVICE_FEATURES_SELECT, 1);
        let high = self.registers.read_u32(register::DEVICE_FEATURES);
        u64::from(low) | u64::from(high) << 32
    }

    /// Resets the device and negotiates those of `wanted` that are offered, and VERSION_1; the steps of
    /// virtio 1.3, 3.1.1, up to FEATURES_OK. Returns what was agreed upon.
    ///
    /// # Panics
    ///
    /// When the device does not accept.
    pub fn negotiate(self, wanted: u64) -> u64 {
        assert_eq!(self.registers.read_u32(register::VERSION), 2, "version");
        self.reset();
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let offered = self.features();
        assert!(
            offered & feature::VERSION_1 != 0,
            "no VERSION_1: {offered:#x}"
        );
        let agreed = offered & wanted | feature::VERSION_1;
        self.write_features(agreed);
        let features_ok = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set_status(features_ok);
        assert_eq!(
            self.status(),
            features_ok,
            "the features {agreed:#x} are refused"
        );
        agreed
    }

    /// Writes the driver's features.
    pub fn write_features(self, features: u64) {
        self.registers
            .write_u32(register::DRIVER_FEATURES_SELECT, 0);
        self.registers
            .write_u32(register::DRIVER_FEATURES, features as u32);
        self.registers
            .write_u32(register::DRIVER_FEATURES_SELECT, 1);
        self.registers
            .write_u32(register::DRIVER_FEATURES, (features >> 32) as u32);
    }

    /// Writes the device status.
    pub fn set_status(self, status: u32) {
        self.registers.write_u32(register::STATUS, status);
    }

    /// Largest size of queue `number`.
    pub fn queue_size_max(self, number: u16) -> u32 {
        self.registers
            .write_u32(register::QUEUE_SELECT, u32::from(number));
        self.registers.read_u32(register::QUEUE_SIZE_MAX)
    }

    /// Tells the device where `queue` is and turns the queue on.
    ///
    /// # Panics
    ///
    /// When the queue is already on or too large.
    pub fn set_up_queue(self, queue: &Queue) {
        let size_max = self.queue_size_max(queue.number());
        assert!(
            u32::from(queue.size()) <= size_max,
            "queue of at most {size_max}"
        );
        assert_eq!(
            self.registers.read_u32(register::QUEUE_READY),
            0,
            "queue is on"
        );
        self.write_queue(
            queue.number(),
            u32::from(queue.size()),
            [
                queue.descriptors_address(),
                queue.available_address(),
                queue.used_address(),
            ],
        );
        assert_eq!(
            self.registers.read_u32(register::QUEUE_READY),
            1,
            "queue is off"
        );
    }

    /// Writes a queue's registers as they are given, and turns the queue on: descriptor table, available
    /// ring, used ring.
    pub fn write_queue(self, number: u16, size: u32, addresses: [u64; 3]) {
        self.registers
            .write_u32(register::QUEUE_SELECT, u32::from(number));
        self.registers.write_u32(register::QUEUE_SIZE, size);
        for (offset, address) in [
            register::QUEUE_DESCRIPTORS,
            register::QUEUE_DRIVER,
            register::QUEUE_DEVICE,
        ]
        .into_iter()
        .zip(addresses)
        {
            self.registers.write_u32(offset, address as u32);
            self.registers.write_u32(offset + 4, (address >> 32) as u32);
        }
        self.registers.write_u32(register::QUEUE_READY, 1);
    }

    /// Sets DRIVER_OK: the device starts.
    pub fn start(self) {
        self.set_status(
            status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
        );
    }

    /// Rings the doorbell of queue `number`.
    pub fn notify(self, number: u16) {
        self.registers
            .write_u32(register::QUEUE_NOTIFY, u32::from(number));
    }

    /// Whether DEVICE_NEEDS_RESET comes to be set within `limit` cycles. Reads of the status are spaced
    /// out, so that the device's own thread gets to run on a small host.
    pub fn is_broken_within(self, limit: u64) -> bool {
        wait_until(limit, || {
            self.status() & status::NEEDS_RESET != 0 || {
                spin(MILLISECONDS / 10);
                false
            }
        })
    }

    /// Takes the interrupt status and acknowledges it.
    pub fn take_interrupt_status(self) -> u32 {
        let bits = self.registers.read_u32(register::INTERRUPT_STATUS);
        self.registers.write_u32(register::INTERRUPT_ACK, bits);
        bits
    }

    /// Sends the device's interrupt to this processor as [`Device::vector`].
    pub fn route_interrupt(self, machine: &Machine) {
        interrupts::acknowledge(self.vector, interrupts::EOI_LAPIC);
        ioapic::IoApic::first(machine.acpi.as_ref()).route_edge(self.gsi, self.vector);
    }
}
