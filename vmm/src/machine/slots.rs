//! The hot-plug slots of a machine: a root port for each, and the device that is behind it at present.
//!
//! The driver's thread attaches and detaches, while vCPUs run or stand.

use std::sync::{Arc, Mutex, PoisonError};

use pci::{EndpointKind, RootComplex, SharedIrqLine, SlotListener};
use virtio::VirtioDevice;
use virtio::transport::PciTransport;

use super::virtio_pci::PciMaker;
use crate::error::VmmError;
use crate::events::{EventQueue, Request};

/// Devices, each with the index of its slot.
pub type SlotDevices = Vec<(usize, Box<dyn VirtioDevice>)>;

/// What the slots of a machine have from the start, and who hears of them.
#[derive(Debug)]
pub struct SlotSetup {
    /// How many there are.
    pub count: u8,
    /// Devices that are there when the guest starts.
    pub devices: SlotDevices,
    /// Where permissions of the guest go.
    pub events: Arc<EventQueue>,
    /// Which incarnation of the machine this is.
    pub incarnation: u64,
}

/// The slots, by their index from 0 on.
#[derive(Debug)]
pub struct Slots {
    complex: Arc<RootComplex>,
    maker: PciMaker,
    slots: Vec<Slot>,
}

/// A slot and its root port.
#[derive(Debug)]
pub struct Slot {
    /// The root port.
    pub device: u8,
    /// What INTA# ends on, that of the port and of what is behind it.
    pub wire: Arc<SharedIrqLine>,
    /// The number of that interrupt.
    pub gsi: u32,
    /// The device.
    pub transport: Option<Arc<Mutex<PciTransport>>>,
}

impl Slots {
    /// The slots of `complex`, with nothing in them.
    pub const fn new(complex: Arc<RootComplex>, maker: PciMaker, slots: Vec<Slot>) -> Self {
        Self {
            complex,
            maker,
            slots,
        }
    }

    /// Puts `device` into a slot, before the guest starts.
    ///
    /// # Errors
    ///
    /// [`VmmError::Host`] when the slot is not empty, or the host refuses something.
    pub fn attach_at_start(
        &mut self,
        slot: usize,
        device: Box<dyn VirtioDevice>,
    ) -> Result<(), VmmError> {
        self.insert(slot, device, RootComplex::attach_at_start)
    }

    /// Puts `device` into a slot, and tells the guest.
    ///
    /// # Errors
    ///
    /// [`VmmError::Host`] when the slot is not empty, or the host refuses something.
    pub fn attach(&mut self, slot: usize, device: Box<dyn VirtioDevice>) -> Result<(), VmmError> {
        self.insert(slot, device, RootComplex::attach)
    }

    fn insert(
        &mut self,
        slot: usize,
        device: Box<dyn VirtioDevice>,
        insert: impl FnOnce(
            &RootComplex,
            u8,
            Arc<Mutex<dyn pci::Function>>,
        ) -> Result<(), pci::AttachError>,
    ) -> Result<(), VmmError> {
        let no_slot = || VmmError::host(pci::AttachError::NoSlot);
        let slot = self.slots.get_mut(slot).ok_or_else(no_slot)?;
        let kind = EndpointKind::Linked;
        let transport = self.maker.transport(device, kind, &slot.wire, slot.gsi)?;
        insert(&self.complex, slot.device, transport.clone()).map_err(VmmError::host)?;
        slot.transport = Some(transport);
        Ok(())
    }

    /// Asks the guest for a slot's device: whether it may be taken away at once. If not,
    /// [`Request::SlotReleased`] comes when it may.
    pub fn request_removal(&self, slot: usize) -> bool {
        let port = self.slots.get(slot).map(|slot| slot.device);
        port.is_none_or(|port| self.complex.request_removal(port).unwrap_or(true))
    }

    /// Whether the guest permits that a slot's device is taken away.
    pub fn removal_is_permitted(&self, slot: usize) -> bool {
        let port = self.slots.get(slot).map(|slot| slot.device);
        port.is_some_and(|port| self.complex.removal_is_permitted(port))
    }

    /// Takes [`request_removal`](Self::request_removal) back.
    pub fn withdraw_request(&self, slot: usize) {
        if let Some(slot) = self.slots.get(slot) {
            self.complex.withdraw_request(slot.device);
        }
    }

    /// Takes a slot's device away, whatever the guest does with it, and tells the guest. The device is gone
    /// when this returns, with its doorbells and its interrupts.
    pub fn detach(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            drop(self.complex.detach(slot.device));
            slot.transport = None;
        }
    }

    /// Stops the devices that their drivers have started, with nothing in flight. The vCPUs stand.
    pub fn pause(&self) {
        self.each(PciTransport::pause);
    }

    /// Lets paused devices go on.
    pub fn resume(&self) {
        self.each(PciTransport::resume);
    }

    fn each(&self, action: impl Fn(&mut PciTransport)) {
        for transport in self.slots.iter().filter_map(|slot| slot.transport.as_ref()) {
            action(&mut transport.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Brings a guest's permission to the machine's driver. There is at most one for each request of the
/// driver's.
#[derive(Debug)]
pub struct SlotEvents {
    /// Where it goes.
    pub events: Arc<EventQueue>,
    /// Which incarnation of the machine this is.
    pub incarnation: u64,
    /// Which slot.
    pub slot: usize,
}

impl SlotListener for SlotEvents {
    fn removal_permitted(&self) {
        self.events.push(Request::SlotReleased {
            incarnation: self.incarnation,
            slot: self.slot,
        });
    }
}
