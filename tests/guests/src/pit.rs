//! The 8254 interval timer, 1.193182 MHz.

use crate::port;

/// Input clock in hertz.
pub const HERTZ: u32 = 1_193_182;

/// Port of channel 0; the others follow.
const CHANNEL_0: u16 = 0x40;
const CONTROL: u16 = 0x43;
/// System control port B: gate and output of channel 2.
const CONTROL_B: u16 = 0x61;

/// Starts `channel` in `mode` with a 16-bit `count`, 0 for 65536.
pub fn start(channel: u8, mode: u8, count: u16) {
    port::write_u8(CONTROL, channel << 6 | 0x30 | mode << 1);
    let [low, high] = count.to_le_bytes();
    port::write_u8(CHANNEL_0 + u16::from(channel), low);
    port::write_u8(CHANNEL_0 + u16::from(channel), high);
}

/// Latches and reads the count of `channel`.
pub fn count(channel: u8) -> u16 {
    port::write_u8(CONTROL, channel << 6);
    let low = port::read_u8(CHANNEL_0 + u16::from(channel));
    let high = port::read_u8(CHANNEL_0 + u16::from(channel));
    u16::from_le_bytes([low, high])
}

/// Latches and reads the status byte of `channel` by the read-back command.
pub fn status(channel: u8) -> u8 {
    port::write_u8(CONTROL, 0xe0 | 2 << channel);
    port::read_u8(CHANNEL_0 + u16::from(channel))
}

/// Opens or closes the gate of channel 2.
pub fn set_gate_2(open: bool) {
    let rest = port::read_u8(CONTROL_B) & !0x03;
    port::write_u8(CONTROL_B, rest | u8::from(open));
}

/// The output of channel 2.
pub fn output_2() -> bool {
    port::read_u8(CONTROL_B) & 0x20 != 0
}
