//! A vCPU before its first instruction: what `arch` decided, in the structures of the KVM API.

use arch::cpu_features::CpuModel;
use arch::cpuid::{Cpuid, CpuidConfig, CpuidEntry, Topology};
use arch::entry::EntryState;
use arch::local_apic::LocalApicRegister;
use arch::msr::Importance;
use arch::registers::{FLOATING_POINT, GeneralRegisters, SystemRegisters};
use arch::segments::{DescriptorTable, Segment};
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, Msrs, kvm_cpuid_entry2, kvm_dtable, kvm_fpu,
    kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::{Cap, VcpuFd};

use crate::config::Problem;
use crate::error::VmmError;
use crate::kvm::Host;

/// Why a vCPU could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum VcpuSetupError {
    /// What was asked for is not to be had here.
    #[error("{0}")]
    Configuration(Problem),
    /// KVM refused.
    #[error("KVM refuses {what} of vCPU {vcpu}: {source}")]
    Kvm {
        /// What was set.
        what: &'static str,
        /// Which vCPU.
        vcpu: u16,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
    /// More entries than KVM's structures can take.
    #[error("too many {0} entries for KVM")]
    TooMany(&'static str),
}

impl From<VcpuSetupError> for VmmError {
    fn from(error: VcpuSetupError) -> Self {
        match error {
            VcpuSetupError::Configuration(problem) => problem.into(),
            other => Self::host(other),
        }
    }
}

/// What the vCPUs of a machine have in common.
#[derive(Debug, Clone)]
pub struct VcpuTemplate {
    cpuid: Cpuid,
    msrs: Msrs,
}

/// What one vCPU is set up with.
#[derive(Debug)]
pub struct VcpuSetup<'a> {
    /// Its number and local APIC identifier.
    pub number: u16,
    /// Where and how the boot vCPU starts; the others wait for their start-up interrupt.
    pub entry: Option<&'a EntryState>,
}

impl VcpuTemplate {
    /// Decides what `cpus` vCPUs of the model named `model` see on this host.
    ///
    /// # Errors
    ///
    /// [`VcpuSetupError::Configuration`] when the host does not have what the model asks for.
    pub fn new(
        host: &Host,
        cpus: u16,
        model: &str,
        tsc_khz: Option<u32>,
    ) -> Result<Self, VcpuSetupError> {
        let problem = |key, error: &dyn std::fmt::Display| {
            VcpuSetupError::Configuration(Problem::new(key, error))
        };
        let model = model
            .parse::<CpuModel>()
            .map_err(|error| problem("cpu", &error))?;
        let (model, _) = host.cpu_model(model);
        let topology = u8::try_from(cpus)
            .map_err(|error| problem("cpus", &error))
            .and_then(|cpus| {
                Topology::single_socket(cpus).map_err(|error| problem("cpus", &error))
            })?;
        let config = CpuidConfig {
            topology,
            model: &model,
            tsc_deadline_timer: host.kvm().check_extension(Cap::TscDeadlineTimer),
            tsc_khz,
        };
        let cpuid = Cpuid::new(host.cpuid(), &config).map_err(|error| problem("cpu", &error))?;
        let msrs: Vec<_> = arch::msr::BOOT
            .iter()
            .map(|msr| kvm_msr_entry {
                index: msr.index,
                data: msr.value,
                ..kvm_msr_entry::default()
            })
            .collect();
        let msrs = Msrs::from_entries(&msrs).map_err(|_| VcpuSetupError::TooMany("MSR"))?;
        Ok(Self { cpuid, msrs })
    }

    /// Sets `vcpu` up.
    ///
    /// # Errors
    ///
    /// [`VcpuSetupError`] when KVM refuses something that the guest cannot live without.
    pub fn set_up(&mut self, vcpu: &VcpuFd, setup: &VcpuSetup<'_>) -> Result<(), VcpuSetupError> {
        let number = setup.number;
        let refused = |what| {
            move |source| VcpuSetupError::Kvm {
                what,
                vcpu: number,
                source,
            }
        };
        self.cpuid
            .set_apic_id(u8::try_from(number).unwrap_or(u8::MAX));
        let entries: Vec<_> = self.cpuid.entries().iter().map(to_kvm).collect();
        let cpuid = CpuId::from_entries(&entries).map_err(|_| VcpuSetupError::TooMany("CPUID"))?;
        vcpu.set_cpuid2(&cpuid).map_err(refused("the features"))?;
        self.set_msrs(vcpu, number)?;
        let Some(entry) = setup.entry else {
            return Ok(());
        };
        vcpu.set_fpu(&floating_point())
            .map_err(refused("the floating-point state"))?;
        vcpu.set_regs(&general_registers(&entry.general))
            .map_err(refused("the general registers"))?;
        let mut sregs = vcpu.get_sregs().map_err(refused("the system registers"))?;
        set_system_registers(&mut sregs, &entry.system);
        vcpu.set_sregs(&sregs)
            .map_err(refused("the system registers"))?;
        let mut lapic = vcpu.get_lapic().map_err(refused("the local APIC"))?;
        for register in arch::local_apic::BOOT_PROCESSOR {
            set_lapic_register(&mut lapic, register);
        }
        vcpu.set_lapic(&lapic).map_err(refused("the local APIC"))
    }

