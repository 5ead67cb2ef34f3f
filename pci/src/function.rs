//! The contract between a device on PCI and the root complex.

use std::fmt::Debug;

use bus::Effect;

use crate::configuration::ConfigurationSpace;

/// A function: a configuration space, and registers behind its base address registers.
///
/// Called by vCPU threads, which hold this function's lock. A guest can call with any value; offsets are
/// within the 256 bytes of the configuration space, or within the range of registers.
pub trait Function: Debug + Send {
    /// The configuration space, from which the root complex learns where the registers are.
    fn configuration(&self) -> &ConfigurationSpace;

    /// Fills `data`, 1, 2 or 4 bytes of one doubleword, from the configuration space.
    fn read_config(&mut self, offset: u16, data: &mut [u8]);

    /// Takes a write of 1, 2 or 4 bytes of one doubleword of the configuration space.
    fn write_config(&mut self, offset: u16, data: &[u8]) -> Effect;

    /// Answers a read of the registers at base address register `bar`. `data` has 1 to 8 bytes and comes
    /// filled with ones.
    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]);

    /// Takes a write of 1 to 8 bytes to the registers at base address register `bar`.
    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) -> Effect;

    /// The registers at base address register `bar` are reached at `address` from now on, or not at all.
    /// Between two addresses there is a moment without: nobody else has the first one before.
    fn bar_moved(&mut self, _bar: usize, _address: Option<u64>) {}

    /// A conventional reset (PCIe 5.0, 6.6.1): all is as before the guest's first access. When this returns
    /// the function has nothing under way and touches no guest memory.
    fn reset(&mut self);

    /// Bridges above the function let its requests pass from now on, or not. They do where nothing is
    /// said.
    fn requests_forwarded(&mut self, _forwarded: bool) {}
}
