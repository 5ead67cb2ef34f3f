//! The host bridge at 00:00.0: the root complex as a function of its own bus. Guests look for it to
//! convince themselves that configuration accesses work (PCI Local Bus Specification 3.0, 6.2.1, class
//! code 06 00).

use bus::Effect;

use crate::configuration::ConfigurationSpace;
use crate::function::Function;
use crate::header::Identity;

/// As other monitors of small machines have it: known to no driver.
const IDENTITY: Identity = Identity {
    vendor_id: 0x8086,
    device_id: 0x0d57,
    revision_id: 0,
    class: [0x06, 0x00, 0x00],
    subsystem_vendor_id: 0,
    subsystem_id: 0,
};

/// A function that is there and does nothing.
#[derive(Debug)]
pub struct HostBridge {
    configuration: ConfigurationSpace,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self {
            configuration: ConfigurationSpace::new(IDENTITY),
        }
    }
}

impl Function for HostBridge {
    fn configuration(&self) -> &ConfigurationSpace {
        &self.configuration
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.configuration.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) -> Effect {
        self.configuration.write(offset, data);
        Effect::None
    }

    fn read_bar(&mut self, _bar: usize, _offset: u64, _data: &mut [u8]) {}

    fn write_bar(&mut self, _bar: usize, _offset: u64, _data: &[u8]) -> Effect {
        Effect::None
    }

    fn reset(&mut self) {
        self.configuration.reset();
    }
}
