//! The processor's state, as an instruction sees it and as the caller lends it.

use crate::feature::Feature;
use crate::word::low_8;
use crate::xsave_layout::XsaveLayout;

/// Model-specific registers that instructions read and write (Intel SDM volume 4).
pub mod msr {
    /// Time-stamp counter.
    pub const TSC: u32 = 0x10;
    /// Supervisor state components that XSAVES saves.
    pub const XSS: u32 = 0xda0;
    /// Control-flow enforcement of user mode.
    pub const U_CET: u32 = 0x6a0;
    /// Shadow-stack pointer of level 0.
    pub const PL0_SSP: u32 = 0x6a4;
    /// Shadow-stack pointer of level 1.
    pub const PL1_SSP: u32 = 0x6a5;
    /// Shadow-stack pointer of level 2.
    pub const PL2_SSP: u32 = 0x6a6;
    /// Shadow-stack pointer of level 3.
    pub const PL3_SSP: u32 = 0x6a7;
    /// Rights by protection key to supervisor pages.
    pub const PKRS: u32 = 0x6e1;
    /// Base of GS while user code has its own.
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    /// What RDTSCP and RDPID give.
    pub const TSC_AUX: u32 = 0xc000_0103;
}

/// Bits of CR0, CR4, EFER and RFLAGS (Intel SDM volume 3, 2.5; volume 1, 3.4.3).
pub mod bits {
    pub const CR0_PE: u64 = 1;
    pub const CR0_MP: u64 = 1 << 1;
    pub const CR0_EM: u64 = 1 << 2;
    pub const CR0_TS: u64 = 1 << 3;
    pub const CR0_WP: u64 = 1 << 16;
    pub const CR0_AM: u64 = 1 << 18;
    pub const CR0_PG: u64 = 1 << 31;
    pub const CR4_PSE: u64 = 1 << 4;
    pub const CR4_PAE: u64 = 1 << 5;
    pub const CR4_OSFXSR: u64 = 1 << 9;
    pub const CR4_LA57: u64 = 1 << 12;
    pub const CR4_FSGSBASE: u64 = 1 << 16;
    pub const CR4_OSXSAVE: u64 = 1 << 18;
    pub const CR4_SMEP: u64 = 1 << 20;
    pub const CR4_SMAP: u64 = 1 << 21;
    pub const CR4_PKE: u64 = 1 << 22;
    pub const CR4_PKS: u64 = 1 << 24;
    pub const CR4_TSD: u64 = 1 << 2;
    pub const EFER_LMA: u64 = 1 << 10;
    pub const EFER_NXE: u64 = 1 << 11;
    pub const EFER_FFXSR: u64 = 1 << 14;
    pub const CF: u64 = 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const IOPL: u64 = 3 << 12;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
}

/// The vCPU's state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct CpuError {
    /// What was tried, as in "read the model-specific registers".
    pub what: &'static str,
    /// What the host said.
    pub source: std::io::Error,
}

/// General registers, instruction pointer and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// In the order of their numbers: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

impl Registers {
    /// General register `number`; 0 beyond 15.
    pub(crate) fn get(&self, number: usize) -> u64 {
        self.general.get(number).copied().unwrap_or(0)
    }

    /// Sets general register `number`; nothing beyond 15.
    pub(crate) fn set(&mut self, number: usize, value: u64) {
        if let Some(register) = self.general.get_mut(number) {
            *register = value;
        }
    }
}

/// Which segment register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentName {
    /// Extra.
    Es,
    /// Code.
    Cs,
    /// Stack.
    Ss,
    /// Data.
    Ds,
    /// F.
    Fs,
    /// G.
    Gs,
}

/// A segment register with its hidden part (Intel SDM volume 3, 3.4.3 and 3.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Type field, 4 bits.
    pub kind: u8,
    /// Descriptor privilege level.
    pub dpl: u8,
    /// Present and usable.
    pub usable: bool,
    /// D/B: 32-bit.
    pub default_32_bit: bool,
    /// L: 64-bit code.
    pub long: bool,
}

/// Segments and control registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SystemRegisters {
    /// ES, CS, SS, DS, FS, GS, in this order.
    pub segments: [Segment; 6],
    /// Base of the global descriptor table.
    pub gdt_base: u64,
    /// Limit of the global descriptor table.
    pub gdt_limit: u16,
    /// Base of the local descriptor table.
    pub ldt_base: u64,
    /// Limit of the local descriptor table; 0 when there is none.
    pub ldt_limit: u32,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

