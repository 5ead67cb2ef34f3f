//! Devices on the port I/O and the memory-mapped I/O bus, and the buses.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{RangeMap, RangeMapError};

/// What a guest's write asks of the machine. The vCPU thread carries it out after it has dropped the
/// device's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "the machine has to carry an effect out"]
pub enum Effect {
    /// Nothing beyond the device itself.
    #[default]
    None,
    /// The guest turned its power off (ACPI S5).
    PowerOff,
    /// The guest asked for a reset (keyboard controller, reset register).
    Reset,
    /// The guest says that it has crashed (pvpanic).
    Crash,
}

/// A device with port I/O registers.
///
/// Called by a vCPU thread, which holds this device's lock and no other. `offset` counts bytes from
/// the start of the range with which the device was placed; an access never leaves that range.
/// `data` has 1, 2 or 4 bytes, little endian. A guest can call with any offset, length and value.
pub trait PioDevice: Debug + Send {
    /// Answers a read. `data` comes filled with ones, the value of a port that nothing drives.
    fn read(&mut self, offset: u16, data: &mut [u8]);

    /// Takes a write.
    fn write(&mut self, offset: u16, data: &[u8]) -> Effect;
}

/// A device with memory-mapped registers.
///
/// Called as [`PioDevice`] is; `data` has 1 to 8 bytes.
pub trait MmioDevice: Debug + Send {
    /// Answers a read. `data` comes filled with ones, the value of an address that nothing drives.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes a write.
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect;
}

/// A range of memory-mapped I/O whose devices come, go and move while the guest runs, such as a window
/// of a PCI root complex.
///
/// Called by vCPU threads, several at once: it finds the device and takes that device's lock, and holds
/// no lock of its own while the device answers. `offset` and `data` are as for [`MmioDevice`].
pub trait MmioWindow: Debug + Send + Sync {
    /// Answers a read, as [`MmioDevice::read`] does.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes a write.
    fn write(&self, offset: u64, data: &[u8]) -> Effect;
}

/// The port I/O space: 64 Ki ports.
#[derive(Default)]
pub struct PioBus {
    devices: RangeMap<Arc<Mutex<dyn PioDevice>>>,
}

/// The memory-mapped I/O space.
#[derive(Default)]
pub struct MmioBus {
    devices: RangeMap<MmioPlace>,
}

/// What a range of the memory-mapped I/O space has.
#[derive(Debug)]
enum MmioPlace {
    Device(Arc<Mutex<dyn MmioDevice>>),
    Window(Arc<dyn MmioWindow>),
}

impl PioBus {
    /// Places `device` on the `length` ports from `start`.
    ///
    /// # Errors
    ///
    /// [`RangeMapError`] when the range is empty, goes beyond port 0xffff or overlaps another.
    pub fn insert(
        &mut self,
        start: u16,
        length: u16,
        device: Arc<Mutex<dyn PioDevice>>,
    ) -> Result<(), RangeMapError> {
        let (start, length) = (u64::from(start), u64::from(length));
        if start.saturating_add(length) > 0x1_0000 {
            return Err(RangeMapError::Invalid { start, length });
        }
        self.devices.insert(start, length, device)
    }

    /// Fills `data` from the device at `port`; with ones where there is none.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.devices.find(u64::from(port), length_of(data)) {
            lock(device).read(low_16_bits(offset), data);
        }
    }

    /// Hands `data` to the device at `port`, if there is one.
    pub fn write(&self, port: u16, data: &[u8]) -> Effect {
        match self.devices.find(u64::from(port), length_of(data)) {
            Some((device, offset)) => lock(device).write(low_16_bits(offset), data),
            None => Effect::None,
        }
    }
}

impl MmioBus {
    /// Places `device` on the `length` bytes from the guest-physical address `start`.
    ///
    /// # Errors
    ///
    /// [`RangeMapError`] when the range is empty, leaves the address space or overlaps another.
    pub fn insert(
        &mut self,
        start: u64,
        length: u64,
        device: Arc<Mutex<dyn MmioDevice>>,
    ) -> Result<(), RangeMapError> {
        self.devices
            .insert(start, length, MmioPlace::Device(device))
    }

    /// Places `window` on the `length` bytes from the guest-physical address `start`.
    ///
    /// # Errors
    ///
    /// As for [`insert`](Self::insert).
    pub fn insert_window(
        &mut self,
        start: u64,
        length: u64,
        window: Arc<dyn MmioWindow>,
    ) -> Result<(), RangeMapError> {
        self.devices
            .insert(start, length, MmioPlace::Window(window))
    }

    /// Fills `data` from the device at `address`; with ones where there is none.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        match self.devices.find(address, length_of(data)) {
            Some((MmioPlace::Device(device), offset)) => lock(device).read(offset, data),
            Some((MmioPlace::Window(window), offset)) => window.read(offset, data),
            None => {}
        }
    }

    /// Hands `data` to the device at `address`, if there is one.
    pub fn write(&self, address: u64, data: &[u8]) -> Effect {
        match self.devices.find(address, length_of(data)) {
            Some((MmioPlace::Device(device), offset)) => lock(device).write(offset, data),
            Some((MmioPlace::Window(window), offset)) => window.write(offset, data),
            None => Effect::None,
        }
    }
}

impl Debug for PioBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("PioBus")
            .field(&self.devices)
            .finish()
    }
}

impl Debug for MmioBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("MmioBus")
            .field(&self.devices)
            .finish()
    }
}

/// A device whose thread panicked is still the device that the guest sees: its lock is taken as it is.
fn lock<T: ?Sized>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

fn length_of(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

/// Offsets on the port bus come from ports, which have 16 bits.
fn low_16_bits(offset: u64) -> u16 {
    u16::try_from(offset).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
