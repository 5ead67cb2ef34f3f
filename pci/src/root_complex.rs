//! The root complex of one segment: its functions, and where the guest has put their registers (PCI
//! Express Base Specification 5.0, 1.3.1 and 7.2).
//!
//! Made before the guest starts; from then on shared by the vCPU threads. Functions are on the root bus,
//! the host bridge as the first of them, or each alone on a bus behind a root port. An access takes the
//! lock of its function alone: the routes from addresses to functions are read for a moment before that,
//! and written when a guest moves registers or turns their decoding on or off.

mod place;
mod slots;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bus::{Effect, RangeMap};

use crate::address::FunctionAddress;
use crate::bar::Bar;
use crate::bridge;
use crate::function::Function;
use crate::host_bridge::HostBridge;
use crate::lock::lock;
use crate::root_port::RootPort;
use crate::window::Windows;
use place::Place;
pub use slots::AttachError;
use slots::PortPlace;

/// Devices of a bus.
const DEVICES: u8 = 32;
/// The bus of the host bridge and the root ports.
const ROOT_BUS: u8 = 0;
/// What is behind a port is one device: the link has two ends (PCIe 5.0, 7.3.1).
const DEVICE_BEHIND: u8 = 0;
/// Bytes of a root port's window, for the registers of one device.
const PORT_WINDOW_BYTES: u64 = 2 << 20;
/// No bridge is between the root bus and its functions.
const EVERYWHERE: Range<u64> = 0..u64::MAX;
/// Nothing gets through.
const NOWHERE: Range<u64> = 0..0;

/// Why a function could not be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// All 32 devices of the bus are there.
    #[error("a PCI bus has no more than {DEVICES} devices")]
    BusFull,
    /// The windows have no room for the registers.
    #[error("there are no addresses left for {} bytes of registers", bar.size_bytes)]
    NoAddresses {
        /// The registers.
        bar: Bar,
    },
    /// The windows have no room for what a port forwards.
    #[error("there are no addresses left for {PORT_WINDOW_BYTES} bytes behind a root port")]
    NoWindow,
}

/// A root complex with its functions.
#[derive(Debug)]
pub struct RootComplex {
    segment: u16,
    /// By their device number.
    devices: Vec<Device>,
    /// How many of them are root ports.
    ports: u8,
    windows: Windows,
    routes: RwLock<RangeMap<BarRoute>>,
}

/// A device of the root bus.
#[derive(Debug)]
enum Device {
    Function(Place),
    Port(PortPlace),
}

/// The way to a function.
#[derive(Debug, Clone, Copy)]
struct Route {
    /// The device of the root bus.
    device: usize,
    /// The function is behind it.
    behind: bool,
}

/// Whose registers are in a range of addresses.
#[derive(Debug, Clone, Copy)]
struct BarRoute {
    to: Route,
    bar: usize,
}

impl RootComplex {
    /// The root complex of `segment`, with nothing but its host bridge.
    pub fn new(segment: u16, windows: Windows) -> Self {
        let host_bridge = Place::new(Arc::new(Mutex::new(HostBridge::default())));
        Self {
            segment,
            devices: vec![Device::Function(host_bridge)],
            ports: 0,
            windows,
            routes: RwLock::default(),
        }
    }

    /// Which segment this is.
    pub const fn segment(&self) -> u16 {
        self.segment
    }

    /// The windows, in which all registers are.
    pub const fn windows(&self) -> &Windows {
        &self.windows
    }

    /// The device number that the next [`add`](Self::add) gives.
    pub fn next_device(&self) -> u8 {
        u8::try_from(self.devices.len()).unwrap_or(u8::MAX)
    }

    /// The last bus that the root complex gives a number to: 0 without root ports.
    pub const fn last_bus(&self) -> u8 {
        self.ports
    }

    /// Adds function 0 of the next device, and gives its registers addresses as firmware would. They are
    /// not decoded before the guest says so.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] when the bus is full, or the windows are.
    pub fn add(
        &mut self,
        function: Arc<Mutex<dyn Function>>,
    ) -> Result<FunctionAddress, PlaceError> {
        let address = self.next_address()?;
        let place = Place::new(function);
        place
            .assign(|bar| self.windows.allocate(bar))
            .map_err(|bar| PlaceError::NoAddresses { bar })?;
        self.devices.push(Device::Function(place));
        Ok(address)
    }

    /// Adds a root port as the next device, and gives it a bus and a window as firmware would. It forwards
    /// from the start.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] when the bus is full, or the windows are.
    pub fn add_port(&mut self, mut port: RootPort) -> Result<FunctionAddress, PlaceError> {
        let address = self.next_address()?;
        let start = self
            .windows
            .allocate_below(PORT_WINDOW_BYTES, bridge::WINDOW_GRANULARITY_BYTES);
        let start = start.ok_or(PlaceError::NoWindow)?;
        self.ports = self.ports.saturating_add(1);
        port.assign(
            self.ports,
            &(start..start.saturating_add(PORT_WINDOW_BYTES)),
        );
        self.devices.push(Device::Port(PortPlace::new(port)));
        Ok(address)
    }

    fn next_address(&self) -> Result<FunctionAddress, PlaceError> {
        let device = self.next_device();
        if device >= DEVICES {
            return Err(PlaceError::BusFull);
        }
        Ok(FunctionAddress {
            segment: self.segment,
            ..FunctionAddress::on_root_bus(device)
        })
    }

