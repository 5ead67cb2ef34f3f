//! One counter of an 8254. Sections are those of the Intel 8254 datasheet (order number 231164).
//!
//! Time is in ticks of the counter's clock. The counting element is not simulated: its value and the
//! output follow from the tick at which it was loaded.

const COUNT_BINARY: u32 = 0x1_0000;
const COUNT_BCD: u32 = 10_000;

/// "Read/Write" of the control word: which bytes of a count are transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

/// What a read-back command latches ("Read-Back Command").
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadBack {
    count: bool,
    status: bool,
}

impl ReadBack {
    pub(super) fn from_control(value: u8) -> Self {
        Self {
            count: value & 1 << 5 == 0,
            status: value & 1 << 4 == 0,
        }
    }
}

/// A counting element that was loaded.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The tick at which it was loaded.
    since: u64,
    /// The count that was loaded, 1 to 65536.
    count: u32,
    /// Ticks that it had counted when its gate stopped it.
    stopped_after: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct Counter {
    gate: bool,
    mode: u8,
    is_bcd: bool,
    access: Access,
    /// The count register, as it was last written in full: 1 to 65536.
    count: u32,
    /// A count was written since the last control word.
    is_programmed: bool,
    /// The low byte of a count whose high byte is to follow.
    low_byte: Option<u8>,
    /// The next read of a two-byte count gives the high byte.
    reads_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// The count register has a count that the counting element has not taken over.
    null_count: bool,
    run: Option<Run>,
    /// Modes 2 and 3: the tick at which the running period ends and the count register is loaded.
    reload_at: Option<u64>,
}

impl Counter {
    pub(super) fn new(gate: bool) -> Self {
        Self {
            gate,
            mode: 0,
            is_bcd: false,
            access: Access::LowThenHigh,
            count: COUNT_BINARY,
            is_programmed: false,
            low_byte: None,
            reads_high: false,
            latched_count: None,
            latched_status: None,
            null_count: true,
            run: None,
            reload_at: None,
        }
    }

    /// Loads a new count whose time has come.
    pub(super) fn advance(&mut self, now: u64) {
        if let Some(at) = self.reload_at
            && at <= now
        {
            self.load(at);
        }
    }

