//! Platform chips of an x86-64 machine, one file each.
//!
//! A chip is a plain value behind the contract of [`bus`]: it knows neither KVM nor guest memory, and
//! reaches the machine through the [`bus::IrqLine`] that it is lent and the [`bus::Effect`] that its
//! writes return. Time comes from a [`Clock`]. The interrupt controllers ([`IoApic`], [`Pic`]) are pure
//! state machines whose owner, the interrupt controller of the machine, delivers what they say.
//!
//! Everything that a guest can make a chip do is bounded: no access loops, allocates or logs without a
//! limit, and a chip whose interrupts come by the clock ([`Pit`], [`CmosRtc`], [`AcpiPm`]) has at most one
//! thread, started when the guest first asks for such an interrupt and joined when the chip is dropped.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod acpi_pm;
mod clock;
mod cmos_rtc;
mod debug_port;
mod i8042;
mod ioapic;
mod pic;
mod pit;
mod pvpanic;
mod reset_register;
mod serial;
mod timed;

pub use acpi_pm::AcpiPm;
pub use clock::{Clock, HostClock};
pub use cmos_rtc::{CmosRtc, RamSize};
pub use debug_port::DebugPort;
pub use i8042::{I8042, I8042Command, I8042Data, SystemControlA};
pub use ioapic::{IoApic, IoApicWrite, MsiList};
pub use pic::Pic;
pub use pit::{Pit, PitCounters, SystemControlB};
pub use pvpanic::PvPanic;
pub use reset_register::ResetRegister;
pub use serial::Serial;

#[cfg(test)]
mod test_clock;
#[cfg(test)]
mod test_line;
