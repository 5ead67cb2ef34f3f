//! The real-time clock (Motorola MC146818A) behind ports 0x70 and 0x71.

use crate::port;

/// Status register A: update in progress, divider, rate of the periodic interrupt.
pub const STATUS_A: u8 = 0x0a;
/// Status register B: interrupt enables, data mode.
pub const STATUS_B: u8 = 0x0b;
/// Status register C: what the interrupt was for; reading clears it.
pub const STATUS_C: u8 = 0x0c;
/// Status register D: bit 7 says that the time is valid.
pub const STATUS_D: u8 = 0x0d;

/// Reads a register.
pub fn read(index: u8) -> u8 {
    port::write_u8(0x70, index);
    port::read_u8(0x71)
}

/// Writes a register.
pub fn write(index: u8, value: u8) {
    port::write_u8(0x70, index);
    port::write_u8(0x71, value);
}

/// A date and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Full year.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
}

impl Time {
    /// The clock's time, read twice alike outside of an update, in whichever data mode the clock is.
    pub fn now() -> Self {
        loop {
            while read(STATUS_A) & 0x80 != 0 {}
            let first = Self::read_once();
            if read(STATUS_A) & 0x80 == 0 && Self::read_once() == first {
                return first;
            }
        }
    }

    /// Seconds since 1970-01-01, as if the time were in UTC.
    pub fn seconds_since_1970(self) -> u64 {
        // Days from a civil date: years start in March, so that the leap day is the last one.
        let year = self.year - u64::from(self.month <= 2);
        let month = (self.month + 9) % 12;
        let days = year * 365 + year / 4 - year / 100
            + year / 400
            + (month * 306 + 5) / 10
            + (self.day - 1)
            - 719_468;
        ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second
    }

    fn read_once() -> Self {
        let mode = read(STATUS_B);
        let (binary, hours_24) = (mode & 4 != 0, mode & 2 != 0);
        let number = |value: u8| {
            u64::from(if binary {
                value
            } else {
                (value >> 4) * 10 + (value & 0xf)
            })
        };
        let raw_hour = read(4);
        let hour = if hours_24 {
            number(raw_hour)
        } else {
            number(raw_hour & 0x7f) % 12 + if raw_hour & 0x80 != 0 { 12 } else { 0 }
        };
        // The century is where the PC keeps it; clocks without it answer 0.
        let century = match number(read(0x32)) {
            century @ 19..=21 => century,
            _ => 20,
        };
        Self {
            year: century * 100 + number(read(9)),
            month: number(read(8)),
            day: number(read(7)),
            hour,
            minute: number(read(2)),
            second: number(read(0)),
        }
    }
}
