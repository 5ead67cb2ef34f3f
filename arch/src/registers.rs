//! A vCPU's registers as plain values (Intel SDM volume 3, chapter 2; AMD APM volume 2, chapters 3 and 4).
//!
//! `boot` decides them, `vmm` turns them into the structures of the KVM API.

use crate::segments::{DescriptorTable, Segment};

/// Bits of CR0 (Intel SDM volume 3, 2.5).
pub mod cr0 {
    /// Protected mode.
    pub const PE: u64 = 1 << 0;
    /// Extension type: one on every processor since the 486.
    pub const ET: u64 = 1 << 4;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4 (Intel SDM volume 3, 2.5).
pub mod cr4 {
    /// Physical address extension: page table entries of eight bytes.
    pub const PAE: u64 = 1 << 5;
}

/// Bits of the extended feature enable register (Intel SDM volume 3, 2.2.1).
pub mod efer {
    /// Long mode enabled.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
}

/// RFLAGS with interrupts off and nothing set but bit 1, which is always one.
pub const RFLAGS_RESERVED: u64 = 1 << 1;

/// The general registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the architecture's own names")]
pub struct GeneralRegisters {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Segments, descriptor tables and the registers that choose the processor's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the architecture's own names")]
pub struct SystemRegisters {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: DescriptorTable,
    pub idt: DescriptorTable,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
}

/// The part of the floating-point state that is not zero at a kernel's entry: what FNINIT and the reset of
/// MXCSR give (Intel SDM volume 1, 8.1.5 and 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatingPoint {
    /// x87 control word.
    pub fcw: u16,
    /// SSE control and status.
    pub mxcsr: u32,
}

/// All exceptions masked, round to nearest, 64-bit precision.
pub const FLOATING_POINT: FloatingPoint = FloatingPoint {
    fcw: 0x37f,
    mxcsr: 0x1f80,
};
