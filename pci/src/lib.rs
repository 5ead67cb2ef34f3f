//! PCI Express as a guest sees it: functions with their configuration spaces, and the root complex that
//! finds them. With no knowledge of KVM, nor of what a function does.
//!
//! A device is a [`Function`]. Most have an [`Endpoint`], which keeps the configuration space with its
//! header, base address registers and capabilities, and carries out what a write there means. The
//! [`RootComplex`] holds the functions of one segment, gives their registers addresses, and takes each
//! access to where the guest has put them: configuration accesses through the [`ConfigurationPorts`] and
//! the [`EcamWindow`], accesses to registers through a [`BarWindow`]. Functions that come and go while the
//! guest runs are behind a [`RootPort`] each.
//!
//! # Lock order
//!
//! root port → function behind it → routes of the root complex → nothing, and function → interrupt →
//! interrupt controller. An access to registers looks the function up, forgets the routes, and then takes
//! the function's lock alone.
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

mod address;
mod bar;
mod bridge;
mod configuration;
mod ecam;
mod endpoint;
mod express;
mod function;
mod header;
mod host_bridge;
mod intx;
mod lock;
mod msi;
mod msix;
mod ports;
mod power;
mod register;
mod root_complex;
mod root_port;
mod window;

pub use address::FunctionAddress;
pub use bar::{BARS, Bar, BarWidth};
pub use configuration::{CapabilityId, ConfigurationError, ConfigurationSpace};
pub use ecam::EcamWindow;
pub use endpoint::{ConfigWrite, Endpoint};
pub use express::EndpointKind;
pub use function::Function;
pub use header::{Identity, command};
pub use host_bridge::HostBridge;
pub use intx::{Intx, SharedIrqLine, intx_pin};
pub use msix::{Msix, MsixPlace};
pub use ports::ConfigurationPorts;
pub use root_complex::{AttachError, PlaceError, RootComplex};
pub use root_port::{RootPort, RootPortOptions, SlotListener};
pub use window::{BarWindow, Windows};
