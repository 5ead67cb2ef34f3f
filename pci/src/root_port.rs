//! A root port with a hot-plug slot (PCI Express Base Specification 5.0, 1.3.1 and 6.7): a bridge of the
//! root bus with one device behind it, at most, that comes and goes while the guest runs.
//!
//! A part of the root complex, which follows what the port says of buses, windows and resets, and tells it
//! of devices. vCPU threads and the machine's driver call it under its lock.

mod slot;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bus::{IrqLine, MsiSink};

use crate::bridge::{self, Forwarding};
use crate::configuration::{ConfigurationError, ConfigurationSpace};
use crate::express::{Express, SlotRegisters};
use crate::header::{Identity, command, register, status};
use crate::intx::{INTA, Intx};
use crate::msi::MsiCapability;
use crate::register::Register16;
use slot::{Slot, control};

/// As another monitor of machines has it, whose port is no particular chip's either: known by its class,
/// bridge from PCI to PCI, to the drivers of all guests, and to no workaround for chips.
const IDENTITY: Identity = Identity {
    vendor_id: 0x1b36,
    device_id: 0x000c,
    revision_id: 0,
    class: [0x06, 0x04, 0x00],
    subsystem_vendor_id: 0,
    subsystem_id: 0,
};
/// The one cause of the pin.
const HOT_PLUG: u8 = 1;

/// Hears of what a guest does with a slot.
///
/// Called on a vCPU thread, under the port's lock: must neither block nor call the root complex.
pub trait SlotListener: Debug + Send + Sync {
    /// The device of which the removal was requested may be taken away now. Once for each request.
    fn removal_permitted(&self);
}

/// What a root port is made with.
#[derive(Debug)]
pub struct RootPortOptions {
    /// Number of its slot, 1 to 8191, by which guests call it; each in the machine has its own.
    pub slot_number: u16,
    /// Where its messages go.
    pub messages: Arc<dyn MsiSink>,
    /// Its pin, for guests that do not use messages.
    pub pin: Arc<dyn IrqLine>,
    /// What its interrupt line register says at first.
    pub interrupt_line: u8,
    /// Who hears of the slot.
    pub listener: Arc<dyn SlotListener>,
}

/// A root port.
#[derive(Debug)]
pub struct RootPort {
    configuration: ConfigurationSpace,
    express: Express,
    slot: Slot,
    msi: MsiCapability,
    messages: Arc<dyn MsiSink>,
    /// There is a reason for a message, and it has been sent.
    message_sent: bool,
    intx: Intx,
    listener: Arc<dyn SlotListener>,
}

impl RootPort {
    /// A port with an empty slot.
    ///
    /// # Errors
    ///
    /// None that a caller can cause: the capabilities fit into the configuration space.
    pub fn new(options: RootPortOptions) -> Result<Self, ConfigurationError> {
        let mut configuration = bridge::configuration(IDENTITY);
        let number = options.slot_number & slot::NUMBER_MAX;
        let registers = SlotRegisters {
            number,
            capabilities: slot::CAPABILITIES | u32::from(number) << slot::NUMBER_SHIFT,
            control: control::ATTENTION_INDICATOR_OFF | control::POWER_INDICATOR_OFF,
            control_writable: control::WRITABLE,
        };
        let express = Express::root_port(&mut configuration, registers)?;
        let msi = MsiCapability::add(&mut configuration)?;
        let lines = [options.interrupt_line, INTA];
        configuration.put(register::INTERRUPT_LINE, &lines);
        Ok(Self {
            configuration,
            express,
            slot: Slot::default(),
            msi,
            messages: options.messages,
            message_sent: false,
            intx: Intx::new(options.pin),
            listener: options.listener,
        })
    }

