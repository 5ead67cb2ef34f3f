//! virtio over PCI (virtio 1.3, 4.1), modern devices alone: a function with one range of registers, whose
//! parts its capabilities name, and with a vector for each queue.
//!
//! | offset | what |
//! |---|---|
//! | 0x0000 | common configuration (4.1.4.3) |
//! | 0x1000 | ISR status (4.1.4.5) |
//! | 0x2000 | configuration space of the device (4.1.4.6) |
//! | 0x3000 | doorbells, four bytes for each queue (4.1.4.4) |
//! | 0x4000 | MSI-X table |
//! | 0x6000 | MSI-X pending bits |
//!
//! Each part has pages of its own, so that a guest can map one without the others. The root complex calls
//! the transport on vCPU threads, one at a time; what the registers mean is in the core that all
//! transports share.

mod capability;
mod common;
mod identity;
mod interrupt;

use std::sync::Arc;

use bus::{DoorbellRegistry, Effect, IrqLine, MsiSink};
use pci::{
    Bar, BarWidth, ConfigWrite, ConfigurationError, ConfigurationSpace, Endpoint, EndpointKind,
    Function, Intx, Msix, MsixPlace,
};

use super::core::{DoorbellPlace, TransportCore};
use crate::{GuestMemory, VirtioDevice, feature};
use capability::{CapabilityWindow, Region};
use interrupt::PciInterrupt;

/// The base address register of all registers.
const BAR: u8 = 0;
/// Bytes behind it.
const BAR_BYTES: u64 = 0x8000;
/// The parts that capabilities name: kind, offset, length.
const COMMON: Region = Region {
    kind: 1,
    offset: 0x0000,
    length: common::LENGTH,
};
const NOTIFY: Region = Region {
    kind: 2,
    offset: 0x3000,
    length: 0x1000,
};
const ISR: Region = Region {
    kind: 3,
    offset: 0x1000,
    length: 1,
};
const DEVICE: Region = Region {
    kind: 4,
    offset: 0x2000,
    length: 0x1000,
};
/// Bytes from one queue's doorbell to the next one's.
const NOTIFY_MULTIPLIER: u32 = 4;
const MSIX_TABLE: u64 = 0x4000;
const MSIX_PENDING: u64 = 0x6000;
/// The most vectors: the table's two pages. Queues beyond that share them, as their driver chooses.
const VECTORS_MAX: usize = 512;

/// The interrupts of a function, as the machine lends them.
#[derive(Debug)]
pub struct PciInterrupts {
    /// Where messages go.
    pub messages: Arc<dyn MsiSink>,
    /// The function's pin, for guests that do not use MSI-X.
    pub pin: Arc<dyn IrqLine>,
    /// What the function's interrupt line register says at first.
    pub interrupt_line: u8,
}

/// A virtio device as a function on PCI.
#[derive(Debug)]
pub struct PciTransport {
    core: TransportCore<PciInterrupt>,
    endpoint: Endpoint,
    window: CapabilityWindow,
}

