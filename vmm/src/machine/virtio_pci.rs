//! virtio devices as functions on PCI: the root complex with its windows, configuration ports and ECAM, and
//! a function for each device on its root bus, or behind a root port for each slot.
//!
//! Nothing of it is known to KVM before a driver starts a device: messages are sent by an ioctl, and the
//! buses are this process's.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use arch::layout::{self, gsi, port};
use arch::memory_map::MemoryMap;
use bus::{DoorbellRegistry, MmioBus, MsiSink, PioBus};
use devices::ResetRegister;
use kvm_ioctls::VmFd;
use pci::{
    BarWindow, ConfigurationPorts, EcamWindow, EndpointKind, RootComplex, RootPort,
    RootPortOptions, SharedIrqLine, Windows, intx_pin,
};
use virtio::VirtioDevice;
use virtio::transport::{PciInterrupts, PciTransport};

use super::doorbells::Doorbells;
use super::slots::{Slot, SlotEvents, SlotSetup, Slots};
use crate::error::VmmError;
use crate::interrupts::Interrupts;
use crate::memory::GuestMemory;

/// The one segment.
const SEGMENT: u16 = 0;

/// What a guest finds on PCI.
#[derive(Debug)]
pub struct Placed {
    /// The functions from the start.
    pub transports: Vec<Arc<Mutex<PciTransport>>>,
    /// The slots, where there are any.
    pub slots: Option<Slots>,
    /// What the guest has to be told.
    pub places: PciPlaces,
}

/// What a guest has to be told of the root complex.
#[derive(Debug)]
pub struct PciPlaces {
    windows: Vec<Range<u64>>,
    pins: Vec<(u8, u32)>,
    last_bus: u8,
    hot_plug: bool,
}

impl PciPlaces {
    /// As the tables tell it.
    pub fn host(&self) -> boot::acpi::PciHost<'_> {
        boot::acpi::PciHost {
            segment: SEGMENT,
            ecam: layout::PCI_ECAM.start,
            last_bus: self.last_bus,
            windows: &self.windows,
            hot_plug: self.hot_plug,
            pins: &self.pins,
        }
    }
}

/// What functions are made with, from the start and later.
#[derive(Debug)]
pub struct PciMaker {
    memory: GuestMemory,
    messages: Arc<dyn MsiSink>,
    doorbells: Arc<dyn DoorbellRegistry>,
    packed_rings: bool,
}

impl PciMaker {
    /// A function for `device`, whose pin ends on `wire`, the interrupt `gsi`.
    ///
    /// # Errors
    ///
    /// None that a caller can cause.
    pub fn transport(
        &self,
        device: Box<dyn VirtioDevice>,
        kind: EndpointKind,
        wire: &Arc<SharedIrqLine>,
        gsi: u32,
    ) -> Result<Arc<Mutex<PciTransport>>, VmmError> {
        let interrupts = PciInterrupts {
            messages: Arc::clone(&self.messages),
            pin: wire.pin(),
            interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
        };
        let memory = Arc::clone(&self.memory);
        let doorbells = Arc::clone(&self.doorbells);
        let transport = PciTransport::new(device, kind, memory, interrupts, doorbells);
        let transport = transport.map_err(VmmError::host)?;
        let transport = transport.with_packed_rings(self.packed_rings);
        Ok(Arc::new(Mutex::new(transport)))
    }
}

/// What the functions and the root complex are made with.
#[derive(Debug)]
pub struct PciSetup<'a> {
    /// The machine.
    pub vm: &'a Arc<VmFd>,
    /// Its memory.
    pub memory: &'a GuestMemory,
    /// Where its memory lies.
    pub map: &'a MemoryMap,
    /// Width of a guest-physical address.
    pub physical_address_bits: u8,
    /// Its interrupt controllers.
    pub interrupts: &'a Interrupts,
    /// Whether drivers are offered packed rings.
    pub packed_rings: bool,
}

