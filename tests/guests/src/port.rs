//! Port I/O from ring 3, which the I/O permission map allows.

use core::arch::asm;

/// Reads a byte from `port`.
pub fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: reads a device register; no memory is touched.
    unsafe {
        asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Reads 16 bits from `port`.
pub fn read_u16(port: u16) -> u16 {
    let value;
    // SAFETY: reads a device register; no memory is touched.
    unsafe {
        asm!("in ax, dx", out("ax") value, in("dx") port, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Reads 32 bits from `port`.
pub fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: reads a device register; no memory is touched.
    unsafe {
        asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a byte to `port`.
pub fn write_u8(port: u16, value: u8) {
    // SAFETY: writes a device register; no port of the machine makes a device write to memory.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nostack, preserves_flags)) };
}

/// Writes 16 bits to `port`.
pub fn write_u16(port: u16, value: u16) {
    // SAFETY: writes a device register; no port of the machine makes a device write to memory.
    unsafe { asm!("out dx, ax", in("ax") value, in("dx") port, options(nostack, preserves_flags)) };
}

/// Writes 32 bits to `port`.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: writes a device register; no port of the machine makes a device write to memory.
    unsafe {
        asm!("out dx, eax", in("eax") value, in("dx") port, options(nostack, preserves_flags))
    };
}

/// Writes all of `bytes` to `port` with one string instruction (`rep outsb`).
pub fn write_string(port: u16, bytes: &[u8]) {
    // SAFETY: the instruction reads `bytes` and nothing else; the direction flag is clear.
    unsafe {
        asm!("rep outsb", inout("rcx") bytes.len() => _, inout("rsi") bytes.as_ptr() => _,
            in("dx") port, options(nostack, readonly, preserves_flags));
    }
}

/// Fills `bytes` from `port` with one string instruction (`rep insb`).
pub fn read_string(port: u16, bytes: &mut [u8]) {
    // SAFETY: the instruction writes `bytes` and nothing else; the direction flag is clear.
    unsafe {
        asm!("rep insb", inout("rcx") bytes.len() => _, inout("rdi") bytes.as_mut_ptr() => _,
            in("dx") port, options(nostack, preserves_flags));
    }
}
