//! Carries out one x86-64 instruction that KVM would not.
//!
//! Where KVM has no hardware to run guest ring 0 on, or where the guest reaches a device with an
//! instruction that KVM's emulator does not know, KVM_RUN ends with KVM_EXIT_INTERNAL_ERROR. [`complete`]
//! decodes the instruction, does to registers and memory what the processor would have done (Intel SDM
//! volumes 1 to 3, AMD APM volumes 2 to 4), and says what is left for the caller: to enter the guest again,
//! to inject an exception, or to stop the machine because the instruction is not known here either.
//!
//! Nothing in this crate talks to KVM: the vCPU is behind [`Cpu`], memory behind [`GuestMemory`]. All
//! runs on the vCPU's thread, between two KVM_RUN, and takes no lock but the one of a rare fallback (see
//! [`GuestMemory`]). An instruction either completes or leaves registers and memory as they were, but for
//! accessed bits in page tables and devices that were read.
//!
//! - [`Cpu`], [`Registers`], [`SystemRegisters`], [`XsaveLayout`]: the processor's state
//! - [`Feature`]: what the guest's CPUID can say and where
//! - [`Outcome`], [`Exception`]: what became of the instruction
//! - [`fetch_as_program`]: the code of a program that a kernel has been entered from
#![deny(unsafe_code)]
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

mod atomic;
mod cpu;
mod exception;
mod execution;
mod feature;
mod fetch;
mod flags;
mod instructions;
mod interpreter;
mod memory;
mod operand;
mod outcome;
mod paging;
mod segmentation;
mod translations;
mod word;
mod xsave_layout;

pub use cpu::{Cpu, CpuError, Registers, Segment, SegmentName, SystemRegisters, msr};
pub use exception::{Exception, vector};
pub use execution::complete;
pub use feature::{CpuidLocation, CpuidRegister, Feature};
pub use fetch::fetch_as_program;
pub use iced_x86::Mnemonic;
pub use interpreter::{Interpreter, Left, Run};
pub use memory::GuestMemory;
pub use outcome::{Completed, Hint, Outcome, UnknownInstruction};
pub use xsave_layout::{XsaveComponent, XsaveLayout};

#[cfg(test)]
mod testing;
