//! The capabilities that tell a driver where the parts of the device are (virtio 1.3, 4.1.4), and the one
//! through which it can reach them without mapping anything (4.1.4.9).

use pci::{CapabilityId, ConfigurationError, Endpoint};

use super::{BAR, BAR_BYTES};

/// Kind of the capability that is a window to the others.
const WINDOW: u8 = 5;
/// Bytes of `struct virtio_pci_cap` after identifier and link: length, kind, base address register,
/// identifier, two bytes of padding, offset, length.
const BODY_BYTES: usize = 14;
/// In the body: the base address register.
const BAR_OFFSET: u8 = 2;
/// In the body: the offset.
const OFFSET_OFFSET: u8 = 6;
/// In the body: the length.
const LENGTH_OFFSET: u8 = 10;
/// In the body of the window: the data.
const DATA_OFFSET: u8 = 14;

/// A part of the registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region {
    /// Which part (4.1.4, `cfg_type`).
    pub kind: u8,
    /// Where it begins.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
}

impl Region {
    /// Where `offset`, from the start of all registers, is in this part.
    pub(super) fn offset_of(self, offset: u64) -> Option<u64> {
        let offset = offset.checked_sub(u64::from(self.offset))?;
        (offset < u64::from(self.length)).then_some(offset)
    }
}

/// Appends the capability of `region`, with `extra` behind it.
pub(super) fn add(
    endpoint: &mut Endpoint,
    region: Region,
    extra: &[u8],
) -> Result<u8, ConfigurationError> {
    let body = body(region, extra);
    endpoint.add_capability(CapabilityId::Vendor, &body, &[])
}

fn body(region: Region, extra: &[u8]) -> Vec<u8> {
    let length = BODY_BYTES.saturating_add(2).saturating_add(extra.len());
    let length = u8::try_from(length).unwrap_or(u8::MAX);
    let mut body = vec![length, region.kind, BAR, 0, 0, 0];
    body.extend(region.offset.to_le_bytes());
    body.extend(region.length.to_le_bytes());
    body.extend(extra);
    body
}

/// Where the window is in the configuration space.
#[derive(Debug)]
pub(super) struct CapabilityWindow {
    body: u8,
}

/// An access to registers through the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WindowAccess {
    /// Offset from the start of the registers.
    pub offset: u64,
    /// 1, 2 or 4 bytes.
    pub length: usize,
}

impl CapabilityWindow {
    /// Appends the capability: the driver writes base address register, offset, length and data.
    pub(super) fn add(endpoint: &mut Endpoint) -> Result<Self, ConfigurationError> {
        let nowhere = Region {
            kind: WINDOW,
            offset: 0,
            length: 0,
        };
        let body = body(nowhere, &[0; 4]);
        let mut writable = vec![0; body.len()];
        let places = (0_u8..).zip(&mut writable);
        for (_, mask) in places.filter(|(at, _)| *at == BAR_OFFSET || *at >= OFFSET_OFFSET) {
            *mask = 0xff;
        }
        let body = endpoint.add_capability(CapabilityId::Vendor, &body, &writable)?;
        Ok(Self { body })
    }

    /// The access to registers that an access of `length` bytes at `offset` in the configuration space is:
    /// `None` when it does not touch the data, or when the driver has chosen nothing that can be accessed.
    pub(super) fn access(
        &self,
        endpoint: &Endpoint,
        offset: u16,
        length: usize,
    ) -> Option<WindowAccess> {
        let data = usize::from(self.at(DATA_OFFSET));
        let start = usize::from(offset);
        if start >= data.saturating_add(4) || start.saturating_add(length) <= data {
            return None;
        }
        let space = endpoint.configuration();
        let bar = space.number::<1>(self.at(BAR_OFFSET));
        let offset = space.number::<4>(self.at(OFFSET_OFFSET));
        let length = space.number::<4>(self.at(LENGTH_OFFSET));
        let end = offset.checked_add(length)?;
        let possible = bar == u64::from(BAR)
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length)
            && end <= BAR_BYTES;
        let length = usize::try_from(length).ok()?;
        possible.then_some(WindowAccess { offset, length })
    }

    /// What the driver has written as data.
    pub(super) fn load(&self, endpoint: &Endpoint) -> [u8; 4] {
        let value = endpoint.configuration().number::<4>(self.at(DATA_OFFSET));
        u32::try_from(value).unwrap_or(0).to_le_bytes()
    }

    /// Leaves data for the driver.
    pub(super) fn store(&self, endpoint: &mut Endpoint, data: [u8; 4]) {
        // This is a write that can neither reset the function nor change its interrupts.
        let _done = endpoint.write(u16::from(self.at(DATA_OFFSET)), &data);
    }

    const fn at(&self, offset: u8) -> u8 {
        self.body.saturating_add(offset)
    }
}
