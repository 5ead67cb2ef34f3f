//! What the tests with real guests need: the bare guests, the `cuddy` binary, a machine as a process, and
//! things to attach to it.
//!
//! A test starts a [`Machine`], which is one `cuddy run` with its serial port on pipes, and reads what its
//! guest finds: lines `PASS name` and `FAIL name: why`. Everything here panics with what the machine said
//! when it is not as the test wants it, for that is how a test fails.

mod cargo_build;
pub mod disk;
pub mod guests;
mod machine;
pub mod network;
pub mod write_log;

pub use cargo_build::cuddy;
pub use machine::{Finished, Machine, MachineBuilder};
