//! The configuration space of a function: 256 bytes, of which a guest may write some bits (PCI Local Bus
//! Specification 3.0, 6; PCI Express Base Specification 5.0, 7.5). The extended space above them is empty
//! for every function here, and reads as zeros (7.6.2).
//!
//! This is storage with masks. What a write means is for its owner, the function, under whose lock it is.

use std::ops::Range;

use crate::bar::{BARS, Bar, BarWidth};
use crate::header::{self, Identity, register};

/// Bytes that are stored.
const BYTES: usize = 256;

/// Which capability this is (PCI Code and ID Assignment Specification 1.11, 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CapabilityId {
    /// Power states.
    PowerManagement = 0x01,
    /// A message-signalled interrupt.
    Msi = 0x05,
    /// Whatever the function's vendor says; its third byte is its length.
    Vendor = 0x09,
    /// PCI Express.
    Express = 0x10,
    /// Message-signalled interrupts with a table.
    MsiX = 0x11,
}

/// Why a configuration space cannot have what a function asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// The capabilities take more than the space after the header.
    #[error("there is no room for a capability of {length} bytes")]
    NoRoom {
        /// Its length in bytes.
        length: usize,
    },
    /// A base address register with an impossible size, or in a place that is taken or not there.
    #[error("base address register {index} cannot be {bar:?}")]
    Bar {
        /// Index of the register.
        index: usize,
        /// What it was to be.
        bar: Bar,
    },
}

/// The bytes of a configuration space.
#[derive(Debug, Clone)]
pub struct ConfigurationSpace {
    bytes: [u8; BYTES],
    /// Bits that a guest's write changes.
    writable: [u8; BYTES],
    /// What a reset brings back.
    initial: [u8; BYTES],
    bars: [Option<Bar>; BARS],
    /// The function sleeps: it decodes nothing and sends nothing.
    asleep: bool,
    /// Where the offset of the next capability goes.
    link: usize,
    /// First byte after the last capability.
    end: usize,
}

impl ConfigurationSpace {
    /// A function without registers and capabilities.
    pub fn new(identity: Identity) -> Self {
        const TYPE_0: u8 = 0;
        let mut space = Self::without_subsystem(identity, TYPE_0);
        let subsystem_vendor = identity.subsystem_vendor_id.to_le_bytes();
        space.put(register::SUBSYSTEM_VENDOR_ID, &subsystem_vendor);
        space.put(register::SUBSYSTEM_ID, &identity.subsystem_id.to_le_bytes());
        space
    }

    /// What headers of all types have.
    pub(crate) fn without_subsystem(identity: Identity, header_type: u8) -> Self {
        let mut space = Self {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            initial: [0; BYTES],
            bars: [None; BARS],
            asleep: false,
            link: usize::from(register::CAPABILITIES),
            end: usize::from(register::HEADER_END),
        };
        let [base, sub, interface] = identity.class;
        space.put(register::VENDOR_ID, &identity.vendor_id.to_le_bytes());
        space.put(register::DEVICE_ID, &identity.device_id.to_le_bytes());
        space.put(register::REVISION_ID, &[identity.revision_id]);
        space.put(register::CLASS_CODE, &[interface, sub, base]);
        space.put(register::HEADER_TYPE, &[header_type]);
        for (offset, mask) in header::WRITABLE {
            space.allow(usize::from(offset), &mask.to_le_bytes());
        }
        space
    }

    /// Gives the function a range of registers at base address register `index`.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::Bar`] when its size is impossible, or its place taken or not there.
    pub fn add_bar(&mut self, index: usize, bar: Bar) -> Result<(), ConfigurationError> {
        let refused = ConfigurationError::Bar { index, bar };
        let registers = match bar.width {
            BarWidth::Bits32 => 1,
            BarWidth::Bits64 => 2,
        };
        let taken = |index: usize| {
            let before = index.checked_sub(1).and_then(|before| self.bar(before));
            self.bar(index).is_some()
                || before.is_some_and(|before| before.width == BarWidth::Bits64)
        };
        let end = index.saturating_add(registers);
        if !bar.is_valid() || end > BARS || (index..end).any(taken) {
            return Err(refused);
        }
        let offset = bar_offset(index);
        let mask = bar.address_mask().to_le_bytes();
        self.put(offset, &[bar.flags()]);
        let writable = mask.get(..registers.saturating_mul(4)).unwrap_or(&mask);
        self.allow(usize::from(offset), writable);
        if let Some(place) = self.bars.get_mut(index) {
            *place = Some(bar);
        }
        Ok(())
    }

