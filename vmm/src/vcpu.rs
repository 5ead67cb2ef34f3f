//! Virtual CPUs: a thread each, which runs the guest and carries its exits to the buses.
//!
//! - [`control`]: what the rest of the machine says to a vCPU thread, and how it is heard at once
//! - [`kick`]: the signal that brings a thread out of the guest
//! - [`run_page`]: the page that a vCPU shares with KVM
//! - [`run_loop`]: KVM_RUN, and what each exit leads to
//! - [`completion`]: instructions that KVM would not emulate
//! - [`run_ahead`]: whether vCPUs carry out others as well, that KVM would emulate slowly
//! - [`crash`]: what is told of one that can go no further
//! - [`state`]: CPUID, model-specific and general registers before the first instruction

mod completion;
mod control;
mod crash;
mod kick;
mod run_ahead;
mod run_loop;
mod run_page;
mod state;
mod thread;

pub use run_loop::{ExternalInterrupts, Vcpu, VcpuContext};
pub use state::{VcpuSetup, VcpuTemplate};
pub use thread::{VcpuThread, pause_all};

pub use control::VcpuControl;
