//! Real-time clock and CMOS memory: an MC146818 with 128 bytes.
//!
//! Motorola MC146818A datasheet (DS9823), "Registers" and "Real-time clock RAM"; century in byte 0x32, to
//! which the FADT points; memory sizes where PC firmware keeps them (SeaBIOS `rtc.h`). Registers are
//! accessed on vCPU threads. The clock is the host's, in UTC, plus what the guest sets it off by. Nothing
//! ticks: times and flags are computed when they are looked at. A thread, `rtc`, raises the interrupt; it
//! starts when the guest first enables one.
//!
//! The clock follows the host's when that is set. An alarm is then met at the thread's next wake-up.
//!
//! ```text
//! 0x70  index, bits 6:0 (write only)     0x71  data
//! 0x00 seconds  0x02 minutes  0x04 hours  0x06 day of week  0x07 day  0x08 month  0x09 year  0x32 century
//! 0x01 0x03 0x05 alarm     0x0a..=0x0d registers A to D     the rest: memory
//! ```

use std::sync::Arc;

use bus::{Effect, IrqLine, PioDevice};

use crate::clock::Clock;
use crate::timed::{Timed, TimedState};
use alarm::Alarm;
use calendar::DateTime;

mod alarm;
mod calendar;
mod encoding;

const INDEX_OFFSET: u16 = 0;
const MEMORY_BYTES: usize = 128;

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
const BASE_MEMORY_KIB: u8 = 0x15;
const EXTENDED_MEMORY_KIB: [u8; 2] = [0x17, 0x30];
const CENTURY: u8 = 0x32;
const MEMORY_ABOVE_16_MIB: u8 = 0x34;
const MEMORY_ABOVE_4_GIB: u8 = 0x5b;

const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Both upper divider bits set hold the divider chain in reset.
const A_DIVIDER_RESET: u8 = 0b11 << 5;
/// 32 768 Hz crystal, periodic interrupt at 1024 Hz.
const A_RESET: u8 = 0x26;
const B_SET: u8 = 1 << 7;
const B_24_HOURS: u8 = 1 << 1;
/// Flags in register C, and their enables at the same place in register B.
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATE_ENDED: u8 = 1 << 4;
const CAUSES: u8 = PERIODIC | ALARM | UPDATE_ENDED;
const C_INTERRUPT: u8 = 1 << 7;
const D_VALID: u8 = 1 << 7;

const NS_PER_SECOND: i128 = 1_000_000_000;
const CRYSTAL_HZ: i128 = 32_768;
/// An update is announced this long before it happens ("Update cycle": 244 us).
const UPDATE_ANNOUNCED_NS: i128 = 244_000;
/// Where in its second the clock goes on when the divider is released.
const DIVIDER_RELEASED_NS: i128 = 500_000_000;
/// The shortest time between two interrupts, so that the fastest rate, 8192 Hz, does not keep a thread
/// of the host busy.
const MINIMUM_PERIOD_NS: u64 = 200_000;

/// How much RAM the machine has, for the bytes in which PC firmware looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RamSize {
    /// Bytes of RAM at addresses below 4 GiB.
    pub below_4_gib_bytes: u64,
    /// Bytes of RAM at addresses above that.
    pub above_4_gib_bytes: u64,
}

/// The clock and memory on the two ports of `arch::layout::port::CMOS_RTC`.
#[derive(Debug)]
pub struct CmosRtc {
    timed: Timed<State>,
}

#[derive(Debug)]
struct State {
    irq: Arc<dyn IrqLine>,
    is_irq_asserted: bool,
    clock: Arc<dyn Clock>,
    index: u8,
    /// Bytes of the time have a value here only while the clock is stopped.
    memory: [u8; MEMORY_BYTES],
    /// What the guest's time is ahead of the host's.
    offset_ns: i128,
    /// The moment of the last [`TimedState::advance`], in the host's monotonic and in the guest's time.
    now_ns: u64,
    guest_ns: i128,
    earliest_interrupt_ns: u64,
}

