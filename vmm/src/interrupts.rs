//! The machine's interrupt controllers: in KVM, or split between KVM and this process.

mod kernel;
mod message;
mod split;

use std::sync::Arc;

use bus::{IrqLine, MmioBus, MsiSink, PioBus, RangeMapError};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use crate::config::IrqchipMode;
use crate::vcpu::{ExternalInterrupts, VcpuControl};

pub use kernel::KernelIrqchip;
pub use split::SplitIrqchip;

/// What KVM refused of the interrupt controllers.
#[derive(Debug, thiserror::Error)]
#[error("KVM refuses {what}: {source}")]
pub struct InterruptError {
    /// What was asked.
    pub what: &'static str,
    /// What KVM said.
    pub source: kvm_ioctls::Error,
}

impl InterruptError {
    fn new(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self { what, source }
    }
}

/// Interrupt controllers of one machine.
#[derive(Debug, Clone)]
pub enum Interrupts {
    /// Local APICs in KVM; the 8259 pair and the IOAPIC here.
    Split(Arc<SplitIrqchip>),
    /// All in KVM.
    Kernel(Arc<KernelIrqchip>),
}

impl Interrupts {
    /// Makes the controllers in `vm`, before it has a vCPU. `boot_vcpu` is kicked when the 8259 has an
    /// interrupt for it.
    ///
    /// # Errors
    ///
    /// [`InterruptError`] when KVM refuses.
    pub fn new(
        mode: IrqchipMode,
        vm: &Arc<VmFd>,
        boot_vcpu: &Arc<VcpuControl>,
    ) -> Result<Self, InterruptError> {
        let (vm, boot_vcpu) = (Arc::clone(vm), Arc::clone(boot_vcpu));
        Ok(match mode {
            IrqchipMode::Split => Self::Split(Arc::new(SplitIrqchip::new(vm, boot_vcpu)?)),
            IrqchipMode::Kernel => Self::Kernel(Arc::new(KernelIrqchip::new(vm)?)),
        })
    }

    /// The wire of the global system interrupt `gsi`.
    pub fn line(&self, gsi: u32) -> Arc<dyn IrqLine> {
        match self {
            Self::Split(chip) => chip.line(gsi),
            Self::Kernel(chip) => chip.line(gsi),
        }
    }

    /// Where messages to the local APICs go.
    pub fn messages(&self) -> Arc<dyn MsiSink> {
        Arc::new(message::Messages::new(Arc::clone(self.vm())))
    }

    /// Makes each signal of `event` an edge on `gsi`, without an exit to this process.
    ///
    /// # Errors
    ///
    /// [`InterruptError`] when KVM refuses.
    pub fn connect(&self, event: &EventFd, gsi: u32) -> Result<(), InterruptError> {
        self.vm()
            .register_irqfd(event, gsi)
            .map_err(InterruptError::new("an event as an interrupt"))
    }

    /// Takes the end of a level-triggered interrupt, which KVM reports for an IOAPIC outside it.
    pub fn end_of_interrupt(&self, vector: u8) {
        match self {
            Self::Split(chip) => chip.end_of_interrupt(vector),
            Self::Kernel(_) => {}
        }
    }

    /// The 8259 pair, where it is not in KVM.
    pub fn external(&self) -> Option<Arc<dyn ExternalInterrupts>> {
        match self {
            Self::Split(chip) => Some(Arc::clone(chip) as Arc<dyn ExternalInterrupts>),
            Self::Kernel(_) => None,
        }
    }

    /// Places the registers of controllers that are not in KVM on the buses.
    ///
    /// # Errors
    ///
    /// [`RangeMapError`] when something else is there already.
    pub fn place(&self, pio: &mut PioBus, mmio: &mut MmioBus) -> Result<(), RangeMapError> {
        match self {
            Self::Split(chip) => split::place(chip, pio, mmio),
            Self::Kernel(_) => Ok(()),
        }
    }

    fn vm(&self) -> &Arc<VmFd> {
        match self {
            Self::Split(chip) => chip.vm(),
            Self::Kernel(chip) => chip.vm(),
        }
    }
}
