//! Message-signalled interrupts without a table, MSI (PCI Express Base Specification 5.0, 7.7.1): one
//! message, which is in the configuration space. For functions that have no registers for a table.
//!
//! A part of a function, under the function's lock.

use bus::Msi;

use crate::configuration::{CapabilityId, ConfigurationError, ConfigurationSpace};

/// Message control (7.7.1.2): enabled.
const ENABLE: u16 = 1;
/// Message control: addresses have 64 bits.
const ADDRESS_64: u16 = 1 << 7;
/// Bytes after identifier and link: message control, address, data.
const BODY_BYTES: usize = 12;
/// Offsets in the body.
const ADDRESS_OFFSET: u8 = 2;
const DATA_OFFSET: u8 = 10;

/// Where the capability is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MsiCapability {
    body: u8,
}

impl MsiCapability {
    /// Appends the capability.
    pub(crate) fn add(space: &mut ConfigurationSpace) -> Result<Self, ConfigurationError> {
        let [low, high] = ADDRESS_64.to_le_bytes();
        let mut body = [0; BODY_BYTES];
        let places = body.iter_mut().zip([low, high]);
        places.for_each(|(place, byte)| *place = byte);
        let [enable, _] = ENABLE.to_le_bytes();
        // The two lowest bits of the address are zero (7.7.1.3).
        let writable = [
            enable, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ];
        let body = space.add_capability(CapabilityId::Msi, &body, &writable)?;
        Ok(Self { body })
    }

    /// Whether the guest uses MSI in place of the pin.
    pub(crate) fn is_enabled(self, space: &ConfigurationSpace) -> bool {
        space.number::<2>(self.body) & u64::from(ENABLE) != 0
    }

    /// The message.
    pub(crate) fn message(self, space: &ConfigurationSpace) -> Msi {
        let data = space.number::<2>(self.body.saturating_add(DATA_OFFSET));
        Msi {
            address: space.number::<8>(self.body.saturating_add(ADDRESS_OFFSET)),
            data: u32::try_from(data).unwrap_or(0),
        }
    }
}
