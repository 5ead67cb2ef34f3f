//! Every way in which a guest can end its machine.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::acpi::Tables;
use crate::console::Console;
use crate::{port, print, println, privileged};

/// Port of the PM1a control register in the low half, value that turns the power off in the high half.
/// Before the FADT was read: port 0x604, SLP_TYP 5 and SLP_EN (ACPI 6.5, 4.8.3.2).
static POWER_OFF: AtomicU32 = AtomicU32::new(0x0604 | (5 << 10 | 1 << 13) << 16);

/// A way to end the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// ACPI S5 by the PM1 control register.
    PowerOff,
    /// The FADT's reset register.
    AcpiReset,
    /// Port 0xcf9, value 6.
    PortCf9,
    /// Pulse of the keyboard controller's reset line: 0xfe to port 0x64.
    KeyboardController,
    /// Fast reset: bit 0 of port 0x92.
    SystemControlPort,
    /// A triple fault.
    TripleFault,
    /// pvpanic: bit 0 of port 0x505; then sleeps.
    Panic,
    /// Sleeps for ever, interrupts off.
    Halt,
}

impl Way {
    /// The names on the command line, and what they mean.
    const NAMES: [(&str, Self); 8] = [
        ("poweroff", Self::PowerOff),
        ("acpi-reset", Self::AcpiReset),
        ("port-cf9", Self::PortCf9),
        ("i8042", Self::KeyboardController),
        ("port-92", Self::SystemControlPort),
        ("triple-fault", Self::TripleFault),
        ("pvpanic", Self::Panic),
        ("halt", Self::Halt),
    ];

    /// The way of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find_map(|(known, way)| (*known == name).then_some(*way))
    }

    /// Asks on the console which way to take: prints `END?` and reads a line.
    ///
    /// # Panics
    ///
    /// When the answer is unknown.
    pub fn asked() -> Self {
        print!("END?");
        let mut line = [0; 32];
        let mut length = 0;
        loop {
            match Console.receive() {
                b'\n' | b'\r' => break,
                byte if length < line.len() => {
                    line[length] = byte;
                    length += 1;
                }
                _ => {}
            }
        }
        println!();
        let name = core::str::from_utf8(&line[..length]).unwrap_or("");
        Self::named(name).unwrap_or_else(|| panic!("unknown end {name:?}"))
    }

    /// Ends the machine. When it goes on nevertheless, says so and turns the power off.
    pub fn take(self, acpi: Option<&Tables>) -> ! {
        match self {
            Self::PowerOff => power_off(),
            Self::AcpiReset => {
                let (port, value) = acpi
                    .and_then(Tables::reset_register)
                    .expect("a reset register in the FADT");
                port::write_u8(port, value);
            }
            Self::PortCf9 => port::write_u8(0xcf9, 6),
            Self::KeyboardController => port::write_u8(0x64, 0xfe),
            Self::SystemControlPort => port::write_u8(0x92, port::read_u8(0x92) | 1),
            Self::TripleFault => privileged::triple_fault(),
            Self::Panic => port::write_u8(0x505, 1),
            Self::Halt => privileged::halt_for_ever(),
        }
        crate::time::spin(2 * crate::time::SECONDS);
        println!("\nFAIL end: still running after {self:?}");
        power_off()
    }
}

/// Takes the PM1a control port and `_S5`'s sleep type from the tables.
pub fn learn_power_off(tables: &Tables) {
    if let Some((port, sleep_type)) = tables.power_off() {
        let value = u32::from(sleep_type) << 10 | 1 << 13;
        POWER_OFF.store(u32::from(port) | value << 16, Ordering::Release);
    }
}

/// Turns the power off by ACPI S5. Where that does nothing, says so and resets.
pub fn power_off() -> ! {
    let packed = POWER_OFF.load(Ordering::Acquire);
    port::write_u16((packed & 0xffff) as u16, (packed >> 16) as u16);
    // The machine may take a moment to stop its processors.
    crate::time::spin(2 * crate::time::SECONDS);
    println!("\nFAIL end: still running after the power-off");
    port::write_u8(0x64, 0xfe);
    privileged::halt_for_ever()
}
