//! The pair of interrupt controllers of a PC: two 8259A, the secondary on input 2 of the primary, and
//! their edge and level control registers.
//!
//! Intel 8259A datasheet (order number 231468); edge and level control: Intel 82371SB (PIIX3)
//! datasheet 2.5.5. A pure state machine: the machine's interrupt controller owns it behind its lock,
//! feeds it levels, reads its output with [`Pic::has_interrupt`] and runs acknowledge cycles. Its ports
//! are three ranges; the owner places on each a device that calls [`Pic::read`] and [`Pic::write`].

use arch::layout::port;

mod i8259;

use i8259::I8259;

/// The primary's input that the secondary drives.
const CASCADE: u8 = 2;
/// Inputs that an edge and level control register can make level-triggered: never the timer, the
/// keyboard or the cascade on the primary, the clock or the coprocessor on the secondary.
const PRIMARY_LEVEL_MASK: u8 = 0xf8;
const SECONDARY_LEVEL_MASK: u8 = 0xde;

/// Two cascaded 8259A. All methods take constant time.
///
/// Until a guest has initialised a chip (ICW1 to ICW4), that chip asserts nothing.
#[derive(Debug, Clone)]
pub struct Pic {
    primary: I8259,
    secondary: I8259,
}

impl Pic {
    /// The chips after power-on.
    pub fn new() -> Self {
        Self {
            primary: I8259::new(Some(CASCADE), PRIMARY_LEVEL_MASK),
            secondary: I8259::new(None, SECONDARY_LEVEL_MASK),
        }
    }

    /// Drives the wire of interrupt request `irq`, 0 to 15; 2 is the cascade and others do not exist:
    /// nothing happens. Look at [`has_interrupt`](Self::has_interrupt) afterwards.
    pub fn set_level(&mut self, irq: u32, asserted: bool) {
        match u8::try_from(irq) {
            Ok(CASCADE) => {}
            Ok(input @ 0..8) => self.primary.set_level(input, asserted),
            Ok(irq @ 8..16) => self.secondary.set_level(irq & 7, asserted),
            _ => {}
        }
        self.drive_cascade();
    }

    /// The pair's output (INTR): whether the CPU is asked to run an acknowledge cycle.
    pub fn has_interrupt(&self) -> bool {
        self.primary.has_interrupt()
    }

    /// An acknowledge cycle (INTA): the vector of the interrupt that the CPU now takes. When the request
    /// went away meanwhile, it is the spurious one, input 7 of the chip that was asked.
    pub fn acknowledge(&mut self) -> u8 {
        let (input, mut vector) = self.primary.acknowledge();
        if input == Some(CASCADE) {
            vector = self.secondary.acknowledge().1;
            self.drive_cascade();
        }
        vector
    }

    /// Answers a read of `data.len()` bytes from I/O port `port` on; returns
    /// [`has_interrupt`](Self::has_interrupt), which a read in poll mode changes. Other ports than those
    /// of `PIC_PRIMARY`, `PIC_SECONDARY` and `PIC_ELCR` in [`port`] stay as the caller filled them.
    pub fn read(&mut self, port: u16, data: &mut [u8]) -> bool {
        for (port, byte) in (port..=u16::MAX).zip(data) {
            if let Some(value) = self.read_byte(port) {
                *byte = value;
            }
        }
        self.has_interrupt()
    }

    /// Takes a write of `data` to the ports from `port` on; returns
    /// [`has_interrupt`](Self::has_interrupt).
    pub fn write(&mut self, port: u16, data: &[u8]) -> bool {
        for (port, value) in (port..=u16::MAX).zip(data) {
            self.write_byte(port, *value);
        }
        self.has_interrupt()
    }

    fn read_byte(&mut self, port: u16) -> Option<u8> {
        let value = if port::PIC_PRIMARY.contains(&port) {
            self.primary.read(port & 1 != 0)
        } else if port::PIC_SECONDARY.contains(&port) {
            self.secondary.read(port & 1 != 0)
        } else if port == port::PIC_ELCR.start {
            self.primary.level_triggered()
        } else if port::PIC_ELCR.contains(&port) {
            self.secondary.level_triggered()
        } else {
            return None;
        };
        self.drive_cascade();
        Some(value)
    }

    fn write_byte(&mut self, port: u16, value: u8) {
        if port::PIC_PRIMARY.contains(&port) {
            self.primary.write(port & 1 != 0, value);
        } else if port::PIC_SECONDARY.contains(&port) {
            self.secondary.write(port & 1 != 0, value);
        } else if port == port::PIC_ELCR.start {
            self.primary.set_level_triggered(value);
        } else if port::PIC_ELCR.contains(&port) {
            self.secondary.set_level_triggered(value);
        }
        self.drive_cascade();
    }

    fn drive_cascade(&mut self) {
        let asserted = self.secondary.has_interrupt();
        self.primary.set_cascade(asserted);
    }
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
