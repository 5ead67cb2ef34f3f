//! A virtual machine monitor as a library: a stock Linux on /dev/kvm, in a few lines.
//!
//! A [`MachineConfig`](config::MachineConfig) says what the machine is, in plain data. A [`Session`]
//! opens what it names, builds the machine and drives it to its end. A [`Control`] steers it meanwhile,
//! from any thread, and a [`Hotplug`] attaches devices to it and detaches them.
//!
//! ```no_run
//! use vmm::config::{ByteSize, DiskConfig, MachineConfig, MemoryConfig};
//! use vmm::console::Console;
//! use vmm::{Outcome, Session};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = MachineConfig {
//!         kernel: Some("vmlinuz".into()),
//!         initrd: Some("initrd.img".into()),
//!         cpus: 2,
//!         memory: MemoryConfig::with_size(ByteSize(1 << 30)),
//!         disk: vec![DiskConfig::new("root.img")],
//!         ..MachineConfig::default()
//!     };
//!     // The guest's serial port writes to whatever implements `Write`.
//!     let console = Console::from_parts(None, Box::new(std::io::stdout()))?;
//!     match Session::open(config, console)?.run()? {
//!         Outcome::PowerOff => println!("the guest turned itself off"),
//!         other => println!("the guest ended: {other:?}"),
//!     }
//!     Ok(())
//! }
//! ```
//!
//! This is the only crate that talks to KVM. Below it, `boot` puts a kernel into memory, `virtio`,
//! `block` and `devices` are what the guest sees, `bus` is the contract between them, and `arch` says in
//! plain data what an x86-64 machine looks like.

pub mod config;
pub mod console;
mod crash;
mod error;
mod events;
pub mod host;
mod hotplug;
mod interrupts;
mod kvm;
mod lifecycle;
mod listener;
mod machine;
mod memory;
mod metrics;
mod resources;
mod session;
mod vcpu;

/// Making, describing and copying images.
pub use block::image;
pub use block::{ImageFormat, ResizeError};
pub use crash::{Crash, VcpuState};
pub use error::{ErrorKind, VmmError};
pub use events::Control;
pub use hotplug::{DeviceId, Hotplug, HotplugDevice, HotplugError};
pub use lifecycle::{Outcome, StopReason};
pub use listener::ListenError;
pub use metrics::{ExitReason, Metrics, VcpuMetrics};
pub use resources::DiskHandle;
pub use session::{EventHandler, Session};
pub use virtio::devices::vsock::VsockCounts;
