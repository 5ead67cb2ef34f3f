//! Configuration spaces behind two ports, CONFIG_ADDRESS and CONFIG_DATA (PCI Local Bus Specification 3.0,
//! 3.2.2.3.2), by which guests find PCI before they know ECAM. Segment 0 alone.

use std::sync::Arc;

use bus::{Effect, PioDevice};

use crate::address::FunctionAddress;
use crate::root_complex::RootComplex;

/// First byte of CONFIG_DATA, from that of CONFIG_ADDRESS.
const DATA: u16 = 4;
/// Chipsets have a reset register here; CONFIG_ADDRESS takes accesses of four bytes alone.
const RESET: u16 = 1;

/// The eight ports from 0xcf8 on.
#[derive(Debug)]
pub struct ConfigurationPorts {
    complex: Arc<RootComplex>,
    address: u32,
    reset: Box<dyn PioDevice>,
}

impl ConfigurationPorts {
    /// The ports of `complex`, with the one-byte register `reset` among them, at 0xcf9.
    pub const fn new(complex: Arc<RootComplex>, reset: Box<dyn PioDevice>) -> Self {
        Self {
            complex,
            address: 0,
            reset,
        }
    }

    /// The function and the offset in its configuration space that an access to CONFIG_DATA means.
    fn selected(&self, port_offset: u16) -> Option<(FunctionAddress, u16)> {
        let byte = port_offset.checked_sub(DATA)?;
        let (address, register) = FunctionAddress::from_config_address(self.address)?;
        Some((address, register.checked_add(byte)?))
    }
}

impl PioDevice for ConfigurationPorts {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        match (offset, data) {
            (0, data) if data.len() == 4 => data.copy_from_slice(&self.address.to_le_bytes()),
            (RESET, data) if data.len() == 1 => self.reset.read(0, data),
            (offset, data) => {
                if let Some((address, register)) = self.selected(offset) {
                    self.complex.read_config(address, register, data);
                }
            }
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        match (offset, data) {
            (0, &[a, b, c, d]) => {
                self.address = u32::from_le_bytes([a, b, c, d]);
                Effect::None
            }
            (RESET, [_]) => self.reset.write(0, data),
            (offset, data) => match self.selected(offset) {
                Some((address, register)) => self.complex.write_config(address, register, data),
                None => Effect::None,
            },
        }
    }
}
