//! Reset control register, port 0xcf9, to which the ACPI FADT's reset register points.
//!
//! Intel ICH4 datasheet 9.7.7 "RST_CNT". Runs on vCPU threads.

use bus::{Effect, PioDevice};

/// Hard instead of soft reset. Both are one for a virtual machine.
const SYSTEM_RESET: u8 = 1 << 1;
/// Going from 0 to 1 resets.
const RESET_CPU: u8 = 1 << 2;
/// Power-cycles with the reset.
const FULL_RESET: u8 = 1 << 3;

/// One port, `arch::layout::port::RESET`.
#[derive(Debug, Default)]
pub struct ResetRegister {
    value: u8,
}

impl ResetRegister {
    /// The register after a reset: all zeroes.
    pub const fn new() -> Self {
        Self { value: 0 }
    }
}

impl PioDevice for ResetRegister {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.value;
        }
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Effect {
        let Some(value) = data.first() else {
            return Effect::None;
        };
        let before = self.value;
        self.value = value & (SYSTEM_RESET | RESET_CPU | FULL_RESET);
        if self.value & !before & RESET_CPU != 0 {
            Effect::Reset
        } else {
            Effect::None
        }
    }
}

#[cfg(test)]
mod tests {
    use arch::layout::port;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_fadt_says_resets() {
        assert_eq!(
            ResetRegister::new().write(0, &[port::RESET_VALUE]),
            Effect::Reset
        );
    }

    #[test]
    fn a_driver_announces_and_resets() {
        let mut register = ResetRegister::new();
        for code in [0x06, 0x0e] {
            let mut data = [0xff];
            register.read(0, &mut data);
            assert_eq!(register.write(0, &[data[0] & !code | 2]), Effect::None);
            assert_eq!(register.write(0, &[code]), Effect::Reset);
            register.read(0, &mut data);
            assert_eq!(data[0], code);
        }
    }

    proptest! {
        #[test]
        fn resets_on_each_rising_edge(values in prop::collection::vec(any::<u8>(), 0..50)) {
            let mut register = ResetRegister::new();
            let mut before = 0;
            for value in values {
                let rose = value & 4 != 0 && before & 4 == 0;
                prop_assert_eq!(register.write(0, &[value]) == Effect::Reset, rose);
                before = value;
            }
        }
    }
}
