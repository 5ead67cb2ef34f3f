//! pvpanic: how a guest's kernel says that it has crashed.
//!
//! QEMU documentation, "PVPANIC DEVICE" (docs/specs/pvpanic), ISA flavour. Runs on vCPU threads.

use bus::{Effect, PioDevice};

/// The guest panicked, and the host shall deal with it.
const PANICKED: u8 = 1 << 0;
/// The guest panicked, and deals with it by itself, as by its crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// One port, `arch::layout::port::PVPANIC`.
#[derive(Debug, Default)]
pub struct PvPanic {
    has_crash_loaded: bool,
}

impl PvPanic {
    /// The device, with no event seen.
    pub const fn new() -> Self {
        Self {
            has_crash_loaded: false,
        }
    }
}

impl PioDevice for PvPanic {
    /// The events that are understood.
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Effect {
        let events = data.first().copied().unwrap_or(0);
        if events & CRASH_LOADED != 0 && !std::mem::replace(&mut self.has_crash_loaded, true) {
            tracing::warn!(
                device = "pvpanic",
                "the guest crashed and starts its crash kernel"
            );
        }
        if events & PANICKED != 0 {
            Effect::Crash
        } else {
            Effect::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_understands() {
        let mut data = [0xff];
        PvPanic::new().read(0, &mut data);
        assert_eq!(data, [3]);
    }

    #[test]
    fn every_value_crashes_or_not_by_its_first_bit() {
        let mut pvpanic = PvPanic::new();
        for value in 0..=u8::MAX {
            let crashed = pvpanic.write(0, &[value]) == Effect::Crash;
            assert_eq!(crashed, value & 1 != 0);
        }
        assert_eq!(pvpanic.write(0, &[]), Effect::None);
    }
}
