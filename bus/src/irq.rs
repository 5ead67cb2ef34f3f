//! Interrupts as devices see them: a wire, or a message.

use std::fmt::Debug;

/// One interrupt wire from a device to the machine's interrupt controllers.
///
/// Called by a device, on any thread, and possibly while the device's own lock is held. The level is
/// that of an active-high wire; whether the receiver acts on the edge or on the level is for the
/// interrupt controller to know. Setting a level that the wire already has does nothing.
pub trait IrqLine: Debug + Send + Sync {
    /// Drives the wire: `true` asserts it.
    fn set_level(&self, asserted: bool);

    /// Asserts and releases the wire: one edge.
    fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}

/// A wire that ends nowhere, for devices that are used without their interrupt.
#[derive(Debug, Default, Clone, Copy)]
pub struct UnconnectedIrqLine;

impl IrqLine for UnconnectedIrqLine {
    fn set_level(&self, _asserted: bool) {}
}

/// A message-signalled interrupt: the memory write that a device, or an IOAPIC for it, sends to the
/// local APICs (Intel SDM volume 3, 12.11 "Message Signalled Interrupts").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Msi {
    /// Guest-physical address that is written, in the `0xfee0_0000` page.
    pub address: u64,
    /// The 32 bits that are written: vector, delivery mode, trigger mode, level.
    pub data: u32,
}

/// Where devices send their message-signalled interrupts.
///
/// Called by a device, on any thread, and possibly while the device's own lock is held; never blocks.
/// A message that no local APIC takes is lost, as on a bus.
pub trait MsiSink: Debug + Send + Sync {
    /// Sends `message` once.
    fn send(&self, message: Msi);
}
