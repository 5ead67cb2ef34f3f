//! virtio devices as functions on PCI: the root complex with its windows, configuration ports and ECAM, and
//! a function for each device on its root bus.
//!
//! Nothing of it is known to KVM before a driver starts a device: messages are sent by an ioctl, and the
//! buses are this process's.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use arch::layout::{self, gsi, port};
use arch::memory_map::MemoryMap;
use bus::{DoorbellRegistry, IrqLine, MmioBus, PioBus};
use devices::ResetRegister;
use kvm_ioctls::VmFd;
use pci::{
    BarWindow, ConfigurationPorts, EcamWindow, EndpointKind, RootComplex, SharedIrqLine, Windows,
    intx_pin,
};
use virtio::VirtioDevice;
use virtio::transport::{PciInterrupts, PciTransport};

use super::doorbells::Doorbells;
use crate::error::VmmError;
use crate::interrupts::Interrupts;
use crate::memory::GuestMemory;

/// The one segment.
const SEGMENT: u16 = 0;
/// There are no bridges, and so no bus but the root bus.
const LAST_BUS: u8 = 0;

/// The functions, and what a guest has to be told of them.
pub type Placed = (Vec<Arc<Mutex<PciTransport>>>, PciPlaces);

/// What a guest has to be told of the root complex.
#[derive(Debug)]
pub struct PciPlaces {
    windows: Vec<Range<u64>>,
    pins: Vec<(u8, u32)>,
}

impl PciPlaces {
    /// As the tables tell it.
    pub fn host(&self) -> boot::acpi::PciHost<'_> {
        boot::acpi::PciHost {
            segment: SEGMENT,
            ecam: layout::PCI_ECAM.start,
            last_bus: LAST_BUS,
            windows: &self.windows,
            pins: &self.pins,
        }
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
}

impl PciSetup<'_> {
    /// Places `devices` in their order, from device 1 on, and the root complex on the buses.
    ///
    /// # Errors
    ///
    /// [`VmmError::Host`] when there is no room, or something else is there already.
    pub fn place(
        &self,
        devices: Vec<Box<dyn VirtioDevice>>,
        pio: &mut PioBus,
        mmio: &mut MmioBus,
    ) -> Result<Placed, VmmError> {
        let above = self.map.high_window(self.physical_address_bits);
        let windows = Windows::new(layout::PCI_WINDOW, above)
            .ok_or_else(|| VmmError::host(std::io::Error::other("PCI has no addresses")))?;
        let mut complex = RootComplex::new(SEGMENT, windows);
        let doorbells: Arc<dyn DoorbellRegistry> = Arc::new(Doorbells::new(Arc::clone(self.vm)));
        let messages = self.interrupts.messages();
        let mut wires = [const { None }; gsi::PCI.len()];
        let (mut transports, mut pins) = (Vec::with_capacity(devices.len()), Vec::new());
        for device in devices {
            let number = complex.next_device();
            let (pin, gsi) = self.pin(number, &mut wires);
            let interrupts = PciInterrupts {
                messages: Arc::clone(&messages),
                pin,
                interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
            };
            let memory = Arc::clone(self.memory);
            let kind = EndpointKind::Integrated;
            let doorbells = Arc::clone(&doorbells);
            let transport = PciTransport::new(device, kind, memory, interrupts, doorbells);
            let transport = Arc::new(Mutex::new(transport.map_err(VmmError::host)?));
            complex.add(transport.clone()).map_err(VmmError::host)?;
            transports.push(transport);
            pins.push((number, gsi));
        }
        let windows = complex.windows().ranges().collect();
        insert(Arc::new(complex), pio, mmio)?;
        Ok((transports, PciPlaces { windows, pins }))
    }

    /// The INTA# of a device, and the interrupt that it ends on.
    fn pin(
        &self,
        device: u8,
        wires: &mut [Option<Arc<SharedIrqLine>>; gsi::PCI.len()],
    ) -> (Arc<dyn IrqLine>, u32) {
        let index = usize::from(intx_pin(device));
        let gsi = gsi::PCI[index];
        let wire =
            wires[index].get_or_insert_with(|| SharedIrqLine::new(self.interrupts.line(gsi)));
        (wire.pin(), gsi)
    }
}

/// Puts the root complex on the buses.
fn insert(complex: Arc<RootComplex>, pio: &mut PioBus, mmio: &mut MmioBus) -> Result<(), VmmError> {
    for window in complex.windows().ranges() {
        let length = window.end - window.start;
        let registers = BarWindow::new(Arc::clone(&complex), window.start);
        mmio.insert_window(window.start, length, Arc::new(registers))
            .map_err(VmmError::host)?;
    }
    let ecam = EcamWindow::new(Arc::clone(&complex));
    let length = layout::PCI_ECAM_BUS_BYTES * (u64::from(LAST_BUS) + 1);
    mmio.insert_window(layout::PCI_ECAM.start, length, Arc::new(ecam))
        .map_err(VmmError::host)?;
    let ports = ConfigurationPorts::new(complex, Box::new(ResetRegister::new()));
    let range = port::PCI_CONFIGURATION;
    let ports = Arc::new(Mutex::new(ports));
    pio.insert(range.start, range.end - range.start, ports)
        .map_err(VmmError::host)
}
