//! The transports of a test's driver, behind the register names of MMIO.

use std::sync::{Arc, Mutex};

use bus::{Doorbell, DoorbellRegistry, Effect, MmioDevice, Msi, MsiSink, UnconnectedIrqLine};
use pci::{EndpointKind, FunctionAddress, RootComplex, Windows};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Driver, register};
use crate::transport::{MmioTransport, PciInterrupts, PciTransport};
use crate::{GuestMemory, VirtioDevice};

/// Which transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Mmio,
    Pci,
}

/// Offsets in the range of registers of a PCI function.
pub mod part {
    pub const COMMON: u64 = 0;
    pub const ISR: u64 = 0x1000;
    pub const DEVICE: u64 = 0x2000;
    pub const NOTIFY: u64 = 0x3000;
    pub const MSIX_TABLE: u64 = 0x4000;
}

/// The vector of configuration changes; that of a queue is the one after its index.
const CONFIGURATION_VECTOR: u16 = 0;

/// A device on its transport, and where its interrupts end.
#[derive(Debug)]
pub enum Transport {
    Mmio {
        transport: MmioTransport,
        interrupt: EventFd,
    },
    Pci(PciMachine),
}

/// A root complex with one device.
#[derive(Debug)]
pub struct PciMachine {
    pub complex: RootComplex,
    pub address: FunctionAddress,
    pub transport: Arc<Mutex<PciTransport>>,
    pub messages: Arc<Messages>,
}

/// Messages that were sent.
#[derive(Debug, Default)]
pub struct Messages(Mutex<Vec<Msi>>);

impl MsiSink for Messages {
    fn send(&self, message: Msi) {
        self.0.lock().unwrap().push(message);
    }
}

impl Messages {
    /// The data of those since the last look.
    pub fn take(&self) -> Vec<u32> {
        let messages = std::mem::take(&mut *self.0.lock().unwrap());
        messages.iter().map(|message| message.data).collect()
    }
}

impl PciMachine {
    /// A machine with `device`, its registers at [`Driver::BASE_ADDRESS`], decoded, and all its vectors on.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        registry: Arc<dyn DoorbellRegistry>,
    ) -> Self {
        let messages = Arc::new(Messages::default());
        let interrupts = PciInterrupts {
            messages: messages.clone(),
            pin: Arc::new(UnconnectedIrqLine),
            interrupt_line: 16,
        };
        let queues = device.queue_max_sizes().len();
        let kind = EndpointKind::Integrated;
        let transport = PciTransport::new(device, kind, memory, interrupts, registry).unwrap();
        let transport = transport.with_packed_rings(true);
        let transport = Arc::new(Mutex::new(transport));
        let window = Driver::BASE_ADDRESS..Driver::BASE_ADDRESS + 0x10_0000;
        let mut complex = RootComplex::new(0, Windows::new(window, None).unwrap());
        let address = complex.add(transport.clone()).unwrap();
        let machine = Self {
            complex,
            address,
            transport,
            messages,
        };
        machine.write_config(4, &[6, 4]);
        let msix = machine.find_capability(0x11, 0).unwrap();
        machine.write_config(msix + 2, &0x8000_u16.to_le_bytes());
        for vector in 0..=u64::try_from(queues).unwrap() {
            let entry = Driver::BASE_ADDRESS + part::MSIX_TABLE + 16 * vector;
            machine.write(entry, &0xfee0_0000_u64.to_le_bytes());
            machine.write(entry + 8, &vector.to_le_bytes());
        }
        machine
    }

    pub fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.complex.read_config(self.address, offset, data);
    }

    pub fn config_number(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write_config(&self, offset: u16, data: &[u8]) {
        let effect = self.complex.write_config(self.address, offset, data);
        assert_eq!(effect, Effect::None);
    }

    /// Offset of the first capability with `id`, and, of virtio's own, with that kind.
    pub fn find_capability(&self, id: u32, kind: u32) -> Option<u16> {
        let mut offset = self.config_number(0x34) & 0xff;
        while offset != 0 {
            let head = self.config_number(u16::try_from(offset).unwrap());
            if head & 0xff == id && (id != 9 || head >> 24 == kind) {
                return Some(u16::try_from(offset).unwrap());
            }
            offset = head >> 8 & 0xff;
        }
        None
    }

    pub fn read(&self, address: u64, data: &mut [u8]) {
        self.complex.read_bar(address, data);
    }

    pub fn write(&self, address: u64, data: &[u8]) {
        let effect = self.complex.write_bar(address, data);
        assert_eq!(effect, Effect::None);
    }

    /// Reads 16 bits of the common configuration.
    pub fn common_u16(&self, offset: u64) -> u16 {
        let mut data = [0; 2];
        self.read(Driver::BASE_ADDRESS + part::COMMON + offset, &mut data);
        u16::from_le_bytes(data)
    }

    /// Writes 16 bits of the common configuration.
    pub fn set_common_u16(&self, offset: u64, value: u16) {
        let address = Driver::BASE_ADDRESS + part::COMMON + offset;
        self.write(address, &value.to_le_bytes());
    }
}

impl Transport {
    pub fn new(
        kind: Kind,
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        registry: Arc<dyn DoorbellRegistry>,
    ) -> Self {
        match kind {
            Kind::Mmio => {
                let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
                let event = interrupt.try_clone().unwrap();
                let base = Driver::BASE_ADDRESS;
                Self::Mmio {
                    transport: MmioTransport::new(device, memory, base, event, registry)
                        .with_packed_rings(true),
                    interrupt,
                }
            }
            Kind::Pci => Self::Pci(PciMachine::new(device, memory, registry)),
        }
    }

