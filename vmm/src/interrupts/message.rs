//! Messages to the local APICs in KVM (KVM API, 4.70 "KVM_SIGNAL_MSI").

use std::sync::Arc;

use bus::{Msi, MsiSink};
use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;

/// The way of messages into a machine.
#[derive(Debug)]
pub(super) struct Messages {
    vm: Arc<VmFd>,
}

impl Messages {
    pub(super) const fn new(vm: Arc<VmFd>) -> Self {
        Self { vm }
    }
}

impl MsiSink for Messages {
    fn send(&self, message: Msi) {
        send(&self.vm, message);
    }
}

/// Sends one message.
pub(super) fn send(vm: &VmFd, message: Msi) {
    let message = kvm_msi {
        address_lo: low_32_bits(message.address),
        address_hi: low_32_bits(message.address >> 32),
        data: message.data,
        ..kvm_msi::default()
    };
    // A guest may send to a vCPU that is not there: KVM says so and nothing is to be done.
    if let Err(error) = vm.signal_msi(message) {
        tracing::debug!("a message is lost: {error}");
    }
}

/// The low half of an address.
pub(super) fn low_32_bits(value: u64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what is wanted"
    )]
    let low = value as u32;
    low
}
