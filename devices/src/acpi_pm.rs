//! ACPI power management: the PM1a event and control blocks, and the power management timer.
//!
//! ACPI 6.5, 4.8.3.1 "PM1 Event Grouping", 4.8.3.2 "PM1 Control Grouping", 4.8.2.1 "Power Management
//! Timer". The machine is born in ACPI mode: SCI_EN reads as set, and there is no SMI command port.
//!
//! Registers are accessed on vCPU threads, and [`AcpiPm::press_power_button`] is called by whoever asks the
//! guest to stop. A thread, `acpi_pm`, exists only if the guest enables the timer's interrupt, which comes
//! every ten minutes; no current operating system does.
//!
//! ```text
//! 0  PM1 status, 2 bytes, bits cleared by writing ones     4  PM1 control, 2 bytes
//! 2  PM1 enable, 2 bytes                                   8  timer, 4 bytes, read only
//! ```

use std::sync::Arc;

use arch::layout::{PM_TIMER_HZ, SLEEP_TYPE_S5, port};
use bus::{Effect, IrqLine, PioDevice};

use crate::clock::{Clock, moment_of, ticks_at};
use crate::timed::{Timed, TimedState};

const TIMER: u16 = 1 << 0;
const GLOBAL_LOCK: u16 = 1 << 5;
const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_BUTTON: u16 = 1 << 9;
const REAL_TIME_CLOCK: u16 = 1 << 10;
/// Events that can be enabled, and that raise the system control interrupt.
const EVENTS: u16 = TIMER | GLOBAL_LOCK | POWER_BUTTON | SLEEP_BUTTON | REAL_TIME_CLOCK;

const CONTROL_SCI_ENABLE: u16 = 1 << 0;
const CONTROL_BUS_MASTER_RELOAD: u16 = 1 << 1;
const CONTROL_SLEEP_TYPE: u16 = 0b111 << 10;
const CONTROL_SLEEP_ENABLE: u16 = 1 << 13;

/// Where the enable register is in the event block.
const ENABLE_OFFSET: u16 = 2;
const LENGTH: usize = 12;

/// The power management block of `arch::layout::port::ACPI_PM`.
#[derive(Debug)]
pub struct AcpiPm {
    timed: Timed<State>,
}

#[derive(Debug)]
struct State {
    sci: Arc<dyn IrqLine>,
    is_sci_asserted: bool,
    status: u16,
    enable: u16,
    control: u16,
    /// Up to where the timer was looked at.
    seen_ticks: u64,
}

impl AcpiPm {
    /// The block after power-on. `sci` is the system control interrupt, whose level is driven.
    pub fn new(sci: Arc<dyn IrqLine>, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            sci,
            is_sci_asserted: false,
            status: 0,
            enable: 0,
            control: CONTROL_SCI_ENABLE,
            seen_ticks: 0,
        };
        Self {
            timed: Timed::new("acpi_pm", clock, state),
        }
    }

    /// Presses the power button. Returns whether the guest listens to it: if not, it will not stop by
    /// itself.
    pub fn press_power_button(&self) -> bool {
        self.timed.with(|state, _| {
            state.status |= POWER_BUTTON;
            state.update_sci();
            state.enable & POWER_BUTTON != 0
        })
    }
}

impl State {
    fn registers(&self, now_ns: u64) -> [u8; LENGTH] {
        let [status_0, status_1] = self.status.to_le_bytes();
        let [enable_0, enable_1] = self.enable.to_le_bytes();
        let [control_0, control_1] = self.control.to_le_bytes();
        // 32 bits of it, which the FADT has to say (TMR_VAL_EXT).
        let [timer_0, timer_1, timer_2, timer_3, ..] = ticks_at(now_ns, PM_TIMER_HZ).to_le_bytes();
        [
            status_0, status_1, enable_0, enable_1, control_0, control_1, 0, 0, timer_0, timer_1,
            timer_2, timer_3,
        ]
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        let mut effect = Effect::None;
        for (offset, value) in (offset..=u16::MAX).zip(data) {
            // Registers have two bytes, which a guest may write alone.
            let shift = u32::from(offset & 1).saturating_mul(8);
            let bits = u16::from(*value).wrapping_shl(shift);
            let mask = 0xff_u16.wrapping_shl(shift);
            match offset & !1 {
                port::ACPI_PM1_EVENT_OFFSET => self.status &= !bits,
                ENABLE_OFFSET => self.enable = (self.enable & !mask | bits) & EVENTS,
                port::ACPI_PM1_CONTROL_OFFSET => {
                    let writable = mask & (CONTROL_BUS_MASTER_RELOAD | CONTROL_SLEEP_TYPE);
                    self.control = self.control & !writable | bits & writable;
                    if bits & CONTROL_SLEEP_ENABLE != 0 && self.sleep_type() == SLEEP_TYPE_S5 {
                        effect = Effect::PowerOff;
                    }
                }
                // The timer, and what lies before it, cannot be written.
                _ => {}
            }
        }
        self.update_sci();
        effect
    }

    fn sleep_type(&self) -> u8 {
        let [_, high] = self.control.to_le_bytes();
        high >> 2 & 7
    }

    fn update_sci(&mut self) {
        let asserted = self.status & self.enable != 0;
        if asserted != self.is_sci_asserted {
            self.is_sci_asserted = asserted;
            self.sci.set_level(asserted);
        }
    }
}

impl TimedState for State {
    fn advance(&mut self, now_ns: u64) {
        let now = ticks_at(now_ns, PM_TIMER_HZ);
        // The status is set whenever the timer's highest bit changes.
        if now >> 31 != self.seen_ticks >> 31 {
            self.status |= TIMER;
            self.update_sci();
        }
        self.seen_ticks = now;
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        if self.enable & TIMER == 0 || self.status & TIMER != 0 {
            return None;
        }
        let next = (self.seen_ticks >> 31).saturating_add(1) << 31;
        Some(moment_of(next, PM_TIMER_HZ))
    }
}

impl PioDevice for AcpiPm {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        let registers = self.timed.with(|state, now_ns| state.registers(now_ns));
        let bytes = registers.iter().skip(usize::from(offset));
        for (target, source) in data.iter_mut().zip(bytes) {
            *target = *source;
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        self.timed.with(|state, _| state.write(offset, data))
    }
}

#[cfg(test)]
mod tests;
