//! A function in its place, with what the root complex knows of its registers.

use std::sync::{Arc, Mutex};

use crate::bar::{BARS, Bar, BarWidth};
use crate::configuration::bar_offset;
use crate::function::Function;
use crate::lock::lock;

/// A function in its place.
#[derive(Debug)]
pub(super) struct Place {
    pub function: Arc<Mutex<dyn Function>>,
    /// Where each base address register is in the routes. Taken under the function's lock.
    pub routed: Mutex<[Option<u64>; BARS]>,
}

impl Place {
    pub(super) fn new(function: Arc<Mutex<dyn Function>>) -> Self {
        Self {
            function,
            routed: Mutex::default(),
        }
    }

    /// Gives each base address register an address from `allocate`, as firmware would. They are not
    /// decoded before the guest says so.
    ///
    /// # Errors
    ///
    /// The register for which there is none.
    pub(super) fn assign(&self, mut allocate: impl FnMut(Bar) -> Option<u64>) -> Result<(), Bar> {
        let mut function = lock(&self.function);
        for index in 0..BARS {
            let Some(bar) = function.configuration().bar(index) else {
                continue;
            };
            let address = allocate(bar).ok_or(bar)?;
            let registers = match bar.width {
                BarWidth::Bits32 => 1,
                BarWidth::Bits64 => 2,
            };
            let offsets = (u16::from(bar_offset(index))..).step_by(4);
            for (offset, half) in offsets.zip(address.to_le_bytes().chunks(4)).take(registers) {
                // A function that does not start yet asks for nothing.
                let _none = function.write_config(offset, half);
            }
        }
        Ok(())
    }

    /// Lets `access` at the function, if its registers `bar` still begin at `start` when its lock is taken:
    /// others may have come there meanwhile.
    pub(super) fn access<T>(
        &self,
        bar: usize,
        start: u64,
        access: impl FnOnce(&mut dyn Function) -> T,
    ) -> Option<T> {
        let mut function = lock(&self.function);
        let here = lock(&self.routed).get(bar) == Some(&Some(start));
        here.then(|| access(&mut *function))
    }
}
