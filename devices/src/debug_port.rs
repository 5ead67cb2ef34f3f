//! The port for codes of a power-on self-test, 0x80.
//!
//! IBM PC/AT Technical Reference, "Manufacturing test port". Firmware writes its progress here, and kernels
//! write anything, to wait for about a microsecond. Runs on vCPU threads.

use std::sync::Arc;

use bus::{Effect, PioDevice};

use crate::Clock;
use crate::clock::NS_PER_SECOND;

/// Codes that are traced in a second at most: kernels write here for each slow port access of theirs.
const TRACES_PER_SECOND: u32 = 10;

/// One port, `arch::layout::port::DEBUG`. It reads as it was last written.
#[derive(Debug)]
pub struct DebugPort {
    clock: Arc<dyn Clock>,
    code: u8,
    second: u64,
    traces: u32,
}

impl DebugPort {
    /// The port with the code 0. `clock` limits its traces.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            code: 0,
            second: 0,
            traces: 0,
        }
    }

    /// The code that was last written: how far a guest that hangs has come.
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// Whether one more trace is allowed now; counts it.
    fn takes_trace(&mut self) -> bool {
        let second = self.clock.monotonic_ns().div_euclid(NS_PER_SECOND);
        if second != self.second {
            self.second = second;
            self.traces = 0;
        }
        self.traces = self.traces.saturating_add(1);
        self.traces <= TRACES_PER_SECOND
    }
}

impl PioDevice for DebugPort {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.code;
        }
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Effect {
        if let Some(code) = data.first() {
            self.code = *code;
            if tracing::enabled!(tracing::Level::TRACE) && self.takes_trace() {
                tracing::trace!(device = "debug port", code);
            }
        }
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_clock::TestClock;

    #[test]
    fn remembers_the_last_code() {
        let mut port = DebugPort::new(Arc::new(TestClock::default()));
        for code in 0..=u8::MAX {
            assert_eq!(port.write(0, &[code]), Effect::None);
            let mut data = [0xff; 2];
            port.read(0, &mut data);
            assert_eq!(data, [code, 0xff]);
            assert_eq!(port.code(), code);
        }
    }

    #[test]
    fn traces_are_limited() {
        let clock = Arc::new(TestClock::default());
        let mut port = DebugPort::new(clock.clone());
        assert_eq!((0..1000).filter(|_| port.takes_trace()).count(), 10);
        clock.advance_ns(NS_PER_SECOND);
        assert_eq!((0..1000).filter(|_| port.takes_trace()).count(), 10);
    }
}
