//! The registers of a device on either transport, as a driver uses them.

use std::sync::{Arc, Mutex};

use bus::{MmioDevice, UnconnectedIrqLine};
use pci::{
    EndpointKind, FunctionAddress, RootComplex, RootPort, RootPortOptions, SlotListener, Windows,
};
use virtio::transport::{MmioTransport, PciInterrupts, PciTransport};
use virtio::{GuestMemory, VirtioDevice};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{Input, Sink};

/// Where registers are, and the window of the root port where there is one.
const BASE: u64 = 0xc000_0000;
const WINDOW_BYTES: u64 = 4 << 20;
/// The root port, device 1 of the root bus.
const PORT: u8 = 1;

/// A register that both transports have: offset on MMIO, offset and bytes in the common configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field(u64, u64, usize);

impl Field {
    pub(super) const DEVICE_SELECT: Self = Self(0x14, 0x00, 4);
    pub(super) const DEVICE_FEATURES: Self = Self(0x10, 0x04, 4);
    pub(super) const DRIVER_SELECT: Self = Self(0x24, 0x08, 4);
    pub(super) const DRIVER_FEATURES: Self = Self(0x20, 0x0c, 4);
    pub(super) const STATUS: Self = Self(0x70, 0x14, 1);
    pub(super) const QUEUE_SELECT: Self = Self(0x30, 0x16, 2);
    pub(super) const QUEUE_SIZE: Self = Self(0x38, 0x18, 2);
    pub(super) const QUEUE_READY: Self = Self(0x44, 0x1c, 2);
    pub(super) const QUEUE_AREAS: [Self; 3] = [
        Self(0x80, 0x20, 4),
        Self(0x90, 0x28, 4),
        Self(0xa0, 0x30, 4),
    ];
}

/// A device on its transport.
pub(super) enum Transport {
    Mmio(MmioTransport),
    Pci(PciMachine),
}

/// A root complex with a device on its root bus, or behind a root port.
pub(super) struct PciMachine {
    complex: RootComplex,
    address: FunctionAddress,
    transport: Arc<Mutex<PciTransport>>,
}

#[derive(Debug)]
struct Nobody;

impl SlotListener for Nobody {
    fn removal_permitted(&self) {}
}

impl PciMachine {
    fn new(device: Box<dyn VirtioDevice>, memory: Arc<GuestMemory>, behind_port: bool) -> Self {
        let interrupts = PciInterrupts {
            messages: Arc::new(Sink),
            pin: Arc::new(UnconnectedIrqLine),
            interrupt_line: 16,
        };
        let kind = match behind_port {
            true => EndpointKind::Linked,
            false => EndpointKind::Integrated,
        };
        let transport = PciTransport::new(device, kind, memory, interrupts, Arc::new(Sink));
        let transport = transport.expect("a function").with_packed_rings(true);
        let transport = Arc::new(Mutex::new(transport));
        let windows = Windows::new(BASE..BASE + WINDOW_BYTES, None).expect("a window");
        let mut complex = RootComplex::new(0, windows);
        let address = match behind_port {
            false => complex.add(transport.clone()).expect("room"),
            true => {
                let port = RootPort::new(RootPortOptions {
                    slot_number: 1,
                    messages: Arc::new(Sink),
                    pin: Arc::new(UnconnectedIrqLine),
                    interrupt_line: 16,
                    listener: Arc::new(Nobody),
                });
                complex.add_port(port.expect("a port")).expect("room");
                complex
                    .attach_at_start(PORT, transport.clone())
                    .expect("an empty slot");
                FunctionAddress {
                    bus: 1,
                    ..FunctionAddress::on_root_bus(0)
                }
            }
        };
        Self {
            complex,
            address,
            transport,
        }
    }

