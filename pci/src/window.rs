//! The addresses that a root complex forwards to its functions: a window below 4 GiB and one above (ACPI
//! tells a guest of them in `_CRS`). Addresses are given out by vm-allocator.

use std::ops::Range;
use std::sync::Arc;

use bus::{Effect, MmioWindow};
use vm_allocator::{AddressAllocator, AllocPolicy};

use crate::bar::{Bar, BarWidth};
use crate::root_complex::RootComplex;

/// The windows of a root complex.
#[derive(Debug)]
pub struct Windows {
    below: Window,
    above: Option<Window>,
}

#[derive(Debug)]
struct Window {
    range: Range<u64>,
    free: AddressAllocator,
}

impl Window {
    fn new(range: Range<u64>) -> Option<Self> {
        let length = range.end.checked_sub(range.start)?;
        let free = AddressAllocator::new(range.start, length).ok()?;
        Some(Self { range, free })
    }

    fn allocate(&mut self, size_bytes: u64, alignment_bytes: u64) -> Option<u64> {
        let range = self
            .free
            .allocate(size_bytes, alignment_bytes, AllocPolicy::FirstMatch);
        Some(range.ok()?.start())
    }
}

impl Windows {
    /// A window below 4 GiB, and one above where there are addresses for it. `None` when a range is empty
    /// or the first is not below 4 GiB.
    pub fn new(below: Range<u64>, above: Option<Range<u64>>) -> Option<Self> {
        if below.end > 1 << 32 {
            return None;
        }
        let above = match above {
            Some(range) => Some(Window::new(range)?),
            None => None,
        };
        let below = Window::new(below)?;
        Some(Self { below, above })
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let windows = [Some(&self.below), self.above.as_ref()];
        windows
            .into_iter()
            .flatten()
            .map(|window| window.range.clone())
    }

    /// An address for `bar`: below 4 GiB, where every guest can reach it, or above if it is too large for
    /// what is left there.
    pub(crate) fn allocate(&mut self, bar: Bar) -> Option<u64> {
        // Aligned to their size, as base address registers want it.
        let size = bar.size_bytes;
        let below = self.below.allocate(size, size);
        match bar.width {
            BarWidth::Bits32 => below,
            BarWidth::Bits64 => below.or_else(|| self.above.as_mut()?.allocate(size, size)),
        }
    }

    /// The first of `size_bytes` addresses below 4 GiB.
    pub(crate) fn allocate_below(&mut self, size_bytes: u64, alignment_bytes: u64) -> Option<u64> {
        self.below.allocate(size_bytes, alignment_bytes)
    }

    /// Whether `range` is inside one of them.
    pub(crate) fn contain(&self, range: &Range<u64>) -> bool {
        self.ranges()
            .any(|window| window.start <= range.start && range.end <= window.end)
    }
}

/// One window on the bus: finds the function whose registers are at an address.
#[derive(Debug)]
pub struct BarWindow {
    complex: Arc<RootComplex>,
    start: u64,
}

impl BarWindow {
    /// The window of `complex` that begins at `start`.
    pub const fn new(complex: Arc<RootComplex>, start: u64) -> Self {
        Self { complex, start }
    }
}

impl MmioWindow for BarWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(address) = self.start.checked_add(offset) {
            self.complex.read_bar(address, data);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Effect {
        match self.start.checked_add(offset) {
            Some(address) => self.complex.write_bar(address, data),
            None => Effect::None,
        }
    }
}
