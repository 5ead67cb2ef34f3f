//! What a driver does with a device, whatever its transport is (virtio 1.3, 3.1 and 4).

use crate::mmio::Registers;
use crate::pci::Function;
use crate::time::{MILLISECONDS, SECONDS, spin, wait_until};
use crate::virtio::Queue;
use crate::virtio::mmio::{self, MmioRegisters};
use crate::virtio::pci::{self, PciRegisters};
use crate::{Machine, interrupts, ioapic};

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
    /// Packed rings.
    pub const RING_PACKED: u64 = 1 << 34;
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
    /// Sockets.
    pub const SOCKET: u32 = 19;
}

/// First vector that devices get.
const FIRST_VECTOR: u8 = 0x60;

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its registers.
    pub transport: Transport,
    /// Its device type.
    pub id: u32,
    /// Vector of its interrupt after [`Device::route_interrupt`].
    pub vector: u8,
}

/// How a device is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A page of registers.
    Mmio(MmioRegisters),
    /// A function on PCI.
    Pci(PciRegisters),
}

impl Device {
    /// All devices of the machine: on PCI where there is PCI and the command line has no `virtio.base`.
    pub fn all(machine: &Machine) -> impl Iterator<Item = Self> + use<> {
        let on_pci = machine.option("virtio.base").is_none() && Function::all().next().is_some();
        let functions = on_pci
            .then(PciRegisters::all)
            .into_iter()
            .flatten()
            .map(|(registers, id)| (Transport::Pci(registers), id));
        let pages = (!on_pci)
            .then(|| MmioRegisters::all(machine))
            .into_iter()
            .flatten()
            .map(|(registers, id)| (Transport::Mmio(registers), id));
        (FIRST_VECTOR..)
            .zip(functions.chain(pages))
            .map(|(vector, (transport, id))| Self {
                transport,
                id,
                vector,
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

    /// Its page of registers.
    ///
    /// # Panics
    ///
    /// When it is on PCI.
    pub fn page(self) -> Registers {
        match self.transport {
            Transport::Mmio(page) => page.registers,
            Transport::Pci(_) => panic!("the device is on PCI"),
        }
    }

    /// Its function.
    ///
    /// # Panics
    ///
    /// When it is not on PCI.
    pub fn function(self) -> PciRegisters {
        match self.transport {
            Transport::Mmio(_) => panic!("the device is not on PCI"),
            Transport::Pci(registers) => registers,
        }
    }

    /// Its device-specific configuration.
    pub fn config(self) -> Registers {
        match self.transport {
            // SAFETY: a part of the page.
            Transport::Mmio(page) => unsafe {
                Registers::at(page.registers.base() + mmio::register::CONFIG)
            },
            Transport::Pci(parts) => parts.config,
        }
    }

    /// Changes when the configuration changes.
    pub fn config_generation(self) -> u32 {
        match self.transport {
            Transport::Mmio(page) => page.registers.read_u32(mmio::register::CONFIG_GENERATION),
            Transport::Pci(parts) => {
                u32::from(parts.common.read_u8(pci::register::CONFIG_GENERATION))
            }
        }
    }

    /// Device status.
    pub fn status(self) -> u32 {
        match self.transport {
            Transport::Mmio(page) => page.registers.read_u32(mmio::register::STATUS),
            Transport::Pci(parts) => u32::from(parts.common.read_u8(pci::register::STATUS)),
        }
    }

    /// Resets the device and waits until it is (virtio 1.3, 4.1.4.3.2 and 4.2.2.1).
    ///
    /// # Panics
    ///
    /// When the status does not become 0 within a second.
    pub fn reset(self) {
        self.set_status(0);
        assert!(
            wait_until(SECONDS, || self.status() == 0),
            "status {:#x} after a reset",
            self.status()
        );
    }

    /// What the device offers.
    pub fn features(self) -> u64 {
        let low = self.features_word(0);
        u64::from(low) | u64::from(self.features_word(1)) << 32
    }

    /// 32 of the bits that the device offers.
    pub fn features_word(self, select: u32) -> u32 {
        let (registers, choice, word) = match self.transport {
            Transport::Mmio(page) => (
                page.registers,
                mmio::register::DEVICE_FEATURES_SELECT,
                mmio::register::DEVICE_FEATURES,
            ),
            Transport::Pci(parts) => (
                parts.common,
                pci::register::DEVICE_FEATURES_SELECT,
                pci::register::DEVICE_FEATURES,
            ),
        };
        registers.write_u32(choice, select);
        registers.read_u32(word)
    }

    /// Resets the device and negotiates those of `wanted` that are offered, and VERSION_1; the steps of
    /// virtio 1.3, 3.1.1, up to FEATURES_OK. Returns what was agreed upon.
    ///
    /// # Panics
    ///
    /// When the device does not accept.
    pub fn negotiate(self, wanted: u64) -> u64 {
        if let Transport::Mmio(page) = self.transport {
            let version = page.registers.read_u32(mmio::register::VERSION);
            assert_eq!(version, 2, "version");
        }
        self.reset();
        if let Transport::Pci(parts) = self.transport {
            // All vectors of the table are the same.
            parts.common.write_u16(pci::register::CONFIG_VECTOR, 0);
        }
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
        self.write_features_word(0, features as u32);
        self.write_features_word(1, (features >> 32) as u32);
    }

    /// Writes 32 of the driver's features.
    pub fn write_features_word(self, select: u32, word: u32) {
        let (registers, choice, place) = match self.transport {
            Transport::Mmio(page) => (
                page.registers,
                mmio::register::DRIVER_FEATURES_SELECT,
                mmio::register::DRIVER_FEATURES,
            ),
            Transport::Pci(parts) => (
                parts.common,
                pci::register::DRIVER_FEATURES_SELECT,
                pci::register::DRIVER_FEATURES,
            ),
        };
        registers.write_u32(choice, select);
        registers.write_u32(place, word);
    }

    /// Writes the device status.
    pub fn set_status(self, status: u32) {
        match self.transport {
            Transport::Mmio(page) => page.registers.write_u32(mmio::register::STATUS, status),
            Transport::Pci(parts) => {
                parts.common.write_u8(pci::register::STATUS, status as u8);
            }
        }
    }

    /// Largest size of queue `number`, while it is not configured.
    pub fn queue_size_max(self, number: u16) -> u32 {
        self.select_queue(u32::from(number));
        match self.transport {
            Transport::Mmio(page) => page.registers.read_u32(mmio::register::QUEUE_SIZE_MAX),
            Transport::Pci(parts) => u32::from(parts.common.read_u16(pci::register::QUEUE_SIZE)),
        }
    }

    /// Selects a queue, whether there is one or not.
    pub fn select_queue(self, number: u32) {
        match self.transport {
            Transport::Mmio(page) => page
                .registers
                .write_u32(mmio::register::QUEUE_SELECT, number),
            Transport::Pci(parts) => parts.select(number as u16),
        }
    }

    /// Whether the selected queue is on.
    pub fn queue_is_on(self) -> bool {
        match self.transport {
            Transport::Mmio(page) => page.registers.read_u32(mmio::register::QUEUE_READY) != 0,
            Transport::Pci(parts) => parts.common.read_u16(pci::register::QUEUE_ENABLE) != 0,
        }
    }

    /// Says of the selected queue that it is on, or off.
    pub fn turn_queue(self, on: bool) {
        match self.transport {
            Transport::Mmio(page) => page
                .registers
                .write_u32(mmio::register::QUEUE_READY, u32::from(on)),
            Transport::Pci(parts) => parts
                .common
                .write_u16(pci::register::QUEUE_ENABLE, u16::from(on)),
        }
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
        assert!(!self.queue_is_on(), "queue is on");
        self.write_queue(queue.number(), u32::from(queue.size()), queue.areas());
        assert!(self.queue_is_on(), "queue is off");
    }

    /// Writes a queue's registers as they are given, and turns the queue on: descriptor table, available
    /// ring, used ring.
    pub fn write_queue(self, number: u16, size: u32, addresses: [u64; 3]) {
        self.select_queue(u32::from(number));
        let (registers, offsets) = match self.transport {
            Transport::Mmio(page) => {
                page.registers.write_u32(mmio::register::QUEUE_SIZE, size);
                (
                    page.registers,
                    [
                        mmio::register::QUEUE_DESCRIPTORS,
                        mmio::register::QUEUE_DRIVER,
                        mmio::register::QUEUE_DEVICE,
                    ],
                )
            }
            Transport::Pci(parts) => {
                let common = parts.common;
                // What does not fit becomes a size that no queue can have.
                common.write_u16(pci::register::QUEUE_SIZE, size.try_into().unwrap_or(0));
                common.write_u16(pci::register::QUEUE_VECTOR, 0);
                let first = pci::register::QUEUE_DESCRIPTORS;
                (common, [first, first + 8, first + 16])
            }
        };
        for (offset, address) in offsets.into_iter().zip(addresses) {
            registers.write_u32(offset, address as u32);
            registers.write_u32(offset + 4, (address >> 32) as u32);
        }
        self.turn_queue(true);
    }

    /// Sets DRIVER_OK: the device starts.
    pub fn start(self) {
        self.set_status(
            status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
        );
    }

    /// Rings the doorbell of queue `number`.
    pub fn notify(self, number: u16) {
        self.ring(u32::from(number));
    }

    /// Rings a doorbell, of a queue that may not be there.
    pub fn ring(self, number: u32) {
        match self.transport {
            Transport::Mmio(page) => page
                .registers
                .write_u32(mmio::register::QUEUE_NOTIFY, number),
            Transport::Pci(parts) => parts.notify(number),
        }
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

    /// Takes the interrupt status and acknowledges it: bit 0 for used buffers, which the device need not
    /// set where it sends messages, bit 1 for a configuration change.
    pub fn take_interrupt_status(self) -> u32 {
        match self.transport {
            Transport::Mmio(page) => {
                let bits = page.registers.read_u32(mmio::register::INTERRUPT_STATUS);
                page.registers
                    .write_u32(mmio::register::INTERRUPT_ACK, bits);
                bits
            }
            Transport::Pci(parts) => u32::from(parts.isr.read_u8(0)),
        }
    }

    /// Sends the device's interrupt to this processor as [`Device::vector`]: by messages where there are.
    pub fn route_interrupt(self, machine: &Machine) {
        interrupts::acknowledge(self.vector, interrupts::EOI_LAPIC);
        match self.transport {
            Transport::Mmio(page) => {
                ioapic::IoApic::first(machine.acpi.as_ref()).route_edge(page.gsi, self.vector);
            }
            Transport::Pci(parts) => parts.use_messages(self.vector),
        }
    }

    /// What [`Device::take_interrupt_status`] gives after used buffers, with the interrupt routed by
    /// [`Device::route_interrupt`]: a message says by itself what it is for.
    pub const fn used_buffer_status(self) -> u32 {
        match self.transport {
            Transport::Mmio(_) => 1,
            Transport::Pci(_) => 0,
        }
    }
}
