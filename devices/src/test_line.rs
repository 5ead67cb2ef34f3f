//! An interrupt wire that remembers what was done to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bus::IrqLine;

#[derive(Debug, Default)]
pub(crate) struct TestLine {
    asserted: AtomicBool,
    rising_edges: AtomicU64,
}

impl TestLine {
    pub(crate) fn is_asserted(&self) -> bool {
        self.asserted.load(Ordering::SeqCst)
    }

    pub(crate) fn rising_edges(&self) -> u64 {
        self.rising_edges.load(Ordering::SeqCst)
    }
}

impl IrqLine for TestLine {
    fn set_level(&self, asserted: bool) {
        if asserted && !self.asserted.swap(asserted, Ordering::SeqCst) {
            self.rising_edges.fetch_add(1, Ordering::SeqCst);
        }
        self.asserted.store(asserted, Ordering::SeqCst);
    }
}