impl PciSetup<'_> {
    /// Places `devices` in their order, from device 1 on, then the ports of the slots, and the root complex
    /// on the buses.
    ///
    /// # Errors
    ///
    /// [`VmmError::Host`] when there is no room, or something else is there already.
    pub fn place(
        &self,
        devices: Vec<Box<dyn VirtioDevice>>,
        setup: SlotSetup,
        pio: &mut PioBus,
        mmio: &mut MmioBus,
    ) -> Result<Placed, VmmError> {
        let above = self.map.high_window(self.physical_address_bits);
        let windows = Windows::new(layout::PCI_WINDOW, above)
            .ok_or_else(|| VmmError::host(std::io::Error::other("PCI has no addresses")))?;
        let mut complex = RootComplex::new(SEGMENT, windows);
        let maker = PciMaker {
            memory: Arc::clone(self.memory),
            messages: self.interrupts.messages(),
            doorbells: Arc::new(Doorbells::new(Arc::clone(self.vm))),
            packed_rings: self.packed_rings,
        };
        let mut wires = Wires::default();
        let (mut transports, mut pins) = (Vec::with_capacity(devices.len()), Vec::new());
        for device in devices {
            let number = complex.next_device();
            let (wire, gsi) = wires.of(number, self.interrupts);
            let transport = maker.transport(device, EndpointKind::Integrated, &wire, gsi)?;
            complex.add(transport.clone()).map_err(VmmError::host)?;
            transports.push(transport);
            pins.push((number, gsi));
        }
        let mut ports = Vec::with_capacity(usize::from(setup.count));
        for slot in 0..setup.count {
            let number = complex.next_device();
            let (wire, gsi) = wires.of(number, self.interrupts);
            let port = RootPort::new(RootPortOptions {
                slot_number: u16::from(slot) + 1,
                messages: Arc::clone(&maker.messages),
                pin: wire.pin(),
                interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
                listener: Arc::new(SlotEvents {
                    events: Arc::clone(&setup.events),
                    incarnation: setup.incarnation,
                    slot: usize::from(slot),
                }),
            });
            complex
                .add_port(port.map_err(VmmError::host)?)
                .map_err(VmmError::host)?;
            ports.push(Slot {
                device: number,
                wire,
                gsi,
                transport: None,
            });
            pins.push((number, gsi));
        }
        let places = PciPlaces {
            windows: complex.windows().ranges().collect(),
            pins,
            last_bus: complex.last_bus(),
            hot_plug: !ports.is_empty(),
        };
        let complex = Arc::new(complex);
        insert(&complex, pio, mmio)?;
        let mut slots = (!ports.is_empty()).then(|| Slots::new(complex, maker, ports));
        for (slot, device) in setup.devices {
            if let Some(slots) = &mut slots {
                slots.attach_at_start(slot, device)?;
            }
        }
        Ok(Placed {
            transports,
            slots,
            places,
        })
    }
}

/// The wires that pins end on, made as they are needed.
#[derive(Debug, Default)]
struct Wires([Option<Arc<SharedIrqLine>>; gsi::PCI.len()]);

impl Wires {
    /// What INTA# of a device ends on, and which interrupt that is.
    fn of(&mut self, device: u8, interrupts: &Interrupts) -> (Arc<SharedIrqLine>, u32) {
        let index = usize::from(intx_pin(device));
        let gsi = gsi::PCI[index];
        let wire = self.0[index].get_or_insert_with(|| SharedIrqLine::new(interrupts.line(gsi)));
        (Arc::clone(wire), gsi)
    }
}

/// Puts the root complex on the buses.
fn insert(
    complex: &Arc<RootComplex>,
    pio: &mut PioBus,
    mmio: &mut MmioBus,
) -> Result<(), VmmError> {
    for window in complex.windows().ranges() {
        let length = window.end - window.start;
        let registers = BarWindow::new(Arc::clone(complex), window.start);
        mmio.insert_window(window.start, length, Arc::new(registers))
            .map_err(VmmError::host)?;
    }
    let ecam = EcamWindow::new(Arc::clone(complex));
    let length = layout::PCI_ECAM_BUS_BYTES * (u64::from(complex.last_bus()) + 1);
    mmio.insert_window(layout::PCI_ECAM.start, length, Arc::new(ecam))
        .map_err(VmmError::host)?;
    let ports = ConfigurationPorts::new(Arc::clone(complex), Box::new(ResetRegister::new()));
    let range = port::PCI_CONFIGURATION;
    let ports = Arc::new(Mutex::new(ports));
    pio.insert(range.start, range.end - range.start, ports)
        .map_err(VmmError::host)
}
