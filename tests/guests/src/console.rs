//! Text on the first serial port, polled.

use core::fmt::{self, Write};

use crate::port;

/// First port of COM1.
pub const COM1: u16 = 0x3f8;
/// Line status register, offset from [`COM1`].
pub const LINE_STATUS: u16 = 5;
/// Line status: a received byte can be read.
pub const DATA_READY: u8 = 0x01;
/// Line status: the transmitter takes a FIFO's worth of bytes.
pub const TRANSMITTER_EMPTY: u8 = 0x20;
/// Bytes that a 16550A's FIFO holds.
pub const FIFO_BYTES: usize = 16;

/// Eight bits, no parity, 115200 baud, FIFOs on and empty, interrupts off.
pub fn initialise() {
    port::write_u8(COM1 + 1, 0);
    port::write_u8(COM1 + 3, 0x80);
    port::write_u8(COM1, 1);
    port::write_u8(COM1 + 1, 0);
    port::write_u8(COM1 + 3, 0x03);
    port::write_u8(COM1 + 2, 0x07);
    port::write_u8(COM1 + 4, 0x0b);
}

/// The serial port as a writer.
#[derive(Debug, Clone, Copy)]
pub struct Console;

impl Console {
    /// Sends all of `bytes`, a FIFO's worth at a time.
    pub fn send(self, bytes: &[u8]) {
        for chunk in bytes.chunks(FIFO_BYTES) {
            while port::read_u8(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
                core::hint::spin_loop();
            }
            for byte in chunk {
                port::write_u8(COM1, *byte);
            }
        }
    }

    /// Waits for a byte and takes it.
    pub fn receive(self) -> u8 {
        while port::read_u8(COM1 + LINE_STATUS) & DATA_READY == 0 {
            core::hint::spin_loop();
        }
        port::read_u8(COM1)
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.send(text.as_bytes());
        Ok(())
    }
}

/// Writes formatted text to the serial port.
#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>) {
    // The console's writer does not fail.
    let _ = Console.write_fmt(arguments);
}

/// Prints to the serial port.
#[macro_export]
macro_rules! print {
    ($($arguments:tt)*) => { $crate::console::print(format_args!($($arguments)*)) };
}

/// Prints a line to the serial port.
#[macro_export]
macro_rules! println {
    () => { $crate::console::print(format_args!("\n")) };
    ($($arguments:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arguments)*))) };
}
