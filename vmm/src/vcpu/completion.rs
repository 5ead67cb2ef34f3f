//! Finishing instructions that KVM would not emulate: the crate `completion` on a vCPU of KVM's.
//!
//! On the vCPU's thread, after KVM_EXIT_INTERNAL_ERROR with the emulation suberror (KVM API, 5). From the
//! first completion on, KVM leaves the registers in the shared page at each exit and takes them from there
//! (KVM_CAP_SYNC_REGS, KVM API, 6.74 and `kvm_sync_regs`), which saves five ioctls each.
//!
//! A KVM that was not asked to leave each refused instruction to us (KVM_CAP_EXIT_ON_EMULATION_FAILURE) has
//! already queued a #UD for it when it gives up. Setting the general registers, as every completion does,
//! takes that back; see [`cpu::KvmCpu::finish`].
//!
//! Every further ioctl costs as much as half an exit where KVM is itself in a virtual machine, so that none is
//! made but for the vector registers, XCR0 and model-specific registers, by the instructions that use them.
//!
//! Memory that a completion writes may be a guest's page tables. A KVM that shadows them learns of that as
//! the guest's processor does: when the guest invalidates the translation.

mod cpu;
mod memory;
mod profile;
mod system_call;

use bus::Effect;
use completion::{Exception, Hint, Interpreter, Left, Mnemonic, Outcome, complete};
use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};
use kvm_ioctls::{SyncReg, VcpuFd};

use super::crash::Failure;
use super::run_loop::VcpuContext;
use crate::metrics::VcpuCounters;
use cpu::KvmCpu;
use memory::KvmMemory;
use profile::Profile;

/// The completions of one vCPU.
#[derive(Debug, Default)]
pub struct Completer {
    /// What the guest's processor can do, once it is asked for.
    profile: Option<Profile>,
    /// Whether KVM leaves the registers in the shared page.
    synchronised: bool,
    /// Runs of instructions, while the vCPU is stepped for them.
    interpreter: Option<Interpreter>,
    /// Whether KVM steps over HLT, and has to be entered again for the interrupt that ends it.
    halts: bool,
    /// How often the vCPU was stepped where no run could begin.
    steps_for_nothing: u32,
}

/// The most instructions of a run: half a millisecond, for which interrupts wait.
const RUN_INSTRUCTIONS: u32 = 5000;
/// So many steps for nothing show a guest that has no 64-bit kernel: it is faster without them.
const STEPS_FOR_NOTHING_MAX: u32 = 200_000;

impl Completer {
    /// For `vcpu`, which is stepped from its start where vCPUs run ahead.
    pub fn new(vcpu: &mut VcpuFd, context: &VcpuContext) -> Self {
        let mut completer = Self::default();
        let runs = context.run_ahead.as_ref();
        if runs.is_some_and(|runs| !runs.has_ended()) && step(vcpu, true) {
            completer.interpreter = Some(Interpreter::default());
            completer.synchronise(vcpu, context);
        }
        completer
    }

    /// Has KVM leave the registers in the shared page, where it can.
    fn synchronise(&mut self, vcpu: &mut VcpuFd, context: &VcpuContext) {
        if !context.synchronised_registers || self.synchronised {
            return;
        }
        for registers in [
            SyncReg::Register,
            SyncReg::SystemRegister,
            SyncReg::VcpuEvents,
        ] {
            vcpu.set_sync_valid_reg(registers);
        }
        self.synchronised = true;
    }

