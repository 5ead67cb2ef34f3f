//! Power states of a function (PCI Express Base Specification 5.0, 5.3.1 and 7.5.2; PCI Bus Power Management
//! Interface Specification 1.2): D0, in which it works, and D3hot, in which it answers to its configuration
//! space alone. It keeps its state there, so that a guest finds it as it was.

use crate::configuration::{CapabilityId, ConfigurationError, ConfigurationSpace};
use crate::register::Register16;

/// Power management capabilities (7.5.2.1): version 3 of the structure. No D1, no D2, no power events.
const CAPABILITIES: u16 = 3;
/// Control and status (7.5.2.2): a return to D0 is no reset.
const NO_SOFT_RESET: u16 = 1 << 3;
/// In control and status: the state.
const STATE: u16 = 3;
/// The state in which the function works.
const D0: u16 = 0;
/// The state in which it sleeps.
const D3_HOT: u16 = 3;
/// Offset of control and status in the body.
const CONTROL_OFFSET: u8 = 2;

/// Where the capability is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PowerManagement {
    control: Register16,
}

impl PowerManagement {
    /// Appends the capability.
    pub(crate) fn add(space: &mut ConfigurationSpace) -> Result<Self, ConfigurationError> {
        let body = [CAPABILITIES.to_le_bytes(), NO_SOFT_RESET.to_le_bytes()];
        let body = space.add_capability(CapabilityId::PowerManagement, body.as_flattened(), &[])?;
        let control = Register16 {
            offset: body.saturating_add(CONTROL_OFFSET),
        };
        Ok(Self { control })
    }

    /// Takes a guest's write: a state that there is becomes the function's, others leave it where it is
    /// (7.5.2.2).
    pub(crate) fn write(self, space: &mut ConfigurationSpace, offset: u16, data: &[u8]) {
        let before = if space.is_asleep() { D3_HOT } else { D0 };
        let written = self.control.written(before, offset, data);
        if let Some(state @ (D0 | D3_HOT)) = written.map(|value| value & STATE) {
            space.set_asleep(state == D3_HOT);
        }
    }

    /// Adds the state to what a read found in the configuration space.
    pub(crate) fn show(self, space: &ConfigurationSpace, offset: u16, data: &mut [u8]) {
        if space.is_asleep() {
            self.control.show(D3_HOT, offset, data);
        }
    }
}