    /// What firmware does: the device is there and awake, its registers are where they were at first, and
    /// it may access memory.
    fn set_up(&self) {
        if self.address.bus != 0 {
            let port = FunctionAddress::on_root_bus(PORT);
            let write = |register, data: &[u8]| {
                let _effect = self.complex.write_config(port, register, data);
            };
            write(0x18, &[0, 1, 1, 0]);
            write(0x20, &[0x00, 0xc0, 0x10, 0xc0]);
            write(0x3e, &[0; 2]);
            write(4, &[6, 0]);
            // It may be there already.
            let _occupied = self.complex.attach(PORT, self.transport.clone());
        }
        wake(&self.complex, self.address);
        let base = u32::try_from(BASE).expect("a low address").to_le_bytes();
        for (register, data) in [(0x10, &base[..]), (0x14, &[0; 4]), (4, &[6, 4])] {
            let _effect = self.complex.write_config(self.address, register, data);
        }
    }

    fn configure(&self, input: &mut Input<'_>) {
        let kind = input.byte();
        let offset = u16::from(input.byte());
        let length = input.one_of(&[4, 2, 1]);
        let value = input.double().to_le_bytes();
        let behind_port = self.address.bus != 0;
        match kind {
            0xe0..0xf0 if behind_port => {
                self.complex.detach(PORT);
            }
            0xf0.. if behind_port => {
                let _occupied = self.complex.attach(PORT, self.transport.clone());
            }
            _ => {
                let address = match kind {
                    0xc0..0xe0 => FunctionAddress::on_root_bus(PORT),
                    _ => self.address,
                };
                let data = &value[..length];
                let _effect = self.complex.write_config(address, offset, data);
                let mut read = [0; 4];
                let read = &mut read[..length];
                self.complex.read_config(address, offset, read);
            }
        }
    }
}

impl Transport {
    /// On which transport an input's first byte says.
    pub(super) fn new(kind: u8, device: Box<dyn VirtioDevice>, memory: Arc<GuestMemory>) -> Self {
        if kind & 4 != 0 {
            return Self::Pci(PciMachine::new(device, memory, kind & 0x20 != 0));
        }
        let event = EventFd::new(EFD_NONBLOCK).expect("an event");
        let transport = MmioTransport::new(device, memory, BASE, event, Arc::new(Sink));
        Self::Mmio(transport.with_packed_rings(true))
    }

    pub(super) fn read(&mut self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Mmio(transport) => transport.read(offset & 0xfff, data),
            Self::Pci(machine) => machine.complex.read_bar(BASE + offset, data),
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let _effect = match self {
            Self::Mmio(transport) => transport.write(offset & 0xfff, data),
            Self::Pci(machine) => machine.complex.write_bar(BASE + offset, data),
        };
    }

    pub(super) fn get(&mut self, field: Field) -> u64 {
        let mut data = [0; 8];
        match self {
            Self::Mmio(_) => self.read(field.0, &mut data[..4]),
            Self::Pci(_) => self.read(field.1, &mut data[..field.2]),
        }
        u64::from_le_bytes(data)
    }

    pub(super) fn set(&mut self, field: Field, value: u64) {
        let data = value.to_le_bytes();
        match self {
            Self::Mmio(_) => self.write(field.0, &data[..4]),
            Self::Pci(_) => self.write(field.1, &data[..field.2]),
        }
    }

    /// Rings for a queue.
    pub(super) fn kick(&mut self, queue: u64) {
        match self {
            Self::Mmio(_) => self.write(0x50, &queue.to_le_bytes()[..4]),
            Self::Pci(_) => self.write(0x3000 + 4 * queue, &[0; 2]),
        }
    }

    /// As the machine does it.
    pub(super) fn pause_and_resume(&mut self) {
        match self {
            Self::Mmio(transport) => {
                transport.pause();
                transport.resume();
            }
            Self::Pci(machine) => {
                let mut transport = machine.transport.lock().expect("no panic");
                transport.pause();
                transport.resume();
            }
        }
    }

    /// Makes the registers reachable, whatever was done before.
    pub(super) fn set_up(&self) {
        if let Self::Pci(machine) = self {
            machine.set_up();
        }
    }

    /// Something in the configuration space, or the coming and going of the function.
    pub(super) fn configure(&self, input: &mut Input<'_>) {
        if let Self::Pci(machine) = self {
            machine.configure(input);
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
