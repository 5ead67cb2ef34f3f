//! The PCI Express capability of a function on the root bus (PCI Express Base Specification 5.0, 7.5.3):
//! an endpoint that is integrated into the root complex, which has neither link nor slot.

use crate::configuration::{CapabilityId, ConfigurationError, ConfigurationSpace};

/// Version 2 of the capability, type 9 "root complex integrated endpoint" (table 7-16).
const CAPABILITIES: u16 = 2 | 9 << 4;
/// Device capabilities (7.5.3.3): role-based error reporting, which all functions have, and the
/// function-level reset.
const DEVICE_CAPABILITIES: u32 = 1 << 15 | 1 << 28;
/// Device control (7.5.3.4) after a reset: relaxed ordering, no snoop, requests of 512 bytes.
const DEVICE_CONTROL: u16 = 1 << 4 | 1 << 11 | 2 << 12;
/// What a guest may write there. The last bit, which is not among them, asks for a reset.
const DEVICE_CONTROL_WRITABLE: u16 = 0x78ff;
/// Bit of device control that asks for a function-level reset; reads as 0 (7.5.3.4).
const INITIATE_FUNCTION_LEVEL_RESET: u8 = 1 << 7;
/// Bytes after identifier and link: up to the second slot status register.
const BODY_BYTES: usize = 0x3a;
/// Offset of device control in the body.
const DEVICE_CONTROL_OFFSET: u8 = 6;

/// Where the capability is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Express {
    body: u8,
}

impl Express {
    /// Appends the capability.
    pub(crate) fn add(space: &mut ConfigurationSpace) -> Result<Self, ConfigurationError> {
        let registers: [(usize, &[u8]); 3] = [
            (0, &CAPABILITIES.to_le_bytes()),
            (2, &DEVICE_CAPABILITIES.to_le_bytes()),
            (
                usize::from(DEVICE_CONTROL_OFFSET),
                &DEVICE_CONTROL.to_le_bytes(),
            ),
        ];
        let mut body = [0; BODY_BYTES];
        for (offset, value) in registers {
            let places = body.iter_mut().skip(offset);
            places.zip(value).for_each(|(place, byte)| *place = *byte);
        }
        let mut writable = [0; BODY_BYTES];
        let mask = DEVICE_CONTROL_WRITABLE.to_le_bytes();
        let places = writable.iter_mut().skip(usize::from(DEVICE_CONTROL_OFFSET));
        places.zip(mask).for_each(|(place, byte)| *place = byte);
        let body = space.add_capability(CapabilityId::Express, &body, &writable)?;
        Ok(Self { body })
    }

    /// Whether a write of `data` at `offset` asks for a function-level reset.
    pub(crate) fn asks_for_reset(self, offset: u16, data: &[u8]) -> bool {
        let register = self.body.saturating_add(DEVICE_CONTROL_OFFSET);
        let high_byte = u16::from(register).saturating_add(1);
        let index = high_byte.checked_sub(offset);
        let byte = index.and_then(|index| data.get(usize::from(index)));
        byte.is_some_and(|byte| byte & INITIATE_FUNCTION_LEVEL_RESET != 0)
    }
}
