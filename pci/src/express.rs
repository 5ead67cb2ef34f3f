//! The PCI Express capability of a function (PCI Express Base Specification 5.0, 7.5.3).
//!
//! An endpoint that is integrated into the root complex has neither link nor slot. Where there is a link,
//! it has one lane of the first speed: nothing here takes its time from it, and guests know it best.

use crate::configuration::{CapabilityId, ConfigurationError, ConfigurationSpace};
use crate::register::Register16;

/// Version of the capability (7.5.3.2).
const VERSION: u16 = 2;
/// In the capabilities register: the link ends in a slot.
const SLOT_IMPLEMENTED: u16 = 1 << 8;
/// Device capabilities (7.5.3.3): role-based error reporting, which all functions have.
const ROLE_BASED_ERRORS: u32 = 1 << 15;
/// Device capabilities: the function-level reset, of endpoints alone.
const FUNCTION_LEVEL_RESET: u32 = 1 << 28;
/// Device control (7.5.3.4) after a reset: relaxed ordering, no snoop, requests of 512 bytes.
const DEVICE_CONTROL: u16 = 1 << 4 | 1 << 11 | 2 << 12;
/// What a guest may write there. The last bit, which is not among them, asks for a reset.
const DEVICE_CONTROL_WRITABLE: u16 = 0x78ff;
/// Bit of device control that asks for a function-level reset; reads as 0 (7.5.3.4).
const INITIATE_FUNCTION_LEVEL_RESET: u16 = 1 << 15;
/// Link capabilities (7.5.3.6): 2.5 GT/s, one lane.
const LINK_CAPABILITIES: u32 = 1 | 1 << 4;
/// Link capabilities of a port: it tells whether its link is active, and has its slot's number.
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
/// Where the port's number is in link capabilities.
const PORT_NUMBER_SHIFT: u32 = 24;
/// Link status (7.5.3.8) of an endpoint, whose link is up: speed and width.
const LINK_STATUS: u16 = 1 | 1 << 4;
/// Link control (7.5.3.7) that a guest may write: read completion boundary, common clock, extended
/// synchronisation.
const LINK_CONTROL_WRITABLE: u16 = 1 << 3 | 1 << 6 | 1 << 7;
/// Link capabilities 2 (7.5.3.18): 2.5 GT/s.
const LINK_CAPABILITIES_2: u32 = 1 << 1;
/// Bytes after identifier and link: up to the second slot status register.
const BODY_BYTES: usize = 0x3a;

/// Offsets from the start of the capability.
mod offset {
    pub const CAPABILITIES: usize = 0x02;
    pub const DEVICE_CAPABILITIES: usize = 0x04;
    pub const DEVICE_CONTROL: usize = 0x08;
    pub const LINK_CAPABILITIES: usize = 0x0c;
    pub const LINK_CONTROL: usize = 0x10;
    pub const LINK_STATUS: usize = 0x12;
    pub const SLOT_CAPABILITIES: usize = 0x14;
    pub const SLOT_CONTROL: usize = 0x18;
    pub const SLOT_STATUS: usize = 0x1a;
    pub const LINK_CAPABILITIES_2: usize = 0x2c;
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointKind {
    /// On the root bus: a part of the root complex.
    Integrated,
    /// Behind a port.
    Linked,
}

/// What a function says of its slot: capabilities, control after a reset, and of control what can be
/// written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotRegisters {
    pub number: u16,
    pub capabilities: u32,
    pub control: u16,
    pub control_writable: u16,
}

/// Where the capability is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Express {
    start: u8,
}

impl Express {
    /// Appends the capability of an endpoint.
    pub(crate) fn endpoint(
        space: &mut ConfigurationSpace,
        kind: EndpointKind,
    ) -> Result<Self, ConfigurationError> {
        // Types (table 7-16).
        let kind_number: u16 = match kind {
            EndpointKind::Integrated => 9,
            EndpointKind::Linked => 0,
        };
        let mut body = Body::default();
        body.put_16(offset::CAPABILITIES, VERSION | kind_number << 4);
        body.put_32(
            offset::DEVICE_CAPABILITIES,
            ROLE_BASED_ERRORS | FUNCTION_LEVEL_RESET,
        );
        if kind == EndpointKind::Linked {
            body.put_link(LINK_CAPABILITIES);
            body.put_16(offset::LINK_STATUS, LINK_STATUS);
        }
        body.add(space)
    }

