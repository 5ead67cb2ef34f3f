//! The configuration space of an endpoint, and what a guest's writes to it mean: interrupts by pin and by
//! message, and the function-level reset (PCI Express Base Specification 5.0, 6.6.2).
//!
//! A part of a function, under the function's lock.

use std::sync::Arc;

use crate::bar::Bar;
use crate::configuration::{CapabilityId, ConfigurationError, ConfigurationSpace};
use crate::express::{EndpointKind, Express};
use crate::header::{Identity, command, register, status};
use crate::intx::{INTA, Intx};
use crate::msix::{Msix, MsixPlace};
use crate::power::PowerManagement;
use crate::register::Register16;

/// What a write to the configuration space asks of its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a function has to reset itself when it is asked to"]
pub enum ConfigWrite {
    /// Nothing more.
    Done,
    /// A function-level reset: the function brings what it does to rest, and then calls
    /// [`Endpoint::reset`]. Until then nothing has changed: what is under way has its interrupts still.
    Reset,
}

/// The configuration space of an endpoint.
#[derive(Debug)]
pub struct Endpoint {
    configuration: ConfigurationSpace,
    express: Express,
    power: PowerManagement,
    /// The bridges above it, if there are any, let its requests pass.
    requests_forwarded: bool,
    /// The vectors, and where their message control is.
    msix: Option<(Arc<Msix>, Register16)>,
    intx: Option<Arc<Intx>>,
}

impl Endpoint {
    /// An endpoint without registers and interrupts.
    ///
    /// # Errors
    ///
    /// None that a caller can cause: an empty configuration space has room.
    pub fn new(identity: Identity, kind: EndpointKind) -> Result<Self, ConfigurationError> {
        let mut configuration = ConfigurationSpace::new(identity);
        let express = Express::endpoint(&mut configuration, kind)?;
        let power = PowerManagement::add(&mut configuration)?;
        Ok(Self {
            configuration,
            express,
            power,
            requests_forwarded: true,
            msix: None,
            intx: None,
        })
    }

    /// Gives it registers.
    ///
    /// # Errors
    ///
    /// As for [`ConfigurationSpace::add_bar`].
    pub fn add_bar(&mut self, index: usize, bar: Bar) -> Result<(), ConfigurationError> {
        self.configuration.add_bar(index, bar)
    }

    /// Gives it a capability of its own.
    ///
    /// # Errors
    ///
    /// As for [`ConfigurationSpace::add_capability`].
    pub fn add_capability(
        &mut self,
        id: CapabilityId,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u8, ConfigurationError> {
        self.configuration.add_capability(id, body, writable)
    }

    /// Gives it vectors, whose table and pending bits the function puts at `place`.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::NoRoom`] when the configuration space is full.
    pub fn add_msix(
        &mut self,
        msix: Arc<Msix>,
        place: MsixPlace,
    ) -> Result<(), ConfigurationError> {
        let control = msix.add_capability(&mut self.configuration, place)?;
        self.msix = Some((msix, control));
        Ok(())
    }

    /// Gives it a pin, INTA#. `interrupt_line` is what guests without ACPI find in the register of that
    /// name.
    pub fn set_intx(&mut self, intx: Arc<Intx>, interrupt_line: u8) {
        let lines = [interrupt_line, INTA];
        self.configuration.put(register::INTERRUPT_LINE, &lines);
        self.intx = Some(intx);
    }

    /// Whether the function may access memory now. Its messages are held back here where it may not;
    /// holding the rest back is for the function.
    pub fn is_bus_master(&self) -> bool {
        let enabled = self.configuration.has_command(command::BUS_MASTER);
        enabled && self.requests_forwarded && !self.configuration.is_asleep()
    }

    /// Takes whether the bridges above let requests pass: they do at first.
    pub fn set_requests_forwarded(&mut self, forwarded: bool) {
        self.requests_forwarded = forwarded;
        if let Some((msix, _)) = &self.msix {
            msix.set_bus_master(self.is_bus_master());
        }
    }

    /// The bytes.
    pub const fn configuration(&self) -> &ConfigurationSpace {
        &self.configuration
    }

    /// Answers a read.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.configuration.read(offset, data);
        if let Some(intx) = &self.intx
            && intx.is_pending()
        {
            let status = Register16 {
                offset: register::STATUS,
            };
            status.show(status::INTERRUPT, offset, data);
        }
        if let Some((msix, control)) = &self.msix {
            control.show(msix.control(), offset, data);
        }
        self.power.show(&self.configuration, offset, data);
    }

    /// Takes a write.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> ConfigWrite {
        if self.express.asks_for_reset(offset, data) {
            return ConfigWrite::Reset;
        }
        self.configuration.write(offset, data);
        self.power.write(&mut self.configuration, offset, data);
        if let Some((msix, control)) = &self.msix
            && let Some(value) = control.written(msix.control(), offset, data)
        {
            msix.set_control(value);
            if let Some(intx) = &self.intx {
                intx.set_replaced(msix.is_enabled());
            }
        }
        if let Some((msix, _)) = &self.msix {
            msix.set_bus_master(self.is_bus_master());
        }
        if let Some(intx) = &self.intx {
            let disabled = self.configuration.has_command(command::INTX_DISABLE);
            intx.set_disabled(disabled || self.configuration.is_asleep());
        }
        ConfigWrite::Done
    }

    /// Brings configuration space and interrupts back to where they were before the guest's first access.
    pub fn reset(&mut self) {
        self.configuration.reset();
        if let Some((msix, _)) = &self.msix {
            msix.reset();
        }
        if let Some(intx) = &self.intx {
            intx.reset();
        }
    }
}

#[cfg(test)]
mod tests;