impl PciTransport {
    /// A function for `device`, on the root bus or behind a port as `kind` says. `doorbells` takes the writes to its doorbells off the bus while the device
    /// is started.
    ///
    /// # Errors
    ///
    /// None that a caller can cause: the capabilities fit into the configuration space.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        kind: EndpointKind,
        memory: Arc<GuestMemory>,
        interrupts: PciInterrupts,
        doorbells: Arc<dyn DoorbellRegistry>,
    ) -> Result<Self, ConfigurationError> {
        let mut endpoint = Endpoint::new(identity::of(&*device), kind)?;
        endpoint.add_bar(
            usize::from(BAR),
            Bar {
                size_bytes: BAR_BYTES,
                width: BarWidth::Bits64,
                prefetchable: false,
            },
        )?;
        for region in [COMMON, ISR, DEVICE] {
            capability::add(&mut endpoint, region, &[])?;
        }
        capability::add(&mut endpoint, NOTIFY, &NOTIFY_MULTIPLIER.to_le_bytes())?;
        let window = CapabilityWindow::add(&mut endpoint)?;

        let queues = device.queue_max_sizes().len();
        // One for each queue, and one for changes of the configuration.
        let vectors = queues.saturating_add(1).min(VECTORS_MAX);
        let vectors = u16::try_from(vectors).unwrap_or(u16::MAX);
        let msix = Arc::new(Msix::new(vectors, interrupts.messages));
        let place = MsixPlace {
            bar: BAR,
            table_offset: low_32_bits(MSIX_TABLE),
            pending_offset: low_32_bits(MSIX_PENDING),
        };
        endpoint.add_msix(Arc::clone(&msix), place)?;
        let intx = Arc::new(Intx::new(interrupts.pin));
        endpoint.set_intx(Arc::clone(&intx), interrupts.interrupt_line);
        let mut core = TransportCore::new(
            device,
            memory,
            doorbells,
            PciInterrupt::new(msix, intx, queues),
            DoorbellPlace::Nowhere,
            feature::RING_RESET,
        );
        core.set_bus_master(endpoint.is_bus_master());
        Ok(Self {
            core,
            endpoint,
            window,
        })
    }

    /// Whether drivers may choose packed rings (virtio 1.3, 2.8) rather than split ones. At first they may
    /// not.
    #[must_use]
    pub fn with_packed_rings(mut self, offered: bool) -> Self {
        self.core.offer_packed_rings(offered);
        self
    }

    /// Stops the device, with its requests completed, so that nothing touches guest memory. The
    /// driver does not notice. Does nothing when the device is not started. No vCPU may run from here
    /// to [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.core.pause();
    }

    /// Goes on after [`pause`](Self::pause): what the driver made available meanwhile is served.
    pub fn resume(&mut self) {
        self.core.resume();
    }

    fn interrupt(&self) -> &PciInterrupt {
        &self.core.link.notifier
    }

    fn read_registers(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = COMMON.offset_of(offset) {
            self.read_common(offset, data);
        } else if let Some(offset) = DEVICE.offset_of(offset) {
            self.core.read_config(offset, data);
        } else if ISR.offset_of(offset).is_some() {
            data.fill(0);
            if let Some(first) = data.first_mut() {
                *first = self.interrupt().take_status();
            }
        } else if let Some(offset) = offset.checked_sub(MSIX_PENDING) {
            self.interrupt().msix.read_pending(offset, data);
        } else if let Some(offset) = offset.checked_sub(MSIX_TABLE) {
            self.interrupt().msix.read_table(offset, data);
        } else {
            // Doorbells among others.
            data.fill(0);
        }
    }

    fn write_registers(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = COMMON.offset_of(offset) {
            self.write_common(offset, data);
        } else if let Some(offset) = DEVICE.offset_of(offset) {
            self.core.write_config(offset, data);
        } else if let Some(offset) = NOTIFY.offset_of(offset) {
            // The address alone says which queue (4.1.5.2).
            let queue = offset.checked_div(u64::from(NOTIFY_MULTIPLIER));
            if offset.is_multiple_of(u64::from(NOTIFY_MULTIPLIER))
                && let Some(queue) = queue.and_then(|queue| u32::try_from(queue).ok())
            {
                self.core.ring_doorbell(queue);
            }
        } else if offset < MSIX_PENDING
            && let Some(offset) = offset.checked_sub(MSIX_TABLE)
        {
            self.interrupt().msix.write_table(offset, data);
        }
    }
}

impl Function for PciTransport {
    fn configuration(&self) -> &ConfigurationSpace {
        self.endpoint.configuration()
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if let Some(access) = self.window.access(&self.endpoint, offset, data.len()) {
            // What is read stays in the capability (4.1.4.9.1).
            let mut value = [0; 4];
            if let Some(value) = value.get_mut(..access.length) {
                self.read_registers(access.offset, value);
            }
            self.window.store(&mut self.endpoint, value);
        }
        self.endpoint.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) -> Effect {
        match self.endpoint.write(offset, data) {
            ConfigWrite::Done => {}
            ConfigWrite::Reset => self.reset(),
        }
        // When this returns nothing writes to guest memory that may not: a kernel that hands the machine
        // to the next one relies on nothing else.
        self.core.set_bus_master(self.endpoint.is_bus_master());
        if let Some(access) = self.window.access(&self.endpoint, offset, data.len()) {
            let value = self.window.load(&self.endpoint);
            if let Some(value) = value.get(..access.length) {
                self.write_registers(access.offset, value);
            }
        }
        Effect::None
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.read_registers(offset, data);
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) -> Effect {
        self.write_registers(offset, data);
        Effect::None
    }

    fn bar_moved(&mut self, _bar: usize, address: Option<u64>) {
        let first = address.and_then(|address| address.checked_add(u64::from(NOTIFY.offset)));
        let place = first.map_or(DoorbellPlace::Nowhere, DoorbellPlace::Own);
        self.core.move_doorbells(place);
    }

    fn reset(&mut self) {
        self.core.reset();
        self.endpoint.reset();
        self.core.set_bus_master(self.endpoint.is_bus_master());
    }

    fn requests_forwarded(&mut self, forwarded: bool) {
        self.endpoint.set_requests_forwarded(forwarded);
        self.core.set_bus_master(self.endpoint.is_bus_master());
    }
}

fn low_32_bits(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

#[cfg(test)]
mod tests;
