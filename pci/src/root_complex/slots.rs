//! Devices behind root ports: how they come and go.
//!
//! Called by the machine's driver, before the guest starts or while it runs.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::place::Place;
use super::{Device, NOWHERE, PlaceError, RootComplex, Route};
use crate::bridge::Forwarding;
use crate::function::Function;
use crate::lock::lock;
use crate::root_port::RootPort;

/// A root port, and what is behind it.
#[derive(Debug)]
pub(super) struct PortPlace {
    port: Arc<Mutex<RootPort>>,
    /// What the port forwards: written under its lock, read under that of the function behind it.
    forwarding: Mutex<Forwarding>,
    /// Changed under the port's lock. Held while the function is used: once a device is taken out, nobody
    /// is at it any more.
    behind: RwLock<Option<Place>>,
}

/// Why a device could not be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// There is no root port at that place.
    #[error("there is no slot")]
    NoSlot,
    /// There is a device already.
    #[error("the slot is taken")]
    Occupied,
    /// The slot's window has no room for the device's registers.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl PortPlace {
    pub(super) fn new(port: RootPort) -> Self {
        Self {
            forwarding: Mutex::new(port.forwarding()),
            port: Arc::new(Mutex::new(port)),
            behind: RwLock::new(None),
        }
    }

    /// Whether the bus behind the port is `bus`.
    pub(super) fn leads_to(&self, bus: u8) -> bool {
        bus != 0 && lock(&self.forwarding).secondary_bus == bus
    }

    pub(super) fn behind(&self) -> RwLockReadGuard<'_, Option<Place>> {
        self.behind.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn behind_mut(&self) -> RwLockWriteGuard<'_, Option<Place>> {
        self.behind.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forwarded_memory(&self) -> std::ops::Range<u64> {
        lock(&self.forwarding).memory.clone()
    }

    pub(super) fn read_config(&self, offset: u16, data: &mut [u8]) {
        lock(&self.port).read_config(offset, data);
    }
}

impl RootComplex {
    /// Takes a write to the configuration space of the port that is device `index`.
    pub(super) fn write_port(&self, index: usize, place: &PortPlace, offset: u16, data: &[u8]) {
        let mut port = lock(&place.port);
        port.write_config(offset, data);
        self.follow_port(index, place, &port);
    }

    /// Brings what is behind a port to where the port's guest wants it.
    fn follow_port(&self, index: usize, place: &PortPlace, port: &RootPort) {
        let now = port.forwarding();
        let before = std::mem::replace(&mut *lock(&place.forwarding), now.clone());
        if before == now {
            return;
        }
        let behind = place.behind();
        let Some(behind) = behind.as_ref() else {
            return;
        };
        let mut function = lock(&behind.function);
        if now.in_reset && !before.in_reset {
            function.reset();
        }
        if now.requests != before.requests {
            function.requests_forwarded(now.requests);
        }
        let route = Route {
            device: index,
            behind: true,
        };
        self.follow(route, behind, &now.memory, &mut *function);
    }

    /// Puts `function` behind the root port that is device `device`, before the guest starts, with
    /// addresses as firmware would give them.
    ///
    /// # Errors
    ///
    /// [`AttachError`] where it cannot be.
    pub fn attach_at_start(
        &self,
        device: u8,
        function: Arc<Mutex<dyn Function>>,
    ) -> Result<(), AttachError> {
        let (index, place) = self.port(device).ok_or(AttachError::NoSlot)?;
        let function = Place::new(function);
        let window = place.forwarded_memory();
        let mut next = window.start;
        function
            .assign(|bar| {
                let start = next.checked_next_multiple_of(bar.size_bytes)?;
                next = start.checked_add(bar.size_bytes)?;
                (next <= window.end).then_some(start)
            })
            .map_err(|bar| PlaceError::NoAddresses { bar })?;
        self.insert(index, place, function, RootPort::insert_at_start)
    }

    /// Puts `function` behind the root port that is device `device`, and tells the guest.
    ///
    /// # Errors
    ///
    /// [`AttachError`] where it cannot be.
    pub fn attach(
        &self,
        device: u8,
        function: Arc<Mutex<dyn Function>>,
    ) -> Result<(), AttachError> {
        let (index, place) = self.port(device).ok_or(AttachError::NoSlot)?;
        self.insert(index, place, Place::new(function), |port| {
            port.set_present(true);
        })
    }

    fn insert(
        &self,
        index: usize,
        place: &PortPlace,
        function: Place,
        tell: impl FnOnce(&mut RootPort),
    ) -> Result<(), AttachError> {
        let mut port = lock(&place.port);
        let mut behind = place.behind_mut();
        if behind.is_some() {
            return Err(AttachError::Occupied);
        }
        let forwarding = port.forwarding();
        lock(&function.function).requests_forwarded(forwarding.requests);
        let inserted = behind.insert(function);
        let mut locked = lock(&inserted.function);
        let route = Route {
            device: index,
            behind: true,
        };
        self.follow(route, inserted, &forwarding.memory, &mut *locked);
        drop(locked);
        drop(behind);
        tell(&mut port);
        Ok(())
    }

    /// Asks the guest for the device behind the root port that is device `device`: whether it may be taken
    /// away at once. If not, the port's listener hears when it may.
    ///
    /// # Errors
    ///
    /// [`AttachError::NoSlot`] when there is no root port.
    pub fn request_removal(&self, device: u8) -> Result<bool, AttachError> {
        let (_, place) = self.port(device).ok_or(AttachError::NoSlot)?;
        Ok(lock(&place.port).request_removal())
    }

    /// Whether the guest permits that the device behind the root port that is device `device` is taken
    /// away.
    pub fn removal_is_permitted(&self, device: u8) -> bool {
        self.port(device)
            .is_some_and(|(_, place)| lock(&place.port).removal_is_permitted())
    }

    /// Takes [`request_removal`](Self::request_removal) back: the device stays. A guest that has begun to
    /// give it up is told so.
    pub fn withdraw_request(&self, device: u8) {
        if let Some((_, place)) = self.port(device) {
            lock(&place.port).withdraw_request();
        }
    }

    /// Takes the function behind the root port that is device `device` away, whatever its guest does with
    /// it, and tells the guest. It is reset, and nobody uses it any more, when this returns.
    pub fn detach(&self, device: u8) -> Option<Arc<Mutex<dyn Function>>> {
        let (index, place) = self.port(device)?;
        let mut port = lock(&place.port);
        let removed = place.behind_mut().take()?;
        let mut function = lock(&removed.function);
        function.reset();
        let route = Route {
            device: index,
            behind: true,
        };
        self.follow(route, &removed, &NOWHERE, &mut *function);
        drop(function);
        port.set_present(false);
        Some(removed.function)
    }

    fn port(&self, device: u8) -> Option<(usize, &PortPlace)> {
        let index = usize::from(device);
        match self.devices.get(index)? {
            Device::Port(place) => Some((index, place)),
            Device::Function(_) => None,
        }
    }
}
