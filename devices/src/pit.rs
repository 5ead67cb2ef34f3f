//! The interval timer of a PC: an 8254 with three counters, and system control port B beside it.
//!
//! Intel 8254 datasheet (order number 231164); port 0x61: Intel ICH4 datasheet 9.7.1. Counter 0 drives
//! interrupt request 0, counter 1 once refreshed memory, counter 2 makes the speaker's tone and is read
//! back through port 0x61, which is how kernels measure their CPU's clock.
//!
//! Registers are read and written on vCPU threads. Nothing ticks: a counter's value is computed from the
//! time when it is looked at. A thread, `pit`, pulses the interrupt line; it starts when the guest first
//! programs counter 0. Interrupts come at most every [`MINIMUM_PERIOD_NS`]; those that the host is late
//! for are one, as they are for a CPU that holds its interrupts off for too long.

use std::sync::Arc;

use bus::{Effect, IrqLine, PioDevice};

use crate::clock::{self, Clock};
use crate::timed::{Timed, TimedState};
use counter::{Counter, ReadBack};

mod counter;

/// 1.193182 MHz: a third of the NTSC colour subcarrier's frequency.
const FREQUENCY_HZ: u64 = 1_193_182;
/// The shortest time between two timer interrupts. A guest can ask for more than 500 000 a second, each
/// of which would wake a thread of the host; 5000 a second is more than any operating system asks for.
const MINIMUM_PERIOD_NS: u64 = 200_000;
/// Refresh request toggles as counter 1 of a PC makes it: every 18 ticks, about 15 us.
const REFRESH_TICKS: u64 = 18;

const CONTROL_OFFSET: u16 = 3;
/// Counter number of a control word that is a read-back command.
const READ_BACK: u8 = 3;

const SPEAKER_GATE: u8 = 1 << 0;
/// Speaker data, and the enables of parity and channel checks: bits that read as they were written.
const SPEAKER_WRITABLE: u8 = 0b1111;
const SPEAKER_REFRESH: u8 = 1 << 4;
const SPEAKER_OUTPUT: u8 = 1 << 5;

/// The timer. It gives the machine two devices for the port bus, which share it.
#[derive(Debug)]
pub struct Pit {
    timed: Arc<Timed<State>>,
}

/// The four ports of the 8254 itself: `arch::layout::port::PIT`.
#[derive(Debug)]
pub struct PitCounters {
    timed: Arc<Timed<State>>,
}

/// System control port B: `arch::layout::port::PIT_CONTROL`, one port.
#[derive(Debug)]
pub struct SystemControlB {
    timed: Arc<Timed<State>>,
}

#[derive(Debug)]
struct State {
    irq: Arc<dyn IrqLine>,
    counters: [Counter; 3],
    speaker: u8,
    /// Up to where counter 0's output was looked at for edges.
    seen_ticks: u64,
    is_interrupt_due: bool,
    earliest_interrupt_ns: u64,
}

impl Pit {
    /// A timer whose counters have not been programmed. `irq` gets a pulse for each rising edge of
    /// counter 0's output that the counter itself makes.
    pub fn new(irq: Arc<dyn IrqLine>, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            irq,
            counters: [Counter::new(true), Counter::new(true), Counter::new(false)],
            speaker: 0,
            seen_ticks: 0,
            is_interrupt_due: false,
            earliest_interrupt_ns: 0,
        };
        Self {
            timed: Arc::new(Timed::new("pit", clock, state)),
        }
    }

    /// The device for `arch::layout::port::PIT`.
    pub fn counters(&self) -> PitCounters {
        PitCounters {
            timed: self.timed.clone(),
        }
    }

    /// The device for `arch::layout::port::PIT_CONTROL`.
    pub fn system_control_b(&self) -> SystemControlB {
        SystemControlB {
            timed: self.timed.clone(),
        }
    }
}

impl PioDevice for PitCounters {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        self.timed.with(|state, now_ns| {
            for (offset, byte) in (offset..=u16::MAX).zip(data) {
                if let Some(counter) = state.counters.get_mut(usize::from(offset)) {
                    *byte = counter.read(ticks_at(now_ns));
                }
            }
        });
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        self.timed.with(|state, now_ns| {
            for (offset, value) in (offset..=u16::MAX).zip(data) {
                if offset == CONTROL_OFFSET {
                    state.write_control(ticks_at(now_ns), *value);
                } else if let Some(counter) = state.counters.get_mut(usize::from(offset)) {
                    counter.write(ticks_at(now_ns), *value);
                }
            }
        });
        Effect::None
    }
}

impl PioDevice for SystemControlB {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        let value = self.timed.with(|state, now_ns| {
            let ticks = ticks_at(now_ns);
            let [.., speaker_counter] = &state.counters;
            let mut value = state.speaker;
            if (ticks / REFRESH_TICKS) & 1 != 0 {
                value |= SPEAKER_REFRESH;
            }
            if speaker_counter.output(ticks) {
                value |= SPEAKER_OUTPUT;
            }
            value
        });
        if let Some(byte) = data.first_mut() {
            *byte = value;
        }
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Effect {
        if let Some(value) = data.first() {
            self.timed.with(|state, now_ns| {
                state.speaker = value & SPEAKER_WRITABLE;
                let [.., speaker_counter] = &mut state.counters;
                speaker_counter.set_gate(ticks_at(now_ns), value & SPEAKER_GATE != 0);
            });
        }
        Effect::None
    }
}

impl State {
    /// A control word: of one counter, or a read-back command for several.
    fn write_control(&mut self, now: u64, value: u8) {
        let selected = value >> 6;
        if selected == READ_BACK {
            let command = ReadBack::from_control(value);
            for (number, counter) in self.counters.iter_mut().enumerate() {
                if value >> 1 & 7 & 1 << number != 0 {
                    counter.read_back(now, command);
                }
            }
        } else if let Some(counter) = self.counters.get_mut(usize::from(selected)) {
            counter.write_control(now, value);
        }
    }
}

impl TimedState for State {
    fn advance(&mut self, now_ns: u64) {
        let now = ticks_at(now_ns);
        let [timer, ..] = &self.counters;
        if timer
            .next_rising_edge(self.seen_ticks)
            .is_some_and(|edge| edge <= now)
        {
            self.is_interrupt_due = true;
        }
        self.seen_ticks = now;
        for counter in &mut self.counters {
            counter.advance(now);
        }
        if self.is_interrupt_due && now_ns >= self.earliest_interrupt_ns {
            self.is_interrupt_due = false;
            self.earliest_interrupt_ns = now_ns.saturating_add(MINIMUM_PERIOD_NS);
            self.irq.pulse();
        }
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        if self.is_interrupt_due {
            return Some(self.earliest_interrupt_ns);
        }
        let [timer, ..] = &self.counters;
        let edge = timer.next_rising_edge(self.seen_ticks)?;
        Some(moment_of(edge).max(self.earliest_interrupt_ns))
    }
}

fn ticks_at(now_ns: u64) -> u64 {
    clock::ticks_at(now_ns, FREQUENCY_HZ)
}

fn moment_of(ticks: u64) -> u64 {
    clock::moment_of(ticks, FREQUENCY_HZ)
}

#[cfg(test)]
mod tests;
