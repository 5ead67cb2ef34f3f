//! Finishing instructions that KVM would not emulate: the crate `completion` on a vCPU of KVM's.
//!
//! On the vCPU's thread, after KVM_EXIT_INTERNAL_ERROR with the emulation suberror (KVM API, 5). From the
//! first completion on, KVM leaves the registers in the shared page at each exit and takes them from there
//! (KVM_CAP_SYNC_REGS, KVM API, 6.74 and `kvm_sync_regs`), which saves five ioctls each.
//!
//! KVM has already queued a #UD for the instruction when it gives up. Setting the general registers, as
//! every completion does, takes that back; see [`cpu::KvmCpu::finish`].
//!
//! Memory that a completion writes may be a guest's page tables. A KVM that shadows them learns of that as
//! the guest's processor does: when the guest invalidates the translation.

mod cpu;
mod memory;
mod profile;

use std::collections::BTreeMap;

use bus::Effect;
use completion::{Hint, Mnemonic, Outcome, complete};
use kvm_ioctls::{SyncReg, VcpuFd};

use super::run_loop::VcpuContext;
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
    counts: BTreeMap<Mnemonic, u64>,
}

impl Completer {
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
        bytes: &[u8],
    ) -> Result<Effect, String> {
        let failed = |error: completion::CpuError| format!("KVM fails the vCPU: {error}");
        let profile = match &self.profile {
            Some(profile) => profile,
            None => self.profile.insert(Profile::new(vcpu)),
        };
        let mut memory = KvmMemory::new(&context.memory, &context.mmio);
        let mut cpu = KvmCpu::new(vcpu, profile, self.synchronised).map_err(failed)?;
        let (mnemonic, exception, single_step) = match complete(&mut cpu, &mut memory, bytes)
            .map_err(failed)?
        {
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
            Outcome::Unknown(unknown) => {
                return Err(format!(
                    "KVM cannot emulate the guest's instruction, nor is it one that is completed \
                         here: {unknown}"
                ));
            }
        };
        cpu.finish(exception, single_step, context.synchronised_registers)
            .map_err(failed)?;
        if context.synchronised_registers && !self.synchronised {
            for registers in [
                SyncReg::Register,
                SyncReg::SystemRegister,
                SyncReg::VcpuEvents,
            ] {
                vcpu.set_sync_valid_reg(registers);
            }
            self.synchronised = true;
        }
        let count = self.counts.entry(mnemonic).or_insert(0);
        if *count == 0 {
            tracing::debug!("the first {mnemonic:?} of a vCPU is completed outside KVM");
        }
        *count += 1;
        Ok(memory.effect())
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        if self.counts.is_empty() {
            return;
        }
        let total: u64 = self.counts.values().sum();
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let counts: Vec<_> = counts
            .into_iter()
            .map(|(mnemonic, count)| format!("{mnemonic:?} {count}").to_lowercase())
            .collect();
        tracing::info!(
            "a vCPU had {total} instructions completed outside KVM: {}",
            counts.join(", ")
        );
    }
}

#[cfg(test)]
mod tests;