    /// Appends a capability with `body` after its identifier and link, of which a guest may change the
    /// bits set in `writable`. Gives the offset of `body`.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::NoRoom`] when the space is full.
    pub fn add_capability(
        &mut self,
        id: CapabilityId,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u8, ConfigurationError> {
        let length = body.len().saturating_add(2);
        let no_room = ConfigurationError::NoRoom { length };
        let start = self.end;
        // Each begins at a doubleword (PCI 3.0, 6.7).
        let end = start.saturating_add(length).next_multiple_of(4);
        let offset = u8::try_from(start).map_err(|_| no_room)?;
        if end > BYTES {
            return Err(no_room);
        }
        let body_offset = offset.saturating_add(2);
        self.put(offset, &[id as u8]);
        self.put(body_offset, body);
        self.allow(usize::from(body_offset), writable);
        let link = u8::try_from(self.link).unwrap_or(register::CAPABILITIES);
        self.put(link, &[offset]);
        self.put(
            register::STATUS,
            &header::status::CAPABILITIES.to_le_bytes(),
        );
        self.link = start.saturating_add(1);
        self.end = end;
        Ok(body_offset)
    }

    /// Sets what is read, and comes back by a reset, at `offset`.
    pub(crate) fn put(&mut self, offset: u8, data: &[u8]) {
        let offset = usize::from(offset);
        for bytes in [&mut self.bytes, &mut self.initial] {
            let places = bytes.iter_mut().skip(offset);
            places.zip(data).for_each(|(place, byte)| *place = *byte);
        }
    }

    /// Sets which bits a guest's write changes, at `offset`.
    pub(crate) fn allow(&mut self, offset: usize, mask: &[u8]) {
        let places = self.writable.iter_mut().skip(offset);
        places.zip(mask).for_each(|(place, bits)| *place = *bits);
    }

    /// Fills `data` from `offset` on; with zeros beyond the 256 bytes.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(0);
        let bytes = self.bytes.iter().skip(usize::from(offset));
        data.iter_mut()
            .zip(bytes)
            .for_each(|(place, byte)| *place = *byte);
    }

    /// Takes a guest's write: bits that are not writable stay as they are.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let places = self.bytes.iter_mut().zip(&self.writable);
        let places = places.skip(usize::from(offset));
        for ((place, mask), byte) in places.zip(data) {
            *place = *place & !mask | byte & mask;
        }
    }

    /// Brings back what was there before the guest's first write: address and command are 0.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
        self.asleep = false;
    }

    /// Whether the function sleeps, in power state D3hot.
    pub(crate) const fn is_asleep(&self) -> bool {
        self.asleep
    }

    pub(crate) const fn set_asleep(&mut self, asleep: bool) {
        self.asleep = asleep;
    }

    /// The number of `N` bytes at `offset`.
    pub fn number<const N: usize>(&self, offset: u8) -> u64 {
        let mut wide = [0; 8];
        let bytes = self.bytes.iter().skip(usize::from(offset)).take(N);
        wide.iter_mut()
            .zip(bytes)
            .for_each(|(place, byte)| *place = *byte);
        u64::from_le_bytes(wide)
    }

    /// Whether all `bits` of the command register are set, see [`header::command`].
    pub fn has_command(&self, bits: u16) -> bool {
        self.number::<2>(register::COMMAND) & u64::from(bits) == u64::from(bits)
    }

    /// The registers at base address register `index`.
    pub fn bar(&self, index: usize) -> Option<Bar> {
        self.bars.get(index).copied().flatten()
    }

    /// The addresses that base address register `index` claims now: `None` without registers there, while
    /// memory is not decoded or the function sleeps, or at the end of the address space.
    pub fn decoded(&self, index: usize) -> Option<Range<u64>> {
        let bar = self.bar(index)?;
        if self.asleep || !self.has_command(header::command::MEMORY) {
            return None;
        }
        let offset = bar_offset(index);
        let value = match bar.width {
            BarWidth::Bits32 => self.number::<4>(offset),
            BarWidth::Bits64 => self.number::<8>(offset),
        };
        let start = value & bar.address_mask();
        Some(start..start.checked_add(bar.size_bytes)?)
    }
}

/// Offset of base address register `index`.
pub(crate) fn bar_offset(index: usize) -> u8 {
    let index = u8::try_from(index).unwrap_or(u8::MAX);
    register::BAR_0.saturating_add(index.saturating_mul(4))
}

#[cfg(test)]
mod tests;