impl CmosRtc {
    /// A clock that shows the host's UTC in decimal and 24 hours. `irq` is driven to the level of the
    /// chip's interrupt output; `clock` gives the time.
    pub fn new(irq: Arc<dyn IrqLine>, clock: Arc<dyn Clock>, ram: RamSize) -> Self {
        let state = State::new(irq, clock.clone(), ram);
        Self {
            timed: Timed::new("rtc", clock, state),
        }
    }
}

impl State {
    fn new(irq: Arc<dyn IrqLine>, clock: Arc<dyn Clock>, ram: RamSize) -> Self {
        let mut state = Self {
            irq,
            is_irq_asserted: false,
            index: 0,
            memory: [0; MEMORY_BYTES],
            offset_ns: 0,
            now_ns: clock.monotonic_ns(),
            guest_ns: utc_ns(&*clock),
            earliest_interrupt_ns: 0,
            clock,
        };
        state.set(REGISTER_A, A_RESET);
        state.set(REGISTER_B, B_24_HOURS);
        state.set_memory_size(ram);
        state
    }

    fn set_memory_size(&mut self, ram: RamSize) {
        let kib = |bytes: u64| bytes >> 10;
        let blocks = |bytes: u64| bytes >> 16;
        let extended = ram.below_4_gib_bytes.saturating_sub(1 << 20);
        let above_16_mib = ram.below_4_gib_bytes.saturating_sub(16 << 20);
        self.set_number(BASE_MEMORY_KIB, 2, 640);
        for index in EXTENDED_MEMORY_KIB {
            self.set_number(index, 2, kib(extended));
        }
        self.set_number(MEMORY_ABOVE_16_MIB, 2, blocks(above_16_mib));
        self.set_number(MEMORY_ABOVE_4_GIB, 3, blocks(ram.above_4_gib_bytes));
    }

    /// Little endian, and the largest number of `length` bytes when `value` is larger.
    fn set_number(&mut self, index: u8, length: u8, value: u64) {
        let largest =
            u64::MAX.wrapping_shr(64_u32.saturating_sub(u32::from(length).saturating_mul(8)));
        let bytes = value.min(largest).to_le_bytes();
        for (place, byte) in (index..index.saturating_add(length)).zip(bytes) {
            self.set(place, byte);
        }
    }

    fn get(&self, index: u8) -> u8 {
        self.memory.get(usize::from(index)).copied().unwrap_or(0xff)
    }

    fn set(&mut self, index: u8, value: u8) {
        if let Some(cell) = self.memory.get_mut(usize::from(index)) {
            *cell = value;
        }
    }

    fn read_data(&mut self) -> u8 {
        match self.index {
            SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY | MONTH | YEAR | CENTURY
                if !self.is_stopped() =>
            {
                self.store_time();
            }
            REGISTER_A => {
                let rest = NS_PER_SECOND.saturating_sub(self.guest_ns.rem_euclid(NS_PER_SECOND));
                if !self.is_stopped() && rest <= UPDATE_ANNOUNCED_NS {
                    return self.get(REGISTER_A) | A_UPDATE_IN_PROGRESS;
                }
            }
            REGISTER_C => {
                let mut flags = self.get(REGISTER_C);
                if self.has_interrupt() {
                    flags |= C_INTERRUPT;
                }
                self.set(REGISTER_C, 0);
                self.update_irq();
                return flags;
            }
            REGISTER_D => return D_VALID,
            _ => {}
        }
        self.get(self.index)
    }

    fn write_data(&mut self, value: u8) {
        match self.index {
            SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY | MONTH | YEAR | CENTURY
                if !self.is_stopped() =>
            {
                self.store_time();
                self.set(self.index, value);
                self.load_time(self.guest_ns.rem_euclid(NS_PER_SECOND));
            }
            REGISTER_A | REGISTER_B => self.write_control(value),
            // What happened, and whether the battery is good, is for the chip to say.
            REGISTER_C | REGISTER_D => {}
            _ => self.set(self.index, value),
        }
    }

