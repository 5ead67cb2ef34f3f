//! KVM_RUN, and where each exit goes. Runs on the vCPU's thread, which holds no lock when it enters the
//! guest.

use std::io;
use std::sync::Arc;

use bus::{Effect, MmioBus, PioBus};
use kvm_bindings::{
    KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_interrupt,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::completion::Completer;
use super::control::VcpuControl;
use super::crash::{Failure, describe, internal_error};
use super::run_ahead::RunAhead;
use super::run_page::RunPage;
use crate::crash::Crash;
use crate::interrupts::Interrupts;
use crate::lifecycle::GuestEnd;
use crate::memory::GuestMemory;
use crate::metrics::{Counters, ExitReason, VcpuCounters};

ioctl_iow_nr!(KVM_INTERRUPT, kvm_bindings::KVMIO, 0x86, kvm_interrupt);

/// An interrupt controller outside KVM that the boot processor asks for vectors: the 8259 pair.
pub trait ExternalInterrupts: std::fmt::Debug + Send + Sync {
    /// Whether its output is up. One atomic load.
    fn is_pending(&self) -> bool;

    /// The cycle by which a CPU acknowledges the interrupt and gets its vector; none when it is gone.
    fn acknowledge(&self) -> Option<u8>;
}

/// What a vCPU thread reaches of its machine.
#[derive(Debug, Clone)]
pub struct VcpuContext {
    /// Ports.
    pub pio: Arc<PioBus>,
    /// Registers in memory.
    pub mmio: Arc<MmioBus>,
    /// Interrupt controllers.
    pub interrupts: Interrupts,
    /// RAM, for instructions that are completed outside KVM.
    pub memory: GuestMemory,
    /// Whether instructions that KVM does not emulate are completed.
    pub completion: bool,
    /// What the vCPUs count into.
    pub counters: Arc<Counters>,
    /// Whether KVM exchanges registers through the run page (KVM_CAP_SYNC_REGS).
    pub synchronised_registers: bool,
    /// Where KVM is a software one: whether the vCPUs run ahead of it.
    pub run_ahead: Option<Arc<RunAhead>>,
}

/// Why a vCPU thread left its loop.
#[derive(Debug)]
pub enum Leave {
    /// Somebody wants something of it.
    Attention,
    /// Its guest ended.
    GuestEnd(GuestEnd),
}

/// What one exit leads to, once the borrow of the run page is over.
enum Next {
    Interrupted,
    Continue,
    Effect(Effect),
    End(GuestEnd),
    EndOfInterrupt(u8),
    InternalError,
    Step,
    Failure(Failure),
}

impl Next {
    fn failure(what: impl Into<String>) -> Self {
        Self::Failure(Failure::new(what))
    }
}

/// One vCPU on its thread.
#[derive(Debug)]
pub struct Vcpu {
    number: u16,
    // Before the descriptor whose mapping it points into.
    page: RunPage,
    fd: VcpuFd,
    context: VcpuContext,
    completer: Completer,
    counters: Arc<VcpuCounters>,
    /// On the boot processor of a machine whose 8259 is not KVM's.
    external: Option<Arc<dyn ExternalInterrupts>>,
}

impl Vcpu {
    /// A vCPU that has been set up.
    pub fn new(
        number: u16,
        mut fd: VcpuFd,
        context: VcpuContext,
        external: Option<Arc<dyn ExternalInterrupts>>,
    ) -> Self {
        Self {
            number,
            page: RunPage::new(&mut fd),
            counters: context.counters.vcpu(number),
            completer: Completer::new(&mut fd, &context),
            fd,
            context,
            external,
        }
    }

    /// The page that this vCPU shares with KVM.
    pub const fn page(&self) -> &RunPage {
        &self.page
    }

    /// Runs the guest until `control` wants attention or the guest ends.
    ///
    /// Before it leaves for attention, it goes into KVM once more with `immediate_exit` set: KVM then
    /// completes what the last exit left open (a read's value, the other half of an access, the
    /// instruction pointer) and does not enter the guest, so that the vCPU stands between two
    /// instructions (KVM API, 5, `immediate_exit`).
    pub fn run(&mut self, control: &VcpuControl) -> Leave {
        loop {
            self.page.set_immediate_exit(false);
            let leaving = control.wants_attention();
            if leaving {
                self.page.set_immediate_exit(true);
            } else {
                self.offer_external_interrupt();
            }
            let effect = match self.enter() {
                Next::Interrupted if leaving => return Leave::Attention,
                Next::Interrupted | Next::Continue => continue,
                Next::Effect(effect) => effect,
                Next::EndOfInterrupt(vector) => {
                    self.context.interrupts.end_of_interrupt(vector);
                    continue;
                }
                Next::End(end) => return Leave::GuestEnd(end),
                Next::InternalError => match self.complete() {
                    Ok(effect) => effect,
                    Err(failure) => return self.crash(failure),
                },
                Next::Step => match self.run_ahead() {
                    Ok(()) => continue,
                    Err(failure) => return self.crash(failure),
                },
                Next::Failure(failure) => return self.crash(failure),
            };
            match effect {
                Effect::None => {}
                Effect::PowerOff => return Leave::GuestEnd(GuestEnd::PowerOff),
                Effect::Reset => return Leave::GuestEnd(GuestEnd::Reset),
                Effect::Crash => {
                    let crash = Crash::new("the guest reported a panic");
                    return Leave::GuestEnd(GuestEnd::Crash(crash));
                }
            }
        }
    }

    /// Finishes an instruction that KVM would not emulate, and goes on in a run; says why the vCPU cannot go on where that is not
    /// why KVM stopped, or not possible.
    fn complete(&mut self) -> Result<Effect, Failure> {
        let Some(bytes) = self.page.refused_instruction() else {
            return Err(internal_error(&self.page));
        };
        if !self.context.completion {
            return Err(Failure {
                what: "KVM does not emulate this instruction, and completion is off".to_owned(),
                bytes: bytes.as_slice().to_owned(),
            });
        }
        let effect = self.completer.complete(
            &mut self.fd,
            &self.context,
            &self.counters,
            bytes.as_slice(),
        )?;
        if matches!(effect, Effect::None) {
            self.run_ahead()?;
        }
        Ok(effect)
    }

    /// Carries out what follows the instruction that KVM has stepped over, or that was completed.
    fn run_ahead(&mut self) -> Result<(), Failure> {
        self.completer
            .run_ahead(&mut self.fd, &self.context, &self.counters)
    }

    /// The end of a guest whose vCPU cannot go on.
    fn crash(&self, failure: Failure) -> Leave {
        let crash = describe(&self.fd, self.number, &self.context.memory, failure);
        Leave::GuestEnd(GuestEnd::Crash(crash))
    }

    /// One stay in the guest, and its exit carried to the buses.
    fn enter(&mut self) -> Next {
        let exit = self.fd.run();
        self.counters.count_exit(reason(&exit));
        match exit {
            Ok(VcpuExit::IoOut(port, data)) => {
                let mut effect = Effect::None;
                for item in data.chunks(self.page.io_width_bytes()) {
                    match self.context.pio.write(port, item) {
                        Effect::None => {}
                        other => effect = other,
                    }
                }
                Next::Effect(effect)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                for item in data.chunks_mut(self.page.io_width_bytes()) {
                    self.context.pio.read(port, item);
                }
                Next::Continue
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                Next::Effect(self.context.mmio.write(address, data))
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.context.mmio.read(address, data);
                Next::Continue
            }
            Ok(VcpuExit::IoapicEoi(vector)) => Next::EndOfInterrupt(vector),
            Ok(VcpuExit::IrqWindowOpen | VcpuExit::Intr | VcpuExit::Hlt) => Next::Continue,
            Ok(VcpuExit::Shutdown) => Next::failure("triple fault"),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => {
                Next::End(GuestEnd::PowerOff)
            }
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _)) => Next::End(GuestEnd::Reset),
            Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _)) => Next::End(GuestEnd::Crash(
                Crash::new("the guest reported a crash to KVM"),
            )),
            Ok(VcpuExit::InternalError) => Next::InternalError,
            Ok(VcpuExit::Debug(_)) if self.context.run_ahead.is_some() => Next::Step,
            Ok(VcpuExit::FailEntry(reason, _)) => Next::failure(format!(
                "the processor refuses to enter the guest, reason {reason:#x}"
            )),
            Ok(exit) => Next::failure(format!("unexpected exit {exit:?}")),
            Err(error) => match error.errno() {
                // A kick; or an AP that has been sent its start and looks again.
                libc::EINTR | libc::EAGAIN => Next::Interrupted,
                errno => Next::failure(format!(
                    "KVM_RUN failed: {}",
                    io::Error::from_raw_os_error(errno)
                )),
            },
        }
    }

    /// Hands the 8259's interrupt to KVM when the guest can take it, asks to be told when it cannot.
    fn offer_external_interrupt(&self) {
        let Some(external) = &self.external else {
            return;
        };
        if !external.is_pending() {
            self.page.request_interrupt_window(false);
            return;
        }
        if !self.page.is_ready_for_interrupt() {
            self.page.request_interrupt_window(true);
            return;
        }
        if let Some(vector) = external.acknowledge() {
            let interrupt = kvm_interrupt {
                irq: u32::from(vector),
            };
            // SAFETY: the descriptor is a vCPU's and the structure is the one that the ioctl reads.
            let result = unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &interrupt) };
            if result < 0 {
                tracing::warn!(
                    "interrupt {vector:#x} of the 8259 is lost: {}",
                    io::Error::last_os_error()
                );
            }
        }
        self.page.request_interrupt_window(external.is_pending());
    }
}

/// What an exit counts as.
const fn reason(exit: &Result<VcpuExit<'_>, kvm_ioctls::Error>) -> ExitReason {
    match exit {
        Ok(VcpuExit::IoIn(..)) => ExitReason::PortRead,
        Ok(VcpuExit::IoOut(..)) => ExitReason::PortWrite,
        Ok(VcpuExit::MmioRead(..)) => ExitReason::MmioRead,
        Ok(VcpuExit::MmioWrite(..)) => ExitReason::MmioWrite,
        Ok(VcpuExit::IoapicEoi(_)) => ExitReason::EndOfInterrupt,
        Ok(VcpuExit::IrqWindowOpen) => ExitReason::InterruptWindow,
        Ok(VcpuExit::Hlt) => ExitReason::Halt,
        Ok(VcpuExit::InternalError) => ExitReason::InternalError,
        Ok(VcpuExit::Debug(_)) => ExitReason::Step,
        Ok(VcpuExit::SystemEvent(..)) => ExitReason::SystemEvent,
        Ok(VcpuExit::Shutdown) => ExitReason::Shutdown,
        Ok(VcpuExit::Intr) | Err(_) => ExitReason::Signal,
        Ok(_) => ExitReason::Other,
    }
}