    /// The transport, which is MMIO.
    pub fn mmio(&self) -> &MmioTransport {
        match self {
            Self::Mmio { transport, .. } => transport,
            Self::Pci(_) => panic!("the transport is PCI"),
        }
    }

    /// The machine, whose transport is PCI.
    pub fn pci(&self) -> &PciMachine {
        match self {
            Self::Mmio { .. } => panic!("the transport is MMIO"),
            Self::Pci(machine) => machine,
        }
    }

    pub fn pause(&mut self) {
        match self {
            Self::Mmio { transport, .. } => transport.pause(),
            Self::Pci(machine) => machine.transport.lock().unwrap().pause(),
        }
    }

    pub fn resume(&mut self) {
        match self {
            Self::Mmio { transport, .. } => transport.resume(),
            Self::Pci(machine) => machine.transport.lock().unwrap().resume(),
        }
    }

    /// The device type, as the transport says it.
    pub fn device_type(&mut self) -> u32 {
        match self {
            Self::Mmio { transport, .. } => {
                let mut data = [0; 4];
                transport.read(register::DEVICE_ID, &mut data);
                u32::from_le_bytes(data)
            }
            Self::Pci(machine) => (machine.config_number(0) >> 16) - 0x1040,
        }
    }

    /// The doorbell of a queue.
    pub fn doorbell(&self, queue_index: u32) -> Doorbell {
        match self {
            Self::Mmio { .. } => Doorbell {
                address: Driver::BASE_ADDRESS + register::QUEUE_NOTIFY,
                value: Some(queue_index),
            },
            Self::Pci(_) => Doorbell {
                address: Driver::BASE_ADDRESS + part::NOTIFY + u64::from(queue_index) * 4,
                value: None,
            },
        }
    }

    /// Says which vector the configuration has, where there are vectors.
    pub fn use_interrupts(&mut self) {
        if let Self::Pci(machine) = self {
            machine.set_common_u16(0x10, CONFIGURATION_VECTOR);
            assert_eq!(machine.common_u16(0x10), CONFIGURATION_VECTOR);
        }
    }

    /// Says which vector the selected queue has, where there are vectors.
    pub fn use_queue_interrupt(&mut self, queue_index: u32) {
        if let Self::Pci(machine) = self {
            machine.set_common_u16(0x1a, u16::try_from(queue_index).unwrap() + 1);
        }
    }

    /// What the interrupts since the last look say, if there were any: 1 for used buffers, 2 for the
    /// configuration.
    pub fn take_interrupts(&mut self) -> Option<u32> {
        match self {
            Self::Mmio {
                transport,
                interrupt,
            } => {
                interrupt.read().ok()?;
                let mut bits = [0; 4];
                transport.read(register::INTERRUPT_STATUS, &mut bits);
                let _effect = transport.write(register::INTERRUPT_ACK, &bits);
                Some(u32::from_le_bytes(bits))
            }
            Self::Pci(machine) => machine
                .messages
                .take()
                .into_iter()
                .map(|vector| if vector == 0 { 2 } else { 1 })
                .reduce(|bits, bit| bits | bit),
        }
    }
}

/// Where a register of MMIO is on PCI: offset and width in bytes.
fn on_pci(register: u64, value: u64) -> Option<(u64, usize)> {
    Some(match register {
        register::DEVICE_FEATURES_SEL => (0x00, 4),
        register::DEVICE_FEATURES => (0x04, 4),
        register::DRIVER_FEATURES_SEL => (0x08, 4),
        register::DRIVER_FEATURES => (0x0c, 4),
        register::STATUS => (0x14, 1),
        register::CONFIG_GENERATION => (0x15, 1),
        register::QUEUE_SEL => (0x16, 2),
        register::QUEUE_SIZE_MAX | register::QUEUE_SIZE => (0x18, 2),
        register::QUEUE_READY => (0x1c, 2),
        register::QUEUE_NOTIFY => (part::NOTIFY + value * 4, 2),
        0x80 | 0x84 | 0x90 | 0x94 | 0xa0 | 0xa4 => {
            (0x20 + (register - 0x80) / 0x10 * 8 + register % 0x10, 4)
        }
        register::CONFIG.. => {
            let offset = register - register::CONFIG;
            (part::DEVICE + (offset < 0x1000).then_some(offset)?, 8)
        }
        _ => return None,
    })
}

impl MmioDevice for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Mmio { transport, .. } => transport.read(offset, data),
            Self::Pci(machine) => {
                data.fill(0);
                if let Some((at, width)) = on_pci(offset, 0) {
                    let width = width.min(data.len());
                    machine.read(Driver::BASE_ADDRESS + at, &mut data[..width]);
                }
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match self {
            Self::Mmio { transport, .. } => transport.write(offset, data),
            Self::Pci(machine) => {
                let value = data
                    .iter()
                    .rev()
                    .fold(0, |all, byte| all << 8 | u64::from(*byte));
                match on_pci(offset, value) {
                    // A queue that has no doorbell.
                    Some((at, _)) if at >= part::MSIX_TABLE => {}
                    Some((at, width)) => {
                        let width = width.min(data.len());
                        machine.write(Driver::BASE_ADDRESS + at, &data[..width]);
                    }
                    None => {}
                }
                Effect::None
            }
        }
    }
}
