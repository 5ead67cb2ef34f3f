//! All interrupt controllers and the interval timer in KVM (KVM API, 4.24 "KVM_CREATE_IRQCHIP").

use std::sync::Arc;

use bus::IrqLine;
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::VmFd;

use super::InterruptError;

/// KVM's 8259 pair, IOAPIC, local APICs and 8254.
#[derive(Debug)]
pub struct KernelIrqchip {
    vm: Arc<VmFd>,
}

impl KernelIrqchip {
    /// Makes them in `vm`.
    ///
    /// # Errors
    ///
    /// [`InterruptError`] when KVM refuses.
    pub fn new(vm: Arc<VmFd>) -> Result<Self, InterruptError> {
        vm.create_irq_chip()
            .map_err(InterruptError::new("interrupt controllers in the kernel"))?;
        let pit = kvm_pit_config {
            // KVM answers port 0x61 as well, where guests gate channel 2.
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..kvm_pit_config::default()
        };
        vm.create_pit2(pit)
            .map_err(InterruptError::new("an interval timer in the kernel"))?;
        Ok(Self { vm })
    }

    pub(super) fn line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        Arc::new(KernelLine {
            vm: Arc::clone(&self.vm),
            gsi,
        })
    }

    pub(super) fn vm(&self) -> &VmFd {
        &self.vm
    }
}

/// A wire into KVM's controllers (KVM API, 4.25 "KVM_IRQ_LINE").
#[derive(Debug)]
struct KernelLine {
    vm: Arc<VmFd>,
    gsi: u32,
}

impl IrqLine for KernelLine {
    fn set_level(&self, asserted: bool) {
        if let Err(error) = self.vm.set_irq_line(self.gsi, asserted) {
            tracing::warn!("interrupt {} is lost: {error}", self.gsi);
        }
    }
}
