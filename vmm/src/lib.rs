//! The assembly of a machine, and the only crate that talks to KVM.

pub mod config;
pub mod console;
mod error;
mod events;
pub mod host;
mod interrupts;
mod kvm;
mod lifecycle;
mod machine;
mod memory;
mod session;
mod vcpu;

pub use error::{ErrorKind, VmmError};
pub use events::Control;
pub use lifecycle::{Outcome, StopReason};
pub use session::{EventHandler, Session};