    /// Registers A and B, which can stop the clock and let it go on.
    fn write_control(&mut self, value: u8) {
        let was_stopped = self.is_stopped();
        let was_divider_reset = self.is_divider_reset();
        if !was_stopped {
            self.store_time();
        }
        if self.index == REGISTER_A {
            self.set(REGISTER_A, value & !A_UPDATE_IN_PROGRESS);
        } else {
            self.set(REGISTER_B, value);
        }
        if was_stopped && !self.is_stopped() {
            let phase_ns = if was_divider_reset {
                DIVIDER_RELEASED_NS
            } else {
                self.guest_ns.rem_euclid(NS_PER_SECOND)
            };
            self.load_time(phase_ns);
        }
        self.update_irq();
    }

    /// Puts the time into the memory, as registers show it.
    fn store_time(&mut self) {
        let now = DateTime::from_seconds(self.guest_seconds());
        let mode = self.get(REGISTER_B);
        let year = now.year.checked_rem(100).unwrap_or(0);
        let century = now.year.checked_div(100).unwrap_or(0);
        for (index, value) in [
            (SECONDS, now.second),
            (MINUTES, now.minute),
            (DAY_OF_WEEK, now.day_of_week()),
            (DAY, now.day),
            (MONTH, now.month),
            (YEAR, u8::try_from(year).unwrap_or(0)),
            (CENTURY, u8::try_from(century).unwrap_or(0)),
        ] {
            self.set(index, encoding::encode(mode, value));
        }
        self.set(HOURS, encoding::encode_hour(mode, now.hour));
    }

    /// Sets the clock by what is in the memory, `phase_ns` into the second. What is no date becomes the
    /// nearest one.
    fn load_time(&mut self, phase_ns: i128) {
        let mode = self.get(REGISTER_B);
        let value = |index| encoding::decode(mode, self.get(index));
        let century = u16::from(value(CENTURY).min(99));
        let time = DateTime {
            year: century
                .saturating_mul(100)
                .saturating_add(u16::from(value(YEAR).min(99))),
            month: value(MONTH),
            day: value(DAY),
            hour: encoding::decode_hour(mode, self.get(HOURS)),
            minute: value(MINUTES),
            second: value(SECONDS),
        };
        let guest_ns = i128::from(time.nearest().to_seconds())
            .saturating_mul(NS_PER_SECOND)
            .saturating_add(phase_ns);
        let host_ns = self.guest_ns.saturating_sub(self.offset_ns);
        self.offset_ns = guest_ns.saturating_sub(host_ns);
        self.guest_ns = guest_ns;
    }

    fn guest_seconds(&self) -> i64 {
        i64::try_from(self.guest_ns.div_euclid(NS_PER_SECOND)).unwrap_or(i64::MAX)
    }

    fn is_divider_reset(&self) -> bool {
        self.get(REGISTER_A) & A_DIVIDER_RESET == A_DIVIDER_RESET
    }

    fn is_stopped(&self) -> bool {
        self.get(REGISTER_B) & B_SET != 0 || self.is_divider_reset()
    }

    fn alarm(&self) -> Alarm {
        let mode = self.get(REGISTER_B);
        Alarm::new(
            encoding::decode_alarm_hour(mode, self.get(HOURS_ALARM)),
            encoding::decode_alarm(mode, self.get(MINUTES_ALARM)),
            encoding::decode_alarm(mode, self.get(SECONDS_ALARM)),
        )
    }

    /// Ticks of the crystal between two periodic interrupts (register A, bits 3:0).
    fn periodic_ticks(&self) -> Option<i128> {
        if self.is_divider_reset() {
            return None;
        }
        match u32::from(self.get(REGISTER_A) & 0xf) {
            0 => None,
            // The two fastest codes mean what two slower ones do.
            rate @ 1..=2 => Some(1_i128.wrapping_shl(rate.saturating_add(6))),
            rate => Some(1_i128.wrapping_shl(rate.saturating_sub(1))),
        }
    }

    fn raise(&mut self, flags: u8) {
        self.set(REGISTER_C, self.get(REGISTER_C) | flags);
    }