    /// Carries out instructions from where the vCPU stands, as far as they are not KVM's.
    ///
    /// # Errors
    ///
    /// What to tell of a vCPU that cannot go on.
    pub fn run_ahead(
        &mut self,
        vcpu: &mut VcpuFd,
        context: &VcpuContext,
        counters: &VcpuCounters,
    ) -> Result<(), Failure> {
        let (Some(runs), Some(interpreter)) = (&context.run_ahead, &mut self.interpreter) else {
            return Ok(());
        };
        if std::mem::take(&mut self.halts) {
            return Ok(());
        }
        let failed =
            |error: completion::CpuError| Failure::new(format!("KVM fails the vCPU: {error}"));
        let profile = match &self.profile {
            Some(profile) => profile,
            None => self.profile.insert(Profile::new(vcpu)),
        };
        let mut cpu = KvmCpu::new(vcpu, profile, self.synchronised).map_err(failed)?;
        if cpu.has_event() {
            return Ok(());
        }
        let mut memory = KvmMemory::new(&context.memory, &context.mmio);
        let run = runs.run(|| interpreter.run(&mut cpu, &mut memory, RUN_INSTRUCTIONS));
        let is_over = match run {
            None => true,
            Some(run) => {
                let run = run.map_err(failed)?;
                let is_user_mode = cpu.is_user_mode();
                if run.executed > 0 {
                    counters.count_interpreted(run.executed);
                    cpu.finish(None, false, context.synchronised_registers)
                        .map_err(failed)?;
                }
                match run.left {
                    Left::Waiting => std::thread::yield_now(),
                    Left::Mode => self.steps_for_nothing += 1,
                    Left::Halt => self.halts = true,
                    Left::Limit | Left::Instruction | Left::Return => {}
                }
                run.left == Left::Return
                    || is_user_mode
                    || self.steps_for_nothing > STEPS_FOR_NOTHING_MAX
            }
        };
        if is_over {
            runs.end();
            step(vcpu, false);
            self.interpreter = None;
        }
        Ok(())
    }

    /// Carries out the instruction that the vCPU stands at, of which KVM gave `bytes`. The effect is what
    /// its writes to devices ask for.
    ///
    /// # Errors
    ///
    /// What to tell of a vCPU that cannot go on.
    pub fn complete(
        &mut self,
        vcpu: &mut VcpuFd,
        context: &VcpuContext,
        counters: &VcpuCounters,
        bytes: &[u8],
    ) -> Result<Effect, Failure> {
        let failed = |error: completion::CpuError| Failure {
            what: format!("KVM fails the vCPU: {error}"),
            bytes: bytes.to_owned(),
        };
        let profile = match &self.profile {
            Some(profile) => profile,
            None => self.profile.insert(Profile::new(vcpu)),
        };
        let mut memory = KvmMemory::new(&context.memory, &context.mmio);
        let mut cpu = KvmCpu::new(vcpu, profile, self.synchronised).map_err(failed)?;
        let (mnemonic, exception, single_step) =
            match complete(&mut cpu, &mut memory, bytes).map_err(failed)? {
                Outcome::Completed(completed) => {
                    if completed.hint == Some(Hint::Wait) {
                        std::thread::yield_now();
                    }
                    (completed.mnemonic, None, completed.single_step)
                }
                Outcome::Exception {
                    exception,
                    mnemonic,
                } => (mnemonic, Some(exception), false),
                // A program is not to end its machine: it gets what KVM gives it by itself.
                Outcome::Unknown(_) if cpu.is_user_mode() => {
                    let exception = Some(Exception::invalid_opcode());
                    (Mnemonic::INVALID, exception, false)
                }
                Outcome::Unknown(unknown) => {
                    return Err(Failure {
                        what: "neither KVM nor cuddy carries out this instruction".to_owned(),
                        bytes: unknown.bytes,
                    });
                }
            };
        // How many kernels' handlers begin.
        if mnemonic == Mnemonic::Clac && exception.is_none() {
            cpu.resume_system_call(&mut memory).map_err(failed)?;
        }
        cpu.finish(exception, single_step, context.synchronised_registers)
            .map_err(failed)?;
        self.synchronise(vcpu, context);
        if counters.count_completion(mnemonic) == 0 {
            tracing::debug!("the first {mnemonic:?} of a vCPU is completed outside KVM");
        }
        Ok(memory.effect())
    }
}

/// Whether KVM stops after each instruction of the vCPU, from now on; false when it refuses.
fn step(vcpu: &VcpuFd, on: bool) -> bool {
    let control = match on {
        true => KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
        false => 0,
    };
    let debug = kvm_guest_debug {
        control,
        ..kvm_guest_debug::default()
    };
    match vcpu.set_guest_debug(&debug) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!("KVM does not step a vCPU: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests;
