//! The capabilities of KVM that a machine needs, and those that it uses where they are (KVM API, 4.4
//! "KVM_CHECK_EXTENSION" and sections 6 to 8).

use std::ffi::c_ulong;

use kvm_bindings::KVM_CAP_EXIT_ON_EMULATION_FAILURE;
use kvm_ioctls::{Cap, Kvm};

/// The stable version of the KVM API (KVM API, 4.1).
pub const API_VERSION: i32 = 12;

/// One capability of KVM.
#[derive(Debug, Clone, Copy)]
pub struct Capability {
    /// The name in linux/kvm.h.
    pub name: &'static str,
    /// Its number there.
    pub number: c_ulong,
    /// What a machine does with it.
    pub purpose: &'static str,
}

impl Capability {
    /// Whether `kvm` has it: one ioctl.
    pub fn is_there(&self, kvm: &Kvm) -> bool {
        kvm.check_extension_raw(self.number) > 0
    }
}

const fn row(name: &'static str, capability: Cap, purpose: &'static str) -> Capability {
    Capability {
        name,
        number: capability as c_ulong,
        purpose,
    }
}

/// What no machine can do without.
pub const REQUIRED: &[Capability] = &[
    row("KVM_CAP_USER_MEMORY", Cap::UserMemory, "guest memory"),
    row("KVM_CAP_EXT_CPUID", Cap::ExtCpuid, "CPUID of the host"),
    row(
        "KVM_CAP_SET_TSS_ADDR",
        Cap::SetTssAddr,
        "real mode on Intel",
    ),
    row("KVM_CAP_MP_STATE", Cap::MpState, "start of the other vCPUs"),
    row("KVM_CAP_IRQCHIP", Cap::Irqchip, "local APICs in the kernel"),
    row(
        "KVM_CAP_IRQ_ROUTING",
        Cap::IrqRouting,
        "interrupts of devices",
    ),
    row(
        "KVM_CAP_SIGNAL_MSI",
        Cap::SignalMsi,
        "interrupts as messages",
    ),
    row("KVM_CAP_IRQFD", Cap::Irqfd, "interrupts without an exit"),
    row(
        "KVM_CAP_IOEVENTFD",
        Cap::Ioeventfd,
        "doorbells without an exit",
    ),
    row(
        "KVM_CAP_IMMEDIATE_EXIT",
        Cap::ImmediateExit,
        "kicks that are not lost",
    ),
    row(
        "KVM_CAP_VCPU_EVENTS",
        Cap::VcpuEvents,
        "exceptions put into a guest",
    ),
];

/// What a machine uses where it is, or needs for an option that is not the default everywhere.
pub const OPTIONAL: &[Capability] = &[
    row(
        "KVM_CAP_SPLIT_IRQCHIP",
        Cap::SplitIrqchip,
        "--irqchip split",
    ),
    row("KVM_CAP_PIT2", Cap::Pit2, "--irqchip kernel"),
    row(
        "KVM_CAP_TSC_DEADLINE_TIMER",
        Cap::TscDeadlineTimer,
        "a timer without calibration",
    ),
    row(
        "KVM_CAP_GET_TSC_KHZ",
        Cap::GetTscKhz,
        "the TSC's frequency told to guests",
    ),
    row(
        "KVM_CAP_ADJUST_CLOCK",
        Cap::AdjustClock,
        "kvmclock over a pause",
    ),
    row(
        "KVM_CAP_SYNC_REGS",
        Cap::SyncRegs,
        "registers without an ioctl",
    ),
    row(
        "KVM_CAP_READONLY_MEM",
        Cap::ReadonlyMem,
        "memory that a guest only reads",
    ),
    row("KVM_CAP_XSAVE", Cap::Xsave, "state of vector registers"),
    row("KVM_CAP_XCRS", Cap::Xcrs, "extended control registers"),
    row("KVM_CAP_DEBUGREGS", Cap::Debugregs, "debug registers"),
    Capability {
        name: "KVM_CAP_EXIT_ON_EMULATION_FAILURE",
        // kvm-ioctls does not name it.
        number: KVM_CAP_EXIT_ON_EMULATION_FAILURE as c_ulong,
        purpose: "programs' instructions that KVM does not emulate",
    },
];

/// What stops a host's KVM from running any machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MissingCapability {
    /// Another version of the API than [`API_VERSION`].
    #[error(
        "/dev/kvm: has API version {0}: use a Linux kernel from 2.6.22 on, which has version {API_VERSION}"
    )]
    ApiVersion(i32),
    /// A capability of [`REQUIRED`] that the host lacks.
    #[error(
        "/dev/kvm: lacks {name} ({purpose}): use a newer kernel, or a host with hardware virtualisation"
    )]
    Capability {
        /// Its name in linux/kvm.h.
        name: &'static str,
        /// What a machine does with it.
        purpose: &'static str,
    },
}

/// Looks for everything in [`REQUIRED`]: one ioctl each.
///
/// # Errors
///
/// The first thing that is missing.
pub fn check(kvm: &Kvm) -> Result<(), MissingCapability> {
    let version = kvm.get_api_version();
    if version != API_VERSION {
        return Err(MissingCapability::ApiVersion(version));
    }
    match REQUIRED.iter().find(|row| !row.is_there(kvm)) {
        Some(&Capability { name, purpose, .. }) => {
            Err(MissingCapability::Capability { name, purpose })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_capability_is_listed_once() {
        let mut names = HashSet::new();
        for row in REQUIRED.iter().chain(OPTIONAL) {
            assert!(row.name.starts_with("KVM_CAP_"));
            assert!(!row.purpose.is_empty());
            assert!(names.insert(row.name), "{} is there twice", row.name);
        }
    }

    #[test]
    fn what_is_missing_is_named_with_a_remedy() {
        let error = MissingCapability::Capability {
            name: "KVM_CAP_IRQFD",
            purpose: "interrupts without an exit",
        };
        let text = error.to_string();
        assert!(text.contains("lacks KVM_CAP_IRQFD"), "{text}");
        assert!(text.contains(": use a newer kernel"), "{text}");
    }
}