impl SystemRegisters {
    /// One segment register.
    pub const fn segment(&self, name: SegmentName) -> &Segment {
        let [es, cs, ss, ds, fs, gs] = &self.segments;
        match name {
            SegmentName::Es => es,
            SegmentName::Cs => cs,
            SegmentName::Ss => ss,
            SegmentName::Ds => ds,
            SegmentName::Fs => fs,
            SegmentName::Gs => gs,
        }
    }

    /// One segment register, to be changed.
    pub const fn segment_mut(&mut self, name: SegmentName) -> &mut Segment {
        let [es, cs, ss, ds, fs, gs] = &mut self.segments;
        match name {
            SegmentName::Es => es,
            SegmentName::Cs => cs,
            SegmentName::Ss => ss,
            SegmentName::Ds => ds,
            SegmentName::Fs => fs,
            SegmentName::Gs => gs,
        }
    }

    /// Whether the processor is in protected mode, of whatever width.
    pub(crate) const fn is_protected(&self) -> bool {
        self.cr0 & bits::CR0_PE != 0
    }

    /// Whether code is 64-bit code.
    pub(crate) const fn is_64_bit(&self) -> bool {
        self.efer & bits::EFER_LMA != 0 && self.segment(SegmentName::Cs).long
    }

    /// Width of the instructions, in bits.
    pub(crate) const fn code_bits(&self) -> u32 {
        if self.is_64_bit() {
            64
        } else if self.segment(SegmentName::Cs).default_32_bit {
            32
        } else {
            16
        }
    }

    /// The current privilege level, given the flags.
    pub(crate) const fn privilege_level(&self, rflags: u64) -> u8 {
        if !self.is_protected() {
            0
        } else if rflags & bits::VM != 0 {
            3
        } else {
            self.segment(SegmentName::Ss).dpl & 3
        }
    }
}

/// A vCPU between two instructions, lent for the time of one.
///
/// Everything but the registers is asked for only by instructions that need it.
pub trait Cpu {
    /// General registers as they are.
    fn registers(&mut self) -> Result<Registers, CpuError>;

    /// Sets the general registers. Called at most once, as the last.
    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError>;

    /// Segments and control registers as they are.
    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError>;

    /// Sets the bases of FS and GS, the only system registers that an instruction here changes.
    fn set_segment_bases(&mut self, fs: u64, gs: u64) -> Result<(), CpuError>;

    /// XCR0.
    fn xcr0(&mut self) -> Result<u64, CpuError>;

    /// Sets XCR0 to a value that has been checked against [`Cpu::xsave_layout`].
    fn set_xcr0(&mut self, value: u64) -> Result<(), CpuError>;

    /// One of the registers in [`msr`].
    fn msr(&mut self, index: u32) -> Result<u64, CpuError>;

    /// Sets one of the registers in [`msr`].
    fn set_msr(&mut self, index: u32, value: u64) -> Result<(), CpuError>;

    /// Puts the floating-point and vector state into `area`: the XSAVE area in standard form, as
    /// KVM_GET_XSAVE2 gives it. The caller gives an empty vector and reads as many bytes as it gets.
    fn read_xsave_area(&mut self, area: &mut Vec<u8>) -> Result<(), CpuError>;

    /// Sets the floating-point and vector state from an area of the same length.
    fn write_xsave_area(&mut self, area: &[u8]) -> Result<(), CpuError>;

    /// Where the state components are, and which the guest may enable.
    fn xsave_layout(&self) -> &XsaveLayout;

    /// Forgets all translations that KVM keeps for this vCPU.
    fn flush_tlb(&mut self) -> Result<(), CpuError>;

    /// Whether the guest's CPUID has `feature`.
    fn has(&self, feature: Feature) -> bool;

    /// 64 random bits for RDRAND and RDSEED; none when the host has none now.
    fn random(&mut self) -> Option<u64>;

    /// Base and limit of the interrupt descriptor table, if the caller can inject software interrupts
    /// ([`Exception::software`](crate::Exception)). Without it INT n is unknown.
    fn interrupt_table(&mut self) -> Result<Option<(u64, u16)>, CpuError> {
        Ok(None)
    }

    /// Width of guest-physical addresses (CPUID 0x8000_0008, EAX bits 7:0).
    fn physical_address_bits(&self) -> u8;
}

/// The number of a privilege level out of a selector.
pub const fn requested_privilege_level(selector: u16) -> u8 {
    low_8(selector as u64) & 3
}
