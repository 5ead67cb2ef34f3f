//! /dev/kvm: opened, checked, and asked what every machine needs to know of it.

use arch::cpu_features::CpuModel;
use arch::cpuid::CpuidEntry;
use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

use crate::host::capabilities::{self, MissingCapability};
use crate::host::software::{has_software_kvm, without_costly_features};
use crate::host::{self, Level};

/// Where KVM is.
const PATH: &std::ffi::CStr = c"/dev/kvm";

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// It is not there, or may not be opened.
    #[error("/dev/kvm: {found}: {remedy}")]
    Open {
        /// What is wrong.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A missing capability.
    #[error(transparent)]
    Capability(#[from] MissingCapability),
    /// An ioctl that failed.
    #[error("KVM does not {what}: {source}")]
    Ioctl {
        /// What it was to do.
        what: &'static str,
        /// What it said.
        source: kvm_ioctls::Error,
    },
}

/// KVM as this process uses it. Opened once, for all incarnations of a machine.
#[derive(Debug)]
pub struct Host {
    kvm: Kvm,
    cpuid: Vec<CpuidEntry>,
    is_software: bool,
}

impl Host {
    /// Opens KVM and checks that it can do what every machine needs.
    ///
    /// # Errors
    ///
    /// [`KvmError`], which says what to do.
    pub fn open() -> Result<Self, KvmError> {
        let kvm = Kvm::new_with_path(PATH).map_err(|error| explain(&error))?;
        capabilities::check(&kvm)?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|source| KvmError::Ioctl {
                what: "tell which processor features it supports",
                source,
            })?;
        let cpuid = cpuid.as_slice().iter().map(from_kvm).collect();
        Ok(Self {
            kvm,
            cpuid,
            is_software: has_software_kvm(),
        })
    }

    /// The system file descriptor.
    pub const fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// Whether KVM emulates a guest's kernel, for want of hardware.
    pub const fn is_software(&self) -> bool {
        self.is_software
    }

    /// The processor that `model` describes, and the names of features that it does not have for the only
    /// reason that they are slow on this host.
    pub fn cpu_model(&self, model: CpuModel) -> (CpuModel, Vec<&'static str>) {
        if self.is_software {
            without_costly_features(model)
        } else {
            (model, Vec::new())
        }
    }

    /// Processor features that KVM can give a guest (KVM API, 4.46).
    pub fn cpuid(&self) -> &[CpuidEntry] {
        &self.cpuid
    }
}

/// What a look at the whole host says of an open that failed.
fn explain(error: &kvm_ioctls::Error) -> KvmError {
    let failure = host::report()
        .findings
        .into_iter()
        .find(|finding| finding.level == Level::Failure);
    let (found, remedy) = match failure {
        Some(finding) => (finding.found, finding.remedy),
        None => (error.to_string(), None),
    };
    KvmError::Open {
        found,
        remedy: remedy.unwrap_or_else(|| "'cuddy check' says more".to_owned()),
    }
}

/// What KVM says of one leaf.
fn from_kvm(entry: &kvm_cpuid_entry2) -> CpuidEntry {
    let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
    CpuidEntry {
        function: entry.function,
        index: indexed.then_some(entry.index),
        eax: entry.eax,
        ebx: entry.ebx,
        ecx: entry.ecx,
        edx: entry.edx,
    }
}
