//! CPUID as a guest sees it: what KVM supports, made right for this machine's topology and timers, less what
//! the user masked (Intel SDM volume 2, "CPUID"; AMD APM volume 3, appendix E; KVM's cpuid.rst).
//!
//! The list is built once for a machine. What differs from one vCPU to the next, the APIC identifier, is
//! then patched in place by [`Cpuid::set_apic_id`], which touches a few entries and allocates nothing.
//!
//! Not in it are leaves 0x15 and 0x16, the frequencies of the crystal and of the TSC: Linux takes the
//! crystal for the local APIC timer's clock, which under KVM is 1 GHz, and then computes the TSC's frequency
//! in 32 bits, where 1 GHz leaves no room for a precise ratio. kvmclock and leaf 0x4000_0010 say it all.

mod extended_state;
mod topology;

use crate::cpu_features::{self, CpuModel, Feature, Register};
pub use topology::{Topology, TopologyError};

/// One answer of the CPUID instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the architecture's own names")]
pub struct CpuidEntry {
    /// EAX of the question.
    pub function: u32,
    /// ECX of the question, where the answer depends on it (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
    pub index: Option<u32>,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

impl CpuidEntry {
    const fn new(function: u32, index: Option<u32>, registers: [u32; 4]) -> Self {
        let [eax, ebx, ecx, edx] = registers;
        Self {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
        }
    }

    const fn is_zero(&self) -> bool {
        self.eax | self.ebx | self.ecx | self.edx == 0
    }

    const fn register(&self, register: Register) -> u32 {
        match register {
            Register::Eax => self.eax,
            Register::Ebx => self.ebx,
            Register::Ecx => self.ecx,
            Register::Edx => self.edx,
        }
    }

    const fn register_mut(&mut self, register: Register) -> &mut u32 {
        match register {
            Register::Eax => &mut self.eax,
            Register::Ebx => &mut self.ebx,
            Register::Ecx => &mut self.ecx,
            Register::Edx => &mut self.edx,
        }
    }
}

/// What the machine is, as far as CPUID tells of it.
#[derive(Debug, Clone, Copy)]
pub struct CpuidConfig<'a> {
    /// Sockets, cores and threads.
    pub topology: Topology,
    /// Which features the user wants and does not want.
    pub model: &'a CpuModel,
    /// KVM_CAP_TSC_DEADLINE_TIMER: the local APIC in the kernel has the TSC-deadline mode. What KVM supports
    /// does not always show it.
    pub tsc_deadline_timer: bool,
    /// KVM_GET_TSC_KHZ, where the host can tell.
    pub tsc_khz: Option<u32>,
}

/// Features that were asked for with `+` and that this host's KVM cannot give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host cannot give a guest the CPU feature{} {}", if .names.len() == 1 { "" } else { "s" }, .names.join(", "))]
pub struct MissingFeatures {
    /// Their names, as /proc/cpuinfo has them.
    pub names: Vec<&'static str>,
}

/// Who made the processor, as far as it changes what leaves mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel, and every other whose leaves are laid out as Intel's.
    Intel,
    /// AuthenticAMD, and HygonGenuine, which is the same for CPUID.
    Amd,
}

impl Vendor {
    fn of(entries: &[CpuidEntry]) -> Self {
        let registers =
            find(entries, 0, 0).map_or([0; 3], |entry| [entry.ebx, entry.edx, entry.ecx]);
        let mut name = [0; 12];
        for (part, register) in name.chunks_exact_mut(4).zip(registers) {
            part.copy_from_slice(&register.to_le_bytes());
        }
        match &name {
            b"AuthenticAMD" | b"HygonGenuine" => Self::Amd,
            _ => Self::Intel,
        }
    }
}

/// The leaf with KVM's signature and, in EAX, the largest leaf of the hypervisor.
const LEAF_KVM: u32 = 0x4000_0000;
/// The leaf with the frequencies of the TSC and of the local APIC timer, in kilohertz.
const LEAF_FREQUENCIES: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// Leaf 1, ECX: the operating system has enabled XSAVE. KVM follows CR4 with it.
const OSXSAVE: u32 = 1 << 27;

/// The answers for one machine's vCPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpuid {
    entries: Vec<CpuidEntry>,
    vendor: Vendor,
    topology: Topology,
}

impl Cpuid {
    /// Makes the list from `supported`, which is what KVM_GET_SUPPORTED_CPUID gives. It is right for the
    /// vCPU with APIC identifier 0.
    ///
    /// # Errors
    ///
    /// [`MissingFeatures`] when the model asks for more than the host has.
    pub fn new(
        supported: &[CpuidEntry],
        config: &CpuidConfig<'_>,
    ) -> Result<Self, MissingFeatures> {
        let mut cpuid = Self {
            vendor: Vendor::of(supported),
            topology: config.topology,
            // Room for the leaves that are added below.
            entries: Vec::with_capacity(supported.len() + 12),
        };
        // An answer of zeros is what KVM gives for a leaf that is not in the list. Fewer entries are less
        // to copy for each vCPU and less to search for each CPUID instruction.
        let kept = supported
            .iter()
            .filter(|entry| !entry.is_zero() && !matches!(entry.function, 0x15 | 0x16));
        cpuid.entries.extend(kept);

        cpuid.set_what_kvm_emulates(config.tsc_deadline_timer);
        let missing: Vec<_> = config
            .model
            .added()
            .filter(|feature| !cpuid.has(feature))
            .map(|feature| feature.name)
            .collect();
        if !missing.is_empty() {
            return Err(MissingFeatures { names: missing });
        }
        for feature in config.model.removed() {
            cpuid.clear(feature);
        }
        extended_state::limit(&mut cpuid);
        cpuid.set_frequencies(config.tsc_khz);
        topology::set(&mut cpuid);
        cpuid.set_apic_id(0);
        Ok(cpuid)
    }