    /// Sets the model-specific registers one after the other from where KVM stopped: some hosts refuse
    /// some that a guest does not miss.
    fn set_msrs(&self, vcpu: &VcpuFd, number: u16) -> Result<(), VcpuSetupError> {
        let failed = |source| VcpuSetupError::Kvm {
            what: "the model-specific registers",
            vcpu: number,
            source,
        };
        let mut done = vcpu.set_msrs(&self.msrs).map_err(failed)?;
        let all = self.msrs.as_slice();
        while let (Some(refused), Some(rest)) = (arch::msr::BOOT.get(done), all.get(done + 1..)) {
            if refused.importance == Importance::Required {
                return Err(failed(kvm_ioctls::Error::new(libc::EINVAL)));
            }
            tracing::debug!("KVM refuses to set MSR {:#x}", refused.index);
            let rest = Msrs::from_entries(rest).map_err(|_| VcpuSetupError::TooMany("MSR"))?;
            done += 1 + match rest.as_slice() {
                [] => 0,
                _ => vcpu.set_msrs(&rest).map_err(failed)?,
            };
        }
        Ok(())
    }
}

fn to_kvm(entry: &CpuidEntry) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: entry.function,
        index: entry.index.unwrap_or(0),
        flags: match entry.index {
            Some(_) => KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            None => 0,
        },
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
        ..kvm_cpuid_entry2::default()
    }
}

fn floating_point() -> kvm_fpu {
    kvm_fpu {
        fcw: FLOATING_POINT.fcw,
        mxcsr: FLOATING_POINT.mxcsr,
        ..kvm_fpu::default()
    }
}

const fn general_registers(from: &GeneralRegisters) -> kvm_regs {
    kvm_regs {
        rax: from.rax,
        rbx: from.rbx,
        rcx: from.rcx,
        rdx: from.rdx,
        rsi: from.rsi,
        rdi: from.rdi,
        rsp: from.rsp,
        rbp: from.rbp,
        r8: from.r8,
        r9: from.r9,
        r10: from.r10,
        r11: from.r11,
        r12: from.r12,
        r13: from.r13,
        r14: from.r14,
        r15: from.r15,
        rip: from.rip,
        rflags: from.rflags,
    }
}

fn set_system_registers(to: &mut kvm_sregs, from: &SystemRegisters) {
    for (to, from) in [
        (&mut to.cs, &from.cs),
        (&mut to.ds, &from.ds),
        (&mut to.es, &from.es),
        (&mut to.fs, &from.fs),
        (&mut to.gs, &from.gs),
        (&mut to.ss, &from.ss),
        (&mut to.tr, &from.tr),
        (&mut to.ldt, &from.ldt),
    ] {
        *to = segment(from);
    }
    to.gdt = table(&from.gdt);
    to.idt = table(&from.idt);
    to.cr0 = from.cr0;
    to.cr3 = from.cr3;
    to.cr4 = from.cr4;
    to.efer = from.efer;
}

fn segment(from: &Segment) -> kvm_segment {
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: from.kind,
        present: u8::from(from.present),
        dpl: from.privilege_level,
        db: u8::from(from.default_32_bit),
        s: u8::from(from.code_or_data),
        l: u8::from(from.long),
        g: u8::from(from.granularity_4k),
        avl: 0,
        unusable: u8::from(!from.present),
        padding: 0,
    }
}

const fn table(from: &DescriptorTable) -> kvm_dtable {
    kvm_dtable {
        base: from.base,
        limit: from.limit,
        padding: [0; 3],
    }
}

/// Sets one 32-bit register in the image of a local APIC's page (KVM API, 4.58).
fn set_lapic_register(lapic: &mut kvm_lapic_state, register: LocalApicRegister) {
    let offset = usize::from(register.offset);
    if let Some(bytes) = lapic.regs.get_mut(offset..offset.saturating_add(4)) {
        for (to, from) in bytes.iter_mut().zip(register.value.to_le_bytes()) {
            *to = from.cast_signed();
        }
    }
}