    /// The device of the root bus that is at `address`, or leads there, with its index.
    fn find(&self, address: FunctionAddress) -> Option<(usize, &Device)> {
        if (address.segment, address.function) != (self.segment, 0) {
            return None;
        }
        if address.bus == ROOT_BUS {
            let index = usize::from(address.device);
            return Some((index, self.devices.get(index)?));
        }
        let leads_there = |(_, device): &(usize, &Device)| match device {
            Device::Port(port) => port.leads_to(address.bus),
            Device::Function(_) => false,
        };
        let devices = self.devices.iter().enumerate();
        let found = devices.into_iter().find(leads_there);
        found.filter(|_| address.device == DEVICE_BEHIND)
    }

    /// Fills `data` from the configuration space of a function, from `register` on: with ones where no
    /// function is (PCIe 5.0, 2.3.2), or when the access has not 1, 2 or 4 bytes of one doubleword.
    pub fn read_config(&self, address: FunctionAddress, register: u16, data: &mut [u8]) {
        data.fill(0xff);
        if !is_within_doubleword(register, data.len()) {
            return;
        }
        // No extended capabilities (7.6.2).
        let is_extended = register >= 0x100;
        let read = |function: &Mutex<dyn Function>, data: &mut [u8]| match is_extended {
            true => data.fill(0),
            false => lock(function).read_config(register, data),
        };
        match self.find(address) {
            Some((_, Device::Function(place))) => read(&place.function, data),
            Some((_, Device::Port(port))) if address.bus == ROOT_BUS => match is_extended {
                true => data.fill(0),
                false => port.read_config(register, data),
            },
            Some((_, Device::Port(port))) => {
                if let Some(place) = port.behind().as_ref() {
                    read(&place.function, data);
                }
            }
            None => {}
        }
    }

    /// Takes a write to the configuration space of a function; as [`read_config`](Self::read_config),
    /// with nothing done where that reads ones.
    pub fn write_config(&self, address: FunctionAddress, register: u16, data: &[u8]) -> Effect {
        if register >= 0x100 || !is_within_doubleword(register, data.len()) {
            return Effect::None;
        }
        let write = |device: usize, behind: bool, place: &Place, reach: &dyn Fn() -> Range<u64>| {
            let mut function = lock(&place.function);
            let effect = function.write_config(register, data);
            self.follow(Route { device, behind }, place, &reach(), &mut *function);
            effect
        };
        match self.find(address) {
            Some((index, Device::Function(place))) => write(index, false, place, &|| EVERYWHERE),
            Some((index, Device::Port(port))) if address.bus == ROOT_BUS => {
                self.write_port(index, port, register, data);
                Effect::None
            }
            Some((index, Device::Port(port))) => match port.behind().as_ref() {
                Some(place) => write(index, true, place, &|| port.forwarded_memory()),
                None => Effect::None,
            },
            None => Effect::None,
        }
    }

    /// Brings the routes of a function to where its base address registers are: those that are decoded and
    /// within a window, and within `reach`, the addresses that bridges let through. Where two overlap, the first keeps the addresses; the other is reached once they
    /// are free and its configuration space is written again.
    ///
    /// The function knows of addresses for no longer than they are its own: it hears that they are gone
    /// before another function can have them, and of new ones when they are its.
    fn follow(&self, to: Route, place: &Place, reach: &Range<u64>, function: &mut dyn Function) {
        let mut routed = lock(&place.routed);
        let wanted = |bar: usize, function: &dyn Function| {
            let decoded = function.configuration().decoded(bar);
            decoded.filter(|range| {
                let reached = reach.start <= range.start && range.end <= reach.end;
                reached && self.windows.contain(range)
            })
        };
        for (bar, place) in routed.iter_mut().enumerate() {
            let start = wanted(bar, function).map(|range| range.start);
            if *place != start
                && let Some(old) = place.take()
            {
                function.bar_moved(bar, None);
                let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
                routes.remove(old);
            }
        }
        for (bar, place) in routed.iter_mut().enumerate() {
            if place.is_none()
                && let Some(range) = wanted(bar, function)
            {
                let length = range.end.saturating_sub(range.start);
                let route = BarRoute { to, bar };
                let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
                let inserted = routes.insert(range.start, length, route);
                drop(routes);
                if inserted.is_ok() {
                    *place = Some(range.start);
                    function.bar_moved(bar, *place);
                }
            }
        }
    }

    /// Lets `access` at the function whose registers are at `address`, with the base address register that
    /// they belong to and the offset in them.
    fn access<T>(
        &self,
        address: u64,
        length: usize,
        access: impl FnOnce(&mut dyn Function, usize, u64) -> T,
    ) -> Option<T> {
        let length = u64::try_from(length).ok()?;
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let (route, offset) = routes.find(address, length)?;
        let BarRoute { to, bar } = *route;
        drop(routes);
        let start = address.checked_sub(offset)?;
        let access = |function: &mut dyn Function| access(function, bar, offset);
        match (self.devices.get(to.device)?, to.behind) {
            (Device::Function(place), false) => place.access(bar, start, access),
            (Device::Port(port), true) => port.behind().as_ref()?.access(bar, start, access),
            _ => None,
        }
    }

    /// Fills `data` from the registers at `address`; leaves it as it is where there are none.
    pub fn read_bar(&self, address: u64, data: &mut [u8]) {
        let _nobody = self.access(address, data.len(), |function, bar, offset| {
            function.read_bar(bar, offset, data);
        });
    }

    /// Hands `data` to the registers at `address`, if there are any.
    pub fn write_bar(&self, address: u64, data: &[u8]) -> Effect {
        self.access(address, data.len(), |function, bar, offset| {
            function.write_bar(bar, offset, data)
        })
        .unwrap_or_default()
    }
}

fn is_within_doubleword(register: u16, length: usize) -> bool {
    let start = usize::from(register % 4);
    matches!(length, 1 | 2 | 4) && start.saturating_add(length) <= 4
}

#[cfg(test)]
mod tests;