    /// The answers, for KVM_SET_CPUID2.
    pub fn entries(&self) -> &[CpuidEntry] {
        &self.entries
    }

    /// Makes the list right for the vCPU with this APIC identifier, which is its number.
    pub fn set_apic_id(&mut self, apic_id: u8) {
        topology::set_apic_id(self, apic_id);
    }

    /// Whether a guest sees the feature.
    pub fn has(&self, feature: &Feature) -> bool {
        self.has_bits(feature.leaf, feature.index, feature.register, feature.mask)
    }

    fn has_bits(&self, leaf: u32, index: u32, register: Register, mask: u32) -> bool {
        find(&self.entries, leaf, index)
            .is_some_and(|entry| entry.register(register) & mask == mask)
    }

    fn clear(&mut self, feature: &Feature) {
        if let Some(entry) = self.find_mut(feature.leaf, feature.index) {
            *entry.register_mut(feature.register) &= !feature.mask;
        }
        if self.vendor == Vendor::Amd
            && (feature.leaf, feature.register) == (1, Register::Edx)
            && let Some(entry) = self.find_mut(0x8000_0001, 0)
        {
            entry.edx &= !(feature.mask & cpu_features::AMD_REPEATED);
        }
    }

    /// Features that come with KVM's own local APIC and that every guest should see, whatever the host's
    /// list says of them.
    fn set_what_kvm_emulates(&mut self, tsc_deadline_timer: bool) {
        const X2APIC: u32 = 1 << 21;
        const TSC_DEADLINE: u32 = 1 << 24;
        const HYPERVISOR: u32 = 1 << 31;
        /// Always running APIC timer.
        const ARAT: u32 = 1 << 2;

        let leaf_1 = self.leaf_mut(1, None);
        leaf_1.ecx |= X2APIC | HYPERVISOR;
        leaf_1.ecx &= !(TSC_DEADLINE | OSXSAVE);
        if tsc_deadline_timer {
            leaf_1.ecx |= TSC_DEADLINE;
        }
        self.leaf_mut(6, None).eax |= ARAT;
        self.raise_maximum(0, 6);
    }

    fn set_frequencies(&mut self, tsc_khz: Option<u32>) {
        // Without KVM's signature nobody knows what the leaf means.
        if let (Some(tsc_khz), Some(_)) = (tsc_khz, find(&self.entries, LEAF_KVM, 0)) {
            self.raise_maximum(LEAF_KVM, LEAF_FREQUENCIES);
            *self.leaf_mut(LEAF_FREQUENCIES, None) =
                CpuidEntry::new(LEAF_FREQUENCIES, None, [tsc_khz, APIC_BUS_KHZ, 0, 0]);
        }
    }

    /// EAX of the first leaf of a group says which is the last.
    fn raise_maximum(&mut self, group: u32, leaf: u32) {
        let first = self.leaf_mut(group, None);
        first.eax = first.eax.max(leaf);
    }

    fn find_mut(&mut self, function: u32, index: u32) -> Option<&mut CpuidEntry> {
        self.entries
            .iter_mut()
            .find(|entry| entry.function == function && entry.index.unwrap_or(0) == index)
    }

    /// The entry, made with zeros if there is none.
    fn leaf_mut(&mut self, function: u32, index: Option<u32>) -> &mut CpuidEntry {
        let position = self
            .entries
            .iter()
            .position(|entry| {
                entry.function == function && entry.index.unwrap_or(0) == index.unwrap_or(0)
            })
            .unwrap_or_else(|| {
                self.entries.push(CpuidEntry::new(function, index, [0; 4]));
                self.entries.len() - 1
            });
        &mut self.entries[position]
    }

    fn remove_leaf(&mut self, function: u32) {
        self.entries.retain(|entry| entry.function != function);
    }
}

/// The entry for a question, in a list as KVM gives it.
fn find(entries: &[CpuidEntry], function: u32, index: u32) -> Option<&CpuidEntry> {
    entries
        .iter()
        .find(|entry| entry.function == function && entry.index.unwrap_or(0) == index)
}

/// MAXPHYADDR: how many bits a guest-physical address has, from what KVM supports. Where the host says that
/// its nested paging reaches less far than its own addresses (leaf 0x8000_0008, EAX bits 16 to 23), that.
pub fn physical_address_bits(supported: &[CpuidEntry]) -> u8 {
    /// What a processor without the leaf has (Intel SDM volume 3, 4.1.4).
    const DEFAULT: u8 = 36;
    let [bits, _linear, guest_bits, _] =
        find(supported, 0x8000_0008, 0).map_or([0; 4], |entry| entry.eax.to_le_bytes());
    match (bits, guest_bits) {
        (0, _) => DEFAULT,
        (bits, 0) => bits,
        (bits, guest_bits) => bits.min(guest_bits),
    }
}

#[cfg(test)]
mod tests;