    fn has_interrupt(&self) -> bool {
        self.get(REGISTER_C) & self.get(REGISTER_B) & CAUSES != 0
    }

    fn update_irq(&mut self) {
        let asserted = self.has_interrupt();
        if asserted == self.is_irq_asserted {
            return;
        }
        if asserted {
            self.earliest_interrupt_ns = self.now_ns.saturating_add(MINIMUM_PERIOD_NS);
        }
        self.is_irq_asserted = asserted;
        self.irq.set_level(asserted);
    }

    /// The guest's time at which the next enabled flag is due that has not been raised.
    fn next_event_ns(&self) -> Option<i128> {
        let awaited = self.get(REGISTER_B) & !self.get(REGISTER_C);
        let mut next: Option<i128> = None;
        let mut consider = |event_ns: i128| {
            next = Some(next.map_or(event_ns, |earlier| earlier.min(event_ns)));
        };
        if awaited & PERIODIC != 0
            && let Some(ticks) = self.periodic_ticks()
        {
            let period = crystal_ticks(self.guest_ns).div_euclid(ticks);
            let tick = period.saturating_add(1).saturating_mul(ticks);
            // The first nanosecond at which the crystal has made that tick.
            consider(
                tick.saturating_mul(NS_PER_SECOND)
                    .saturating_add(CRYSTAL_HZ.saturating_sub(1))
                    .div_euclid(CRYSTAL_HZ),
            );
        }
        if !self.is_stopped() {
            let seconds = self.guest_seconds();
            if awaited & UPDATE_ENDED != 0 {
                consider(i128::from(seconds.saturating_add(1)).saturating_mul(NS_PER_SECOND));
            }
            if awaited & ALARM != 0
                && let Some(due) = self.alarm().next_after(seconds)
            {
                consider(i128::from(due).saturating_mul(NS_PER_SECOND));
            }
        }
        next
    }
}

impl TimedState for State {
    fn advance(&mut self, now_ns: u64) {
        let (before_ns, before) = (self.guest_ns, self.guest_seconds());
        self.now_ns = now_ns;
        self.guest_ns = utc_ns(&*self.clock).saturating_add(self.offset_ns);
        if let Some(ticks) = self.periodic_ticks()
            && crystal_ticks(before_ns).div_euclid(ticks)
                != crystal_ticks(self.guest_ns).div_euclid(ticks)
        {
            self.raise(PERIODIC);
        }
        let now = self.guest_seconds();
        if now != before && !self.is_stopped() {
            self.raise(UPDATE_ENDED);
            if self
                .alarm()
                .next_after(before)
                .is_some_and(|due| due <= now)
            {
                self.raise(ALARM);
            }
        }
        self.update_irq();
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let rest_ns = self.next_event_ns()?.saturating_sub(self.guest_ns).max(0);
        let rest_ns = u64::try_from(rest_ns).unwrap_or(u64::MAX);
        Some(
            self.now_ns
                .saturating_add(rest_ns)
                .max(self.earliest_interrupt_ns),
        )
    }
}

impl PioDevice for CmosRtc {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        for (offset, byte) in (offset..=u16::MAX).zip(data) {
            if offset != INDEX_OFFSET {
                *byte = self.timed.with(|state, _| state.read_data());
            }
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        for (offset, value) in (offset..=u16::MAX).zip(data) {
            self.timed.with(|state, _| match offset {
                // Bit 7 holds back non-maskable interrupts, of which there are none.
                INDEX_OFFSET => state.index = value & 0x7f,
                _ => state.write_data(*value),
            });
        }
        Effect::None
    }
}

fn utc_ns(clock: &dyn Clock) -> i128 {
    i128::try_from(clock.utc().as_nanos()).unwrap_or(i128::MAX)
}

fn crystal_ticks(guest_ns: i128) -> i128 {
    guest_ns
        .saturating_mul(CRYSTAL_HZ)
        .div_euclid(NS_PER_SECOND)
}

#[cfg(test)]
mod tests;