    /// Appends the capability of a root port with a slot.
    pub(crate) fn root_port(
        space: &mut ConfigurationSpace,
        slot: SlotRegisters,
    ) -> Result<Self, ConfigurationError> {
        const ROOT_PORT: u16 = 4;
        let mut body = Body::default();
        body.put_16(
            offset::CAPABILITIES,
            VERSION | ROOT_PORT << 4 | SLOT_IMPLEMENTED,
        );
        body.put_32(offset::DEVICE_CAPABILITIES, ROLE_BASED_ERRORS);
        let number = u32::from(slot.number & 0xff) << PORT_NUMBER_SHIFT;
        body.put_link(LINK_CAPABILITIES | LINK_ACTIVE_REPORTING | number);
        body.put_32(offset::SLOT_CAPABILITIES, slot.capabilities);
        body.put_16(offset::SLOT_CONTROL, slot.control);
        body.allow_16(offset::SLOT_CONTROL, slot.control_writable);
        body.add(space)
    }

    /// Slot control.
    pub(crate) const fn slot_control(self) -> Register16 {
        self.register(offset::SLOT_CONTROL)
    }

    /// Slot status, which is not in the configuration space.
    pub(crate) const fn slot_status(self) -> Register16 {
        self.register(offset::SLOT_STATUS)
    }

    /// Link status, which is not in the configuration space of a port.
    pub(crate) const fn link_status(self) -> Register16 {
        self.register(offset::LINK_STATUS)
    }

    /// Whether a write of `data` at `offset` asks for a function-level reset.
    pub(crate) fn asks_for_reset(self, offset: u16, data: &[u8]) -> bool {
        let control = self.register(offset::DEVICE_CONTROL);
        let written = control.written(0, offset, data);
        written.is_some_and(|value| value & INITIATE_FUNCTION_LEVEL_RESET != 0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "offsets are below 256")]
    const fn register(self, offset: usize) -> Register16 {
        Register16 {
            offset: self.start.saturating_add(offset as u8),
        }
    }
}

/// The capability while it is put together.
struct Body {
    bytes: [u8; BODY_BYTES],
    writable: [u8; BODY_BYTES],
}

impl Default for Body {
    /// With device control, which all have.
    fn default() -> Self {
        let mut body = Self {
            bytes: [0; BODY_BYTES],
            writable: [0; BODY_BYTES],
        };
        body.put_16(offset::DEVICE_CONTROL, DEVICE_CONTROL);
        body.allow_16(offset::DEVICE_CONTROL, DEVICE_CONTROL_WRITABLE);
        body
    }
}

impl Body {
    fn put_link(&mut self, capabilities: u32) {
        self.put_32(offset::LINK_CAPABILITIES, capabilities);
        self.allow_16(offset::LINK_CONTROL, LINK_CONTROL_WRITABLE);
        self.put_32(offset::LINK_CAPABILITIES_2, LINK_CAPABILITIES_2);
    }

    fn put_16(&mut self, offset: usize, value: u16) {
        put(&mut self.bytes, offset, &value.to_le_bytes());
    }

    fn put_32(&mut self, offset: usize, value: u32) {
        put(&mut self.bytes, offset, &value.to_le_bytes());
    }

    fn allow_16(&mut self, offset: usize, mask: u16) {
        put(&mut self.writable, offset, &mask.to_le_bytes());
    }

    fn add(&self, space: &mut ConfigurationSpace) -> Result<Express, ConfigurationError> {
        let body = space.add_capability(CapabilityId::Express, &self.bytes, &self.writable)?;
        Ok(Express {
            start: body.saturating_sub(2),
        })
    }
}

/// Puts `value` at `offset` from the start of the capability.
fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    let places = bytes.iter_mut().skip(offset.saturating_sub(2));
    places.zip(value).for_each(|(place, byte)| *place = *byte);
}
