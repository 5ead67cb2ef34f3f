//! The device contract: what a device offers to the machine and what it is lent by it.
//!
//! A device is a plain value that implements [`PioDevice`] or [`MmioDevice`]. The machine places it on
//! a [`PioBus`] or [`MmioBus`], behind a lock of its own. A vCPU thread that leaves the guest with an
//! access finds the device by its range, takes that one lock, lets the device answer, drops the lock,
//! and then carries out the [`Effect`] that a write returned. Devices reach the rest of the machine
//! through the handles [`IrqLine`], [`MsiSink`] and [`DoorbellRegistry`], which are lent to them when
//! they are made. A range whose devices move while the guest runs is an [`MmioWindow`], which finds them
//! itself.
//!
//! # Lock order
//!
//! device → interrupt controller → nothing. A device may use an [`IrqLine`] under its own lock; an
//! interrupt controller never calls a device.
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

mod device;
mod doorbell;
mod irq;
mod range_map;

pub use device::{Effect, MmioBus, MmioDevice, MmioWindow, PioBus, PioDevice};
pub use doorbell::{Doorbell, DoorbellRegistry};
pub use irq::{IrqLine, Msi, MsiSink, UnconnectedIrqLine};
pub use range_map::{RangeMap, RangeMapError};