    /// What firmware does before a guest starts: the bus behind the port, the addresses that it forwards
    /// there, and that it forwards at all.
    pub(crate) fn assign(&mut self, secondary_bus: u8, window: &Range<u64>) {
        let [command, _] = (command::MEMORY | command::BUS_MASTER).to_le_bytes();
        let last = window.end.saturating_sub(1);
        let writes: [(u8, &[u8]); 4] = [
            (
                bridge::register::SECONDARY_BUS,
                &[secondary_bus, secondary_bus],
            ),
            (
                bridge::register::MEMORY_BASE,
                &bridge::window_register(window.start),
            ),
            (
                bridge::register::MEMORY_LIMIT,
                &bridge::window_register(last),
            ),
            (register::COMMAND, &[command]),
        ];
        for (offset, data) in writes {
            self.configuration.write(u16::from(offset), data);
        }
    }

    /// What it forwards now.
    pub(crate) fn forwarding(&self) -> Forwarding {
        bridge::forwarding(&self.configuration)
    }

    /// A device is there before the guest starts, with power.
    pub(crate) fn insert_at_start(&mut self) {
        self.slot.insert_at_start();
        let offset = self.express.slot_control().offset;
        let value = control::ATTENTION_INDICATOR_OFF | control::POWER_INDICATOR_ON;
        self.configuration.put(offset, &value.to_le_bytes());
    }

    /// A device has come, or gone.
    pub(crate) fn set_present(&mut self, present: bool) {
        self.slot.set_present(present);
        self.interrupt();
    }

    /// The device is wanted back: whether it may be taken away at once. If not, the guest is asked, and
    /// the listener hears when it may.
    pub(crate) fn request_removal(&mut self) -> bool {
        let permitted = self.slot.request_removal();
        self.interrupt();
        permitted
    }

    /// Whether the guest permits that the device is taken away.
    pub(crate) const fn removal_is_permitted(&self) -> bool {
        self.slot.removal_is_permitted()
    }

    /// The device is not wanted back any more.
    pub(crate) fn withdraw_request(&mut self) {
        self.slot.withdraw_request(self.slot_control());
        self.interrupt();
    }

    fn slot_control(&self) -> u16 {
        let offset = self.express.slot_control().offset;
        u16::try_from(self.configuration.number::<2>(offset)).unwrap_or(0)
    }

    /// Interrupts for what has happened, as far as the guest lets it (6.7.3.4): a message when a reason
    /// comes up while there was none, or the pin for as long as there is one.
    fn interrupt(&mut self) {
        let wanted = self.slot.wants_interrupt(self.slot_control());
        let messages = self.msi.is_enabled(&self.configuration);
        self.intx.set_replaced(messages);
        let disabled = self.configuration.has_command(command::INTX_DISABLE);
        self.intx.set_disabled(disabled);
        if wanted {
            self.intx.raise(HOT_PLUG);
        } else {
            self.intx.take();
        }
        let due = wanted && messages && self.configuration.has_command(command::BUS_MASTER);
        if due && !self.message_sent {
            self.messages.send(self.msi.message(&self.configuration));
        }
        self.message_sent = due;
    }

    /// Answers a read of 1, 2 or 4 bytes of one doubleword of the configuration space.
    pub(crate) fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.configuration.read(offset, data);
        let link = self.express.link_status();
        link.show(self.slot.link_status(), offset, data);
        let slot = self.express.slot_status();
        slot.show(self.slot.status(), offset, data);
        if self.intx.is_pending() {
            let status = Register16 {
                offset: register::STATUS,
            };
            status.show(status::INTERRUPT, offset, data);
        }
    }

    /// Takes a write of 1, 2 or 4 bytes of one doubleword of the configuration space.
    pub(crate) fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.configuration.write(offset, data);
        if let Some(cleared) = self.express.slot_status().written(0, offset, data) {
            self.slot.status_written(cleared);
        }
        let control = self.slot_control();
        let touched = self.express.slot_control().written(0, offset, data);
        if touched.is_some() && self.slot.control_written(control) {
            self.listener.removal_permitted();
        }
        self.interrupt();
    }
}

#[cfg(test)]
mod tests;
