//! Configuration spaces as memory: the enhanced configuration access mechanism (PCI Express Base
//! Specification 5.0, 7.2.2), whose address a guest learns from the MCFG table.

use std::sync::Arc;

use bus::{Effect, MmioWindow};

use crate::address::FunctionAddress;
use crate::root_complex::RootComplex;

/// The window of one segment: a megabyte for each bus.
#[derive(Debug)]
pub struct EcamWindow {
    complex: Arc<RootComplex>,
}

impl EcamWindow {
    /// The window to the configuration spaces of `complex`.
    pub const fn new(complex: Arc<RootComplex>) -> Self {
        Self { complex }
    }

    fn function(&self, offset: u64) -> Option<(FunctionAddress, u16)> {
        FunctionAddress::from_ecam(self.complex.segment(), offset)
    }
}

impl MmioWindow for EcamWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // What is wider than a doubleword may be split (7.2.2).
        for (offset, data) in [offset, offset.saturating_add(4)]
            .into_iter()
            .zip(data.chunks_mut(4))
        {
            if let Some((address, register)) = self.function(offset) {
                self.complex.read_config(address, register, data);
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        let mut effect = Effect::None;
        for (offset, data) in [offset, offset.saturating_add(4)]
            .into_iter()
            .zip(data.chunks(4))
        {
            if let Some((address, register)) = self.function(offset) {
                let other = self.complex.write_config(address, register, data);
                if other != Effect::None {
                    effect = other;
                }
            }
        }
        effect
    }
}
