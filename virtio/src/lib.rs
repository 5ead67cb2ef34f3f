//! virtio devices (OASIS virtio 1.3), with no knowledge of KVM.
//!
//! A [`VirtioDevice`] knows queues, guest memory and an [`Interrupt`]; it does not know by which
//! transport a driver found it. A transport in [`transport`] owns the device, speaks the driver's
//! register protocol, and starts the device when the driver has finished its set-up. Each started
//! device has one thread, its [`worker`], which takes descriptor chains from the rings of [`queue`].
//!
//! # Trust
//!
//! Rings, descriptors and buffers are written by the guest at any moment, and are taken for hostile.
//! What a guest does wrong ends in a device that is broken until its driver resets it (virtio 1.3,
//! 2.1.1 `DEVICE_NEEDS_RESET`), and in one line of log.
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
pub mod devices;
pub mod queue;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod worker;

pub use device::{Activation, ActiveQueue, Interrupt, StartError, VirtioDevice, feature};

/// The guest's memory as devices see it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
