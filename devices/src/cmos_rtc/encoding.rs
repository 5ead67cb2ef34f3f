//! How register B says that times are written: binary or decimal, 24 or 12 hours (MC146818A datasheet,
//! "Time, calendar and alarm locations").

use super::B_24_HOURS;
use super::alarm::AlarmField;

const B_BINARY: u8 = 1 << 2;
/// In 12 hours: after noon.
const PM: u8 = 1 << 7;
/// An alarm byte with both upper bits set matches any time.
const ANY: u8 = 0b11 << 6;

/// A number from 0 to 99.
pub(super) fn encode(mode: u8, value: u8) -> u8 {
    if mode & B_BINARY != 0 {
        return value;
    }
    let tens = value.div_euclid(10).min(9);
    tens << 4 | value.rem_euclid(10)
}

/// What the guest wrote. Decimal digits beyond 9 count as such.
pub(super) fn decode(mode: u8, byte: u8) -> u8 {
    if mode & B_BINARY != 0 {
        return byte;
    }
    (byte >> 4).saturating_mul(10).saturating_add(byte & 0xf)
}

/// An hour from 0 to 23.
pub(super) fn encode_hour(mode: u8, hour: u8) -> u8 {
    if mode & B_24_HOURS != 0 {
        return encode(mode, hour);
    }
    let hour_of_half = match hour.rem_euclid(12) {
        0 => 12,
        hour => hour,
    };
    encode(mode, hour_of_half) | if hour >= 12 { PM } else { 0 }
}

pub(super) fn decode_hour(mode: u8, byte: u8) -> u8 {
    if mode & B_24_HOURS != 0 {
        return decode(mode, byte);
    }
    let hour_of_half = decode(mode, byte & !PM).rem_euclid(12);
    if byte & PM != 0 {
        hour_of_half.saturating_add(12)
    } else {
        hour_of_half
    }
}

/// An alarm byte for seconds or minutes.
pub(super) fn decode_alarm(mode: u8, byte: u8) -> AlarmField {
    field(byte, decode(mode, byte), 60)
}

/// An alarm byte for hours.
pub(super) fn decode_alarm_hour(mode: u8, byte: u8) -> AlarmField {
    field(byte, decode_hour(mode, byte), 24)
}

fn field(byte: u8, value: u8, end: u8) -> AlarmField {
    if byte & ANY == ANY {
        AlarmField::Any
    } else if value < end {
        AlarmField::Exactly(value)
    } else {
        AlarmField::Never
    }
}
