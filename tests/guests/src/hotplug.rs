//! A root port and its hot-plug slot (PCI Express Base Specification 5.0, 6.7), as a driver sees them.

use crate::ioapic::IoApic;
use crate::pci::{Function, capability, command, register};
use crate::time::{SECONDS, wait_until};
use crate::{Machine, interrupts, lapic, privileged};

/// Class, sub-class and interface of a bridge from PCI to PCI.
const BRIDGE: u32 = 0x06_0400;

/// Bits of slot control.
pub mod control {
    /// Attention button, presence and link may interrupt, and all that may does.
    pub const EVENTS: u16 = 1 | 1 << 3 | 1 << 5 | 1 << 12;
    /// The power indicator is on.
    pub const ON: u16 = 1 << 8;
    /// It blinks.
    pub const BLINKS: u16 = 2 << 8;
    /// It is off: the device may be taken away.
    pub const OFF: u16 = 3 << 8;
}

/// Bits of slot status.
pub mod status {
    /// The attention button was pressed.
    pub const BUTTON: u16 = 1;
    /// Presence has changed.
    pub const PRESENCE: u16 = 1 << 3;
    /// There is a device.
    pub const PRESENT: u16 = 1 << 6;
    /// The link's state has changed.
    pub const LINK: u16 = 1 << 8;
}

/// How a port interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// By a message.
    Message,
    /// By its pin.
    Pin,
}

/// A root port whose slot interrupts.
#[derive(Debug)]
pub struct RootPort {
    /// The port.
    pub function: Function,
    express: u8,
    signal: Signal,
    vector: u8,
    taken: u64,
}

impl RootPort {
    /// All ports of the machine.
    pub fn all() -> impl Iterator<Item = Function> {
        Function::all().filter(|function| function.read_u32(8) >> 8 == BRIDGE)
    }

    /// The slot of `function`, whose interrupt comes as `vector` from now on.
    ///
    /// # Panics
    ///
    /// When it is no port with a slot.
    pub fn open(machine: &Machine, function: Function, signal: Signal, vector: u8) -> Self {
        let find = |id| function.capabilities(id).next().expect("a capability");
        let express = find(capability::EXPRESS);
        let kind = function.read_u16(express + 2);
        assert_eq!(kind >> 4 & 0x1f, 0x14, "a root port with a slot");
        lapic::enable();
        interrupts::acknowledge(vector, interrupts::EOI_LAPIC);
        match signal {
            Signal::Message => {
                let msi = find(capability::MSI);
                let address = 0xfee0_0000 | u32::from(lapic::identifier()) << 12;
                function.write_u32(msi + 4, address);
                function.write_u32(msi + 8, 0);
                function.write_u16(msi + 12, u16::from(vector));
                function.write_u16(msi + 2, 1);
            }
            Signal::Pin => {
                let gsi = u32::from(function.read_u8(register::INTERRUPT));
                IoApic::first(machine.acpi.as_ref()).route_level(gsi, vector);
            }
        }
        function.write_u16(register::COMMAND, command::MEMORY | command::BUS_MASTER);
        let port = Self {
            function,
            express,
            signal,
            vector,
            taken: interrupts::count(vector),
        };
        port.clear(0xffff);
        port.set_indicator(match port.is_occupied() {
            true => control::ON,
            false => control::OFF,
        });
        port
    }

    /// The function behind the port.
    pub fn behind(&self) -> Function {
        Function {
            bus: self.function.read_u8(0x19),
            device: 0,
        }
    }

    /// Start of the addresses that the port forwards.
    pub fn window(&self) -> u32 {
        u32::from(self.function.read_u16(0x20) & 0xfff0) << 16
    }

    /// The slot's number.
    pub fn slot_number(&self) -> u32 {
        self.function.read_u32(self.express + 0x14) >> 19
    }

    /// Slot status.
    pub fn status(&self) -> u16 {
        self.function.read_u16(self.express + 0x1a)
    }

    /// Whether there is a device.
    pub fn is_occupied(&self) -> bool {
        self.status() & status::PRESENT != 0
    }

    /// Whether the link is up.
    pub fn link_is_up(&self) -> bool {
        self.function.read_u16(self.express + 0x12) & 1 << 13 != 0
    }

    /// Clears events.
    pub fn clear(&self, events: u16) {
        self.function.write_u16(self.express + 0x1a, events);
    }

    /// Sets the power indicator, with all events on.
    pub fn set_indicator(&self, indicator: u16) {
        let value = control::EVENTS | indicator;
        self.function.write_u16(self.express + 0x18, value);
    }

    /// Waits until the slot interrupts, at most 30 seconds, and takes the events that it tells of.
    ///
    /// # Panics
    ///
    /// When it does not interrupt, or tells of nothing.
    pub fn wait_events(&mut self) -> u16 {
        let count = || interrupts::count(self.vector);
        let mut events = 0;
        let came = match self.signal {
            Signal::Message => {
                privileged::interrupts_on();
                let came = wait_until(30 * SECONDS, || count() != self.taken);
                privileged::interrupts_off();
                came
            }
            // The level is taken away before the interrupt is taken, which is thus one.
            Signal::Pin => wait_until(30 * SECONDS, || lapic::is_requested(self.vector)),
        };
        assert!(came, "no interrupt, slot status {:#x}", self.status());
        loop {
            let now = self.status() & (status::BUTTON | status::PRESENCE | status::LINK);
            if now == 0 {
                break;
            }
            events |= now;
            self.clear(now);
        }
        if self.signal == Signal::Pin {
            privileged::interrupts_on();
            assert!(wait_until(SECONDS, || count() != self.taken));
            privileged::interrupts_off();
        }
        self.taken = count();
        assert_ne!(events, 0, "an interrupt without events");
        events
    }
}
