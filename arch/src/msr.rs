//! Model-specific registers that a vCPU has when a kernel is entered, where KVM's own reset values are not
//! those of a machine whose firmware has run (Intel SDM volume 4; AMD APM volume 2, appendix A).

/// What it means that a host refuses a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// A guest cannot run as it should: an error.
    Required,
    /// A guest runs, less well: worth a line in the log.
    Desired,
}

/// A register and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msr {
    /// The register's number.
    pub index: u32,
    /// Its value.
    pub value: u64,
    /// Whether a guest can live without.
    pub importance: Importance,
}

impl Msr {
    const fn new(index: u32, value: u64, importance: Importance) -> Self {
        Self {
            index,
            value,
            importance,
        }
    }
}

/// Time-stamp counter.
pub const IA32_TSC: u32 = 0x10;
/// Code segment, stack and instruction pointer of SYSENTER.
pub const IA32_SYSENTER: [u32; 3] = [0x174, 0x175, 0x176];
/// Switches of optional processor features.
pub const IA32_MISC_ENABLE: u32 = 0x1a0;
/// Memory types by page.
pub const IA32_PAT: u32 = 0x277;
/// Memory type where no range register says otherwise.
pub const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;

/// MISC_ENABLE: fast string instructions.
const FAST_STRINGS: u64 = 1 << 0;
/// MISC_ENABLE: no branch trace storage, no precise event-based sampling. KVM starts with both set.
const NO_BTS: u64 = 1 << 11;
const NO_PEBS: u64 = 1 << 12;
/// MTRR_DEF_TYPE: the range registers are in use.
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;
/// Write-back, write-through, uncached, strongly uncached, twice: what a processor has after reset (Intel SDM
/// volume 3, 12.12.4).
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// For every vCPU, in the order in which they are to be set: KVM_SET_MSRS stops at the first that it refuses,
/// so the required come first. The TSC is zero on all, which KVM takes as a wish for synchronous counters.
pub const BOOT: [Msr; 7] = [
    Msr::new(
        IA32_MTRR_DEF_TYPE,
        MTRR_ENABLE | WRITE_BACK,
        Importance::Required,
    ),
    Msr::new(IA32_PAT, PAT_RESET, Importance::Required),
    Msr::new(IA32_SYSENTER[0], 0, Importance::Desired),
    Msr::new(IA32_SYSENTER[1], 0, Importance::Desired),
    Msr::new(IA32_SYSENTER[2], 0, Importance::Desired),
    Msr::new(IA32_TSC, 0, Importance::Desired),
    Msr::new(
        IA32_MISC_ENABLE,
        FAST_STRINGS | NO_BTS | NO_PEBS,
        Importance::Desired,
    ),
];

#[cfg(test)]
mod tests;
