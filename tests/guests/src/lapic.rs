//! The local APIC in xAPIC mode (Intel SDM volume 3, chapter 12).

use crate::interrupts;
use crate::mmio::Registers;
use crate::time::{MILLISECONDS, wait_until};

// SAFETY: the architectural address of the local APIC, outside of RAM.
const REGISTERS: Registers = unsafe { Registers::at(0xfee0_0000) };

/// Vector of spurious interrupts.
pub const SPURIOUS_VECTOR: u8 = 0xff;
/// Local vector table: the timer.
pub const LVT_TIMER: usize = 0x320;
/// Local vector table: pin LINT0.
pub const LVT_LINT0: usize = 0x350;
/// Bit of a local vector table entry: masked.
pub const MASKED: u32 = 1 << 16;
/// Delivery mode of LINT0 with the 8259 pair behind it.
pub const EXTINT: u32 = 7 << 8;

/// Enables this processor's APIC; the 8259 pair stays closed.
pub fn enable() {
    REGISTERS.write_u32(LVT_LINT0, MASKED);
    REGISTERS.write_u32(0xf0, 0x100 | u32::from(SPURIOUS_VECTOR));
    REGISTERS.write_u32(0x80, 0);
}

/// Lets the 8259 pair's interrupts through LINT0 ("virtual wire"), or not.
pub fn set_virtual_wire(open: bool) {
    REGISTERS.write_u32(LVT_LINT0, if open { EXTINT } else { MASKED });
}

/// This processor's APIC identifier.
pub fn identifier() -> u8 {
    (REGISTERS.read_u32(0x20) >> 24) as u8
}

/// Version register.
pub fn version() -> u32 {
    REGISTERS.read_u32(0x30)
}

/// Acknowledges the interrupt in service.
pub fn end_of_interrupt() {
    REGISTERS.write_u32(0xb0, 0);
}

/// Reads a register.
pub fn read(offset: usize) -> u32 {
    REGISTERS.read_u32(offset)
}

/// Whether `vector` waits to be delivered to this processor.
pub fn is_requested(vector: u8) -> bool {
    const REQUEST: usize = 0x200;
    let word = REGISTERS.read_u32(REQUEST + usize::from(vector / 32) * 0x10);
    word & 1 << (vector % 32) != 0
}

/// Starts the timer: `count` ticks of the bus clock divided by 1, once or periodically.
pub fn start_timer(vector: u8, count: u32, periodic: bool) {
    interrupts::acknowledge(vector, interrupts::EOI_LAPIC);
    REGISTERS.write_u32(0x3e0, 0xb);
    REGISTERS.write_u32(LVT_TIMER, u32::from(vector) | u32::from(periodic) << 17);
    REGISTERS.write_u32(0x380, count);
}

/// Stops the timer.
pub fn stop_timer() {
    REGISTERS.write_u32(LVT_TIMER, MASKED);
    REGISTERS.write_u32(0x380, 0);
}

/// Sends the interprocessor interrupt `command` (low half of the ICR) to `destination`.
///
/// # Panics
///
/// When the APIC does not accept it.
pub fn send(destination: u8, command: u32) {
    REGISTERS.write_u32(0x310, u32::from(destination) << 24);
    REGISTERS.write_u32(0x300, command);
    assert!(
        wait_until(100 * MILLISECONDS, || REGISTERS.read_u32(0x300) & 1 << 12
            == 0),
        "the interrupt command {command:#x} stays pending"
    );
}
