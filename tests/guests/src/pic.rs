//! The two 8259A interrupt controllers.

use crate::port;

/// First vector of the primary after [`initialise`].
pub const PRIMARY_VECTOR: u8 = 0x20;
/// First vector of the secondary after [`initialise`].
pub const SECONDARY_VECTOR: u8 = 0x28;

const PRIMARY: u16 = 0x20;
const SECONDARY: u16 = 0xa0;

/// Initialises both by ICW1 to ICW4, with all lines masked.
pub fn initialise() {
    for (port, vector, wiring) in [
        (PRIMARY, PRIMARY_VECTOR, 0x04),
        (SECONDARY, SECONDARY_VECTOR, 0x02),
    ] {
        port::write_u8(port, 0x11);
        port::write_u8(port + 1, vector);
        port::write_u8(port + 1, wiring);
        port::write_u8(port + 1, 0x01);
        port::write_u8(port + 1, 0xff);
    }
}

/// Masks all lines but those whose bits are set; the cascade is opened where the secondary needs it.
pub fn unmask(lines: u16) {
    let cascade = if lines >> 8 != 0 { 0x04 } else { 0 };
    port::write_u8(PRIMARY + 1, !(lines as u8 | cascade));
    port::write_u8(SECONDARY + 1, !((lines >> 8) as u8));
}

/// The interrupt mask registers, the secondary's in the high half.
pub fn masks() -> u16 {
    u16::from(port::read_u8(PRIMARY + 1)) | u16::from(port::read_u8(SECONDARY + 1)) << 8
}

/// The interrupt request registers, the secondary's in the high half.
pub fn requests() -> u16 {
    port::write_u8(PRIMARY, 0x0a);
    port::write_u8(SECONDARY, 0x0a);
    u16::from(port::read_u8(PRIMARY)) | u16::from(port::read_u8(SECONDARY)) << 8
}

/// The in-service registers, the secondary's in the high half.
pub fn in_service() -> u16 {
    port::write_u8(PRIMARY, 0x0b);
    port::write_u8(SECONDARY, 0x0b);
    u16::from(port::read_u8(PRIMARY)) | u16::from(port::read_u8(SECONDARY)) << 8
}

/// Sends a non-specific end of interrupt to the primary.
pub fn end_of_interrupt() {
    port::write_u8(PRIMARY, 0x20);
}
