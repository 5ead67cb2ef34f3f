//! The root complex of one segment: its functions, and where the guest has put their registers (PCI
//! Express Base Specification 5.0, 1.3.1 and 7.2).
//!
//! Made before the guest starts; from then on shared by the vCPU threads. Functions are on the root bus,
//! the host bridge as the first of them. An access takes the lock of its function alone: the routes from
//! addresses to functions are read for a moment before that, and written when a guest moves registers or
//! turns their decoding on or off.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bus::{Effect, RangeMap};

use crate::address::FunctionAddress;
use crate::bar::{BARS, Bar, BarWidth};
use crate::configuration::bar_offset;
use crate::function::Function;
use crate::host_bridge::HostBridge;
use crate::lock::lock;
use crate::window::Windows;

/// Devices of a bus.
const DEVICES: u8 = 32;
/// The bus of all functions.
const ROOT_BUS: u8 = 0;

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
}

/// A root complex with its functions.
#[derive(Debug)]
pub struct RootComplex {
    segment: u16,
    /// By their device number.
    slots: Vec<Slot>,
    windows: Windows,
    routes: RwLock<RangeMap<Route>>,
}

#[derive(Debug)]
struct Slot {
    function: Arc<Mutex<dyn Function>>,
    /// Where each base address register is in the routes. Taken under the function's lock.
    routed: Mutex<[Option<u64>; BARS]>,
}

/// Whose registers are in a range of addresses.
#[derive(Debug, Clone, Copy)]
struct Route {
    slot: usize,
    bar: usize,
}

impl RootComplex {
    /// The root complex of `segment`, with nothing but its host bridge.
    pub fn new(segment: u16, windows: Windows) -> Self {
        let host_bridge = Slot {
            function: Arc::new(Mutex::new(HostBridge::default())),
            routed: Mutex::default(),
        };
        Self {
            segment,
            slots: vec![host_bridge],
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
        u8::try_from(self.slots.len()).unwrap_or(u8::MAX)
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
        let device = self.next_device();
        if device >= DEVICES {
            return Err(PlaceError::BusFull);
        }
        let mut locked = lock(&function);
        for index in 0..BARS {
            let Some(bar) = locked.configuration().bar(index) else {
                continue;
            };
            let address = self.windows.allocate(bar);
            let address = address.ok_or(PlaceError::NoAddresses { bar })?;
            let registers = match bar.width {
                BarWidth::Bits32 => 1,
                BarWidth::Bits64 => 2,
            };
            let offsets = (u16::from(bar_offset(index))..).step_by(4);
            for (offset, half) in offsets.zip(address.to_le_bytes().chunks(4)).take(registers) {
                // A function that does not start yet asks for nothing.
                let _none = locked.write_config(offset, half);
            }
        }
        drop(locked);
        self.slots.push(Slot {
            function,
            routed: Mutex::default(),
        });
        Ok(FunctionAddress {
            segment: self.segment,
            ..FunctionAddress::on_root_bus(device)
        })
    }

    fn slot(&self, address: FunctionAddress) -> Option<(usize, &Slot)> {
        let here = (self.segment, ROOT_BUS, 0);
        if (address.segment, address.bus, address.function) != here {
            return None;
        }
        let index = usize::from(address.device);
        Some((index, self.slots.get(index)?))
    }

    /// Fills `data` from the configuration space of a function, from `register` on: with ones where no
    /// function is (PCIe 5.0, 2.3.2), or when the access has not 1, 2 or 4 bytes of one doubleword.
    pub fn read_config(&self, address: FunctionAddress, register: u16, data: &mut [u8]) {
        data.fill(0xff);
        if !is_within_doubleword(register, data.len()) {
            return;
        }
        if let Some((_, slot)) = self.slot(address) {
            match register {
                0..0x100 => lock(&slot.function).read_config(register, data),
                // No extended capabilities (7.6.2).
                _ => data.fill(0),
            }
        }
    }

    /// Takes a write to the configuration space of a function; as [`read_config`](Self::read_config),
    /// with nothing done where that reads ones.
    pub fn write_config(&self, address: FunctionAddress, register: u16, data: &[u8]) -> Effect {
        if register >= 0x100 || !is_within_doubleword(register, data.len()) {
            return Effect::None;
        }
        let Some((index, slot)) = self.slot(address) else {
            return Effect::None;
        };
        let mut function = lock(&slot.function);
        let effect = function.write_config(register, data);
        self.follow(index, slot, &mut *function);
        effect
    }

    /// Brings the routes of a function to where its base address registers are: those that are decoded and
    /// within a window. Where two overlap, the first keeps the addresses; the other is reached once they
    /// are free and its configuration space is written again.
    ///
    /// The function knows of addresses for no longer than they are its own: it hears that they are gone
    /// before another function can have them, and of new ones when they are its.
    fn follow(&self, index: usize, slot: &Slot, function: &mut dyn Function) {
        let mut routed = lock(&slot.routed);
        let wanted = |bar: usize, function: &dyn Function| {
            let decoded = function.configuration().decoded(bar);
            decoded.filter(|range| self.windows.contain(range))
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
                let route = Route { slot: index, bar };
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

    /// The function whose registers are at `address`, which base address register they belong to, and the
    /// offset in them.
    fn route(&self, address: u64, length: usize) -> Option<(&Mutex<dyn Function>, usize, u64)> {
        let length = u64::try_from(length).ok()?;
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let (route, offset) = routes.find(address, length)?;
        let slot = self.slots.get(route.slot)?;
        Some((&slot.function, route.bar, offset))
    }

    /// Fills `data` from the registers at `address`; leaves it as it is where there are none.
    pub fn read_bar(&self, address: u64, data: &mut [u8]) {
        if let Some((function, bar, offset)) = self.route(address, data.len()) {
            lock(function).read_bar(bar, offset, data);
        }
    }

    /// Hands `data` to the registers at `address`, if there are any.
    pub fn write_bar(&self, address: u64, data: &[u8]) -> Effect {
        match self.route(address, data.len()) {
            Some((function, bar, offset)) => lock(function).write_bar(bar, offset, data),
            None => Effect::None,
        }
    }
}

fn is_within_doubleword(register: u16, length: usize) -> bool {
    let start = usize::from(register % 4);
    matches!(length, 1 | 2 | 4) && start.saturating_add(length) <= 4
}

#[cfg(test)]
mod tests;
