//! What the guest's processor can do, as far as completions ask.

use std::arch::x86_64::__cpuid_count;

use completion::{CpuidRegister, Feature, XsaveLayout};
use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;

/// Leaf of the extended state.
const XSAVE_LEAF: u32 = 0xd;
/// Leaf of the address widths.
const ADDRESS_LEAF: u32 = 0x8000_0008;
/// What processors have that do not tell (Intel SDM volume 2, CPUID).
const ADDRESS_BITS_DEFAULT: u8 = 36;

/// Features, widths and layouts of one vCPU.
#[derive(Debug)]
pub struct Profile {
    features: Vec<Feature>,
    pub layout: XsaveLayout,
    pub physical_address_bits: u8,
}

impl Profile {
    /// Asks KVM for what it was told that the guest sees, and the host's processor.
    ///
    /// An instruction counts as there when either has it: a guest in hardware executes what its
    /// processor knows, whatever its CPUID says, and a guest beside hardware reads the processor's own CPUID
    /// wherever KVM does not see the instruction.
    pub fn new(vcpu: &VcpuFd) -> Self {
        let cpuid = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).ok();
        let entries = cpuid
            .as_ref()
            .map_or([].as_slice(), |cpuid| cpuid.as_slice());
        let has = |feature: &&Feature| {
            let location = feature.location();
            let told = guest(entries, location.leaf, location.subleaf).unwrap_or_default();
            let real = host(location.leaf, location.subleaf);
            let register = match location.register {
                CpuidRegister::Eax => 0,
                CpuidRegister::Ebx => 1,
                CpuidRegister::Ecx => 2,
                CpuidRegister::Edx => 3,
            };
            (told[register] | real[register]) & 1 << location.bit != 0
        };
        let layout = XsaveLayout::from_cpuid(|subleaf| match subleaf {
            // Which components the guest may enable is KVM's to say, where they are the processor's.
            0 => guest(entries, XSAVE_LEAF, 0).unwrap_or_default(),
            _ => host(XSAVE_LEAF, subleaf),
        });
        let [widths, ..] = guest(entries, ADDRESS_LEAF, 0).unwrap_or_default();
        let [physical, ..] = widths.to_le_bytes();
        Self {
            features: Feature::ALL.iter().filter(has).copied().collect(),
            layout,
            physical_address_bits: match physical {
                0 => ADDRESS_BITS_DEFAULT,
                bits => bits,
            },
        }
    }

    /// Whether the guest's processor has `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// EAX, EBX, ECX and EDX of the guest's leaf.
fn guest(entries: &[kvm_cpuid_entry2], leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
    entries
        .iter()
        .find(|entry| {
            let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
            entry.function == leaf && (!indexed || entry.index == subleaf)
        })
        .map(|entry| [entry.eax, entry.ebx, entry.ecx, entry.edx])
}

/// The same of the host's processor; zeros beyond its last leaf.
fn host(leaf: u32, subleaf: u32) -> [u32; 4] {
    let last = __cpuid_count(leaf & 0x8000_0000, 0).eax;
    if leaf > last {
        return [0; 4];
    }
    let answer = __cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}