    /// "Control Word Format" and "Counter Latch Command".
    pub(super) fn write_control(&mut self, now: u64, value: u8) {
        self.access = match value >> 4 & 3 {
            0 => {
                self.latch_count(now);
                return;
            }
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        self.mode = match value >> 1 & 7 {
            // The first bit of modes 2 and 3 does not matter.
            mode @ 6.. => mode & 3,
            mode => mode,
        };
        self.is_bcd = value & 1 != 0;
        self.is_programmed = false;
        self.low_byte = None;
        self.reads_high = false;
        self.latched_count = None;
        self.latched_status = None;
        self.null_count = true;
        self.run = None;
        self.reload_at = None;
    }

    pub(super) fn read_back(&mut self, now: u64, command: ReadBack) {
        if command.count {
            self.latch_count(now);
        }
        if command.status && self.latched_status.is_none() {
            self.latched_status = Some(self.status(now));
        }
    }

    /// Reads a byte: a latched status, else the count, latched or as it stands.
    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self
            .latched_count
            .unwrap_or_else(|| self.value(now))
            .to_le_bytes();
        let (byte, is_last) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::LowThenHigh if self.reads_high => (high, true),
            Access::LowThenHigh => (low, false),
        };
        self.reads_high = !is_last;
        if is_last {
            self.latched_count = None;
        }
        byte
    }

    /// Writes a byte of a count ("Write Operations").
    pub(super) fn write(&mut self, now: u64, value: u8) {
        let bytes = match (self.access, self.low_byte.take()) {
            (Access::Low, _) => [value, 0],
            (Access::High, _) => [0, value],
            (Access::LowThenHigh, Some(low)) => [low, value],
            (Access::LowThenHigh, None) => {
                self.low_byte = Some(value);
                if self.mode == 0 {
                    // "Mode 0": the first byte of two stops the count, and the output is low.
                    self.run = None;
                }
                return;
            }
        };
        self.count = self.count_of(u16::from_le_bytes(bytes));
        self.is_programmed = true;
        self.null_count = true;
        match (self.mode, self.run) {
            (0 | 4, _) | (2 | 3, None) => self.load(now),
            (2 | 3, Some(run)) if run.stopped_after.is_none() => {
                let period = self.period(run);
                let position = elapsed(run, now).checked_rem(period).unwrap_or(0);
                let rest = period.saturating_sub(position);
                self.reload_at = Some(now.saturating_add(rest));
            }
            // The gate's next rising edge loads it.
            _ => {}
        }
    }

    /// Drives the gate input ("Gate Pin Operations Summary").
    pub(super) fn set_gate(&mut self, now: u64, gate: bool) {
        let rose = gate && !self.gate;
        let fell = !gate && self.gate;
        self.gate = gate;
        match self.mode {
            1 | 5 if rose && self.is_programmed => self.load(now),
            2 | 3 if rose && self.run.is_some() => self.load(now),
            0 | 2 | 3 | 4 if fell => {
                if let Some(run) = &mut self.run {
                    run.stopped_after = Some(now.saturating_sub(run.since));
                }
                self.reload_at = None;
            }
            0 | 4 if rose => {
                if let Some(run) = &mut self.run
                    && let Some(stopped_after) = run.stopped_after.take()
                {
                    run.since = now.saturating_sub(stopped_after);
                }
            }
            _ => {}
        }
    }

    /// The output pin ("Mode Definitions").
    pub(super) fn output(&self, now: u64) -> bool {
        let Some(run) = self.run else {
            return self.mode != 0;
        };
        let elapsed = elapsed(run, now);
        let count = u64::from(run.count);
        let position = elapsed.checked_rem(self.period(run)).unwrap_or(0);
        match self.mode {
            0 | 1 => elapsed >= count,
            2 | 3 if run.stopped_after.is_some() => true,
            2 => position.saturating_add(1) != self.period(run),
            3 => position < self.period(run).div_ceil(2),
            _ => elapsed != count,
        }
    }

    /// The first tick after `after` at which counting makes the output rise.
    pub(super) fn next_rising_edge(&self, after: u64) -> Option<u64> {
        let run = self.run.filter(|run| run.stopped_after.is_none())?;
        let count = u64::from(run.count);
        let edge = match self.mode {
            0 | 1 => run.since.saturating_add(count),
            2 | 3 => {
                let period = self.period(run);
                let periods = elapsed(run, after).checked_div(period)?.saturating_add(1);
                run.since.saturating_add(periods.saturating_mul(period))
            }
            _ => run.since.saturating_add(count).saturating_add(1),
        };
        (edge > after).then_some(edge)
    }

    /// Loads the counting element from the count register.
    fn load(&mut self, now: u64) {
        self.null_count = false;
        self.reload_at = None;
        // A one-shot that the gate triggered runs whatever the gate does next.
        let is_stopped = !self.gate && !matches!(self.mode, 1 | 5);
        self.run = Some(Run {
            since: now,
            count: self.count,
            stopped_after: is_stopped.then_some(0),
        });
    }

    fn latch_count(&mut self, now: u64) {
        // A count that is latched already stays until it is read.
        if self.latched_count.is_none() {
            self.latched_count = Some(self.value(now));
        }
    }

    /// The counting element as the bus sees it.
    fn value(&self, now: u64) -> u16 {
        let Some(run) = self.run else {
            return self.bus_value(u64::from(self.count));
        };
        let elapsed = elapsed(run, now);
        let count = u64::from(run.count);
        let modulus = u64::from(self.modulus());
        let period = self.period(run);
        let position = elapsed.checked_rem(period).unwrap_or(0);
        let value = match self.mode {
            2 => period.saturating_sub(position),
            3 => {
                // Twice through the even part of the count, by twos; an odd count is high for one more.
                let high = period.div_ceil(2);
                let into_half = position.checked_sub(high).unwrap_or(position);
                (period & !1).saturating_sub(into_half.saturating_mul(2))
            }
            // Counting goes on past zero.
            _ => {
                let passed = elapsed.checked_rem(modulus).unwrap_or(0);
                count.saturating_add(modulus).saturating_sub(passed)
            }
        };
        self.bus_value(value)
    }

    /// Binary or four decimal digits.
    fn bus_value(&self, value: u64) -> u16 {
        let value = value.checked_rem(u64::from(self.modulus())).unwrap_or(0);
        let Ok(value) = u16::try_from(value) else {
            return 0;
        };
        if self.is_bcd {
            (value / 1000 % 10) << 12
                | (value / 100 % 10) << 8
                | (value / 10 % 10) << 4
                | (value % 10)
        } else {
            value
        }
    }

    /// What a guest wrote as a count; zero is the largest.
    fn count_of(&self, written: u16) -> u32 {
        let count = if self.is_bcd {
            // Digits beyond 9 are none, and have no defined meaning.
            [12, 8, 4, 0].into_iter().fold(0u32, |count, shift| {
                let digit = u32::from(written >> shift & 0xf).min(9);
                count.saturating_mul(10).saturating_add(digit)
            })
        } else {
            u32::from(written)
        };
        if count == 0 { self.modulus() } else { count }
    }

    fn modulus(&self) -> u32 {
        if self.is_bcd { COUNT_BCD } else { COUNT_BINARY }
    }

    /// Ticks of a period of modes 2 and 3, for which a count of one is illegal and taken as two.
    fn period(&self, run: Run) -> u64 {
        u64::from(run.count.max(2))
    }

    /// "Status Byte".
    fn status(&self, now: u64) -> u8 {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::LowThenHigh => 3,
        };
        u8::from(self.output(now)) << 7
            | u8::from(self.null_count) << 6
            | access << 4
            | self.mode << 1
            | u8::from(self.is_bcd)
    }
}

/// Ticks that were counted until `now`.
fn elapsed(run: Run, now: u64) -> u64 {
    run.stopped_after
        .unwrap_or_else(|| now.saturating_sub(run.since))
}
