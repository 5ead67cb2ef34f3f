//! Interrupts by a pin, for guests that do not use MSI-X (PCI Express Base Specification 5.0, 6.1.2; PCI
//! Local Bus Specification 3.0, 2.2.6).
//!
//! A function drives one pin by its level: asserted while there is a cause that its driver has not taken
//! and the guest has not disabled the pin. Pins of several functions end on one wire, which is asserted
//! while any of them is.

use std::sync::{Arc, Mutex};

use bus::IrqLine;

use crate::lock::lock;

/// INTA# as the header has it.
pub(crate) const INTA: u8 = 1;

/// Which of the root complex's four wires INTA# of `device` ends on, as devices on a bus are wired so
/// that they share as little as they can (PCIe 5.0, table 2-19).
pub const fn intx_pin(device: u8) -> u8 {
    device % 4
}

/// A wire that several pins end on.
#[derive(Debug)]
pub struct SharedIrqLine {
    line: Arc<dyn IrqLine>,
    asserted: Mutex<u32>,
}

impl SharedIrqLine {
    /// The wire that ends at `line`.
    pub fn new(line: Arc<dyn IrqLine>) -> Arc<Self> {
        Arc::new(Self {
            line,
            asserted: Mutex::new(0),
        })
    }

    /// A pin on this wire.
    pub fn pin(self: &Arc<Self>) -> Arc<dyn IrqLine> {
        Arc::new(Pin {
            wire: Arc::clone(self),
            asserted: Mutex::new(false),
        })
    }

    fn change(&self, assert: bool) {
        let mut asserted = lock(&self.asserted);
        let before = *asserted;
        *asserted = match assert {
            true => before.saturating_add(1),
            false => before.saturating_sub(1),
        };
        if (before == 0) != (*asserted == 0) {
            self.line.set_level(assert);
        }
    }
}

/// One pin on a shared wire.
#[derive(Debug)]
struct Pin {
    wire: Arc<SharedIrqLine>,
    asserted: Mutex<bool>,
}

impl IrqLine for Pin {
    fn set_level(&self, level: bool) {
        let mut asserted = lock(&self.asserted);
        if *asserted != level {
            *asserted = level;
            self.wire.change(level);
        }
    }
}

/// The pin of a function, and why it is asserted.
///
/// Used by the function on vCPU threads and by its workers.
#[derive(Debug)]
pub struct Intx {
    line: Arc<dyn IrqLine>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    causes: u8,
    disabled: bool,
    /// MSI-X is on, so that the pin is not used (PCIe 5.0, 6.1.4.3).
    replaced: bool,
}

impl State {
    const fn level(&self) -> bool {
        self.causes != 0 && !self.disabled && !self.replaced
    }
}

impl Intx {
    /// A pin that drives `line`.
    pub fn new(line: Arc<dyn IrqLine>) -> Self {
        Self {
            line,
            state: Mutex::default(),
        }
    }

    /// Adds `causes`: bits that mean what the function says.
    pub fn raise(&self, causes: u8) {
        self.change(|state| state.causes |= causes);
    }

    /// Takes all causes; the pin is released.
    pub fn take(&self) -> u8 {
        self.change(|state| std::mem::take(&mut state.causes))
    }

    /// Whether there is a cause for an interrupt by the pin, disabled as it may be.
    pub(crate) fn is_pending(&self) -> bool {
        let state = lock(&self.state);
        state.causes != 0 && !state.replaced
    }

    pub(crate) fn set_disabled(&self, disabled: bool) {
        self.change(|state| state.disabled = disabled);
    }

    pub(crate) fn set_replaced(&self, replaced: bool) {
        self.change(|state| state.replaced = replaced);
    }

    pub(crate) fn reset(&self) {
        self.change(|state| *state = State::default());
    }

    /// The level follows the state under the state's lock, so that the last level is the last state's.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = lock(&self.state);
        let before = state.level();
        let result = change(&mut state);
        let level = state.level();
        if level != before {
            self.line.set_level(level);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Probe(AtomicBool);

    impl IrqLine for Probe {
        fn set_level(&self, asserted: bool) {
            self.0.store(asserted, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wire_is_asserted_while_any_pin_is() {
        let probe = Arc::new(Probe::default());
        let level = || probe.0.load(Ordering::SeqCst);
        let wire = SharedIrqLine::new(probe.clone());
        let pins = [Intx::new(wire.pin()), Intx::new(wire.pin())];
        pins[0].raise(1);
        pins[1].raise(2);
        pins[0].raise(4);
        assert_eq!(pins[0].take(), 5);
        assert!(level());
        assert_eq!(pins[1].take(), 2);
        assert!(!level());
        assert_eq!(pins[1].take(), 0);
    }

    #[test]
    fn a_disabled_pin_keeps_its_causes() {
        let probe = Arc::new(Probe::default());
        let level = || probe.0.load(Ordering::SeqCst);
        let intx = Intx::new(probe.clone());
        intx.set_disabled(true);
        intx.raise(1);
        assert!(!level() && intx.is_pending());
        intx.set_disabled(false);
        assert!(level());
        intx.set_replaced(true);
        assert!(!level() && !intx.is_pending());
        intx.set_replaced(false);
        assert!(level());
        intx.reset();
        assert!(!level());
    }
}
