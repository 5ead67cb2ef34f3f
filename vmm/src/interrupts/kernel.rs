//! All interrupt controllers and the interval timer in KVM (KVM API, 4.24 "KVM_CREATE_IRQCHIP").

use std::sync::Arc;

use arch::layout::gsi;
use bus::IrqLine;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting, kvm_irq_routing_entry, kvm_pit_config,
};
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
        let routes = KvmIrqRouting::from_entries(&routes())
            .map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
            .and_then(|routes| vm.set_gsi_routing(&routes));
        routes.map_err(InterruptError::new(
            "the wires of its interrupt controllers",
        ))?;
        Ok(Self { vm })
    }

    pub(super) fn line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        Arc::new(KernelLine {
            vm: Arc::clone(&self.vm),
            gsi,
        })
    }

    pub(super) const fn vm(&self) -> &Arc<VmFd> {
        &self.vm
    }
}

/// Each interrupt below 16 goes to a pin of the 8259 pair, and each to the IOAPIC's pin of the same number
/// but for the timer, as the MADT says and as a PC is wired. By itself KVM puts the timer on pin 0.
fn routes() -> Vec<kvm_irq_routing_entry> {
    let entry = |gsi, irqchip, pin| {
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..kvm_irq_routing_entry::default()
        };
        entry.u.irqchip.irqchip = irqchip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let primary = (0..8).map(|gsi| entry(gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
    let secondary = (8..16).map(|gsi| entry(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8));
    let ioapic = (0..gsi::PINS)
        .filter(|&gsi| gsi != gsi::PIT_IOAPIC)
        .map(|gsi| match gsi {
            gsi::PIT => entry(gsi, KVM_IRQCHIP_IOAPIC, gsi::PIT_IOAPIC),
            other => entry(other, KVM_IRQCHIP_IOAPIC, other),
        });
    primary.chain(secondary).chain(ioapic).collect()
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
