//! The state in which the boot vCPU enters a kernel, for each of the two protocols that we speak.

use crate::layout;
use crate::registers::{self, GeneralRegisters, SystemRegisters, cr0, cr4, efer};
use crate::segments::{self, DescriptorTable, Segment};

/// Registers of the boot vCPU at the kernel's first instruction. The application processors have none:
/// they wait for their start-up interrupt in the state that KVM gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryState {
    /// The general registers.
    pub general: GeneralRegisters,
    /// Segments and control registers.
    pub system: SystemRegisters,
}

impl EntryState {
    /// Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): long mode,
    /// paging on, interrupts off, `__BOOT_CS` and `__BOOT_DS` flat, RSI at the zero page.
    ///
    /// Memory must hold [`segments::GDT_64`] at [`layout::GDT`], [`crate::paging::identity_map`]'s tables
    /// at [`layout::PAGE_TABLES`] and the zero page at [`layout::ZERO_PAGE`].
    pub const fn linux_64_bit(entry_address: u64) -> Self {
        Self {
            general: GeneralRegisters {
                rip: entry_address,
                rsi: layout::ZERO_PAGE.start,
                ..INTERRUPTS_OFF
            },
            system: SystemRegisters {
                cs: Segment::CODE_64,
                cr0: cr0::PE | cr0::ET | cr0::PG,
                cr3: layout::PAGE_TABLES.start,
                cr4: cr4::PAE,
                efer: efer::LME | efer::LMA,
                ..FLAT_32_BIT
            },
        }
    }

    /// The PVH protocol (Xen's "HVM direct boot ABI", docs/misc/pvh): 32-bit protected mode, paging off,
    /// interrupts off, flat segments, EBX at the start information.
    ///
    /// Memory must hold the start information at [`layout::PVH_START_INFO`]; [`segments::GDT_32`] at
    /// [`layout::GDT`] is not asked for but does good.
    pub const fn pvh(entry_address: u32) -> Self {
        Self {
            general: GeneralRegisters {
                rip: entry_address as u64,
                rbx: layout::PVH_START_INFO.start,
                ..INTERRUPTS_OFF
            },
            system: FLAT_32_BIT,
        }
    }
}

const INTERRUPTS_OFF: GeneralRegisters = GeneralRegisters {
    rax: 0,
    rbx: 0,
    rcx: 0,
    rdx: 0,
    rsi: 0,
    rdi: 0,
    rsp: 0,
    rbp: 0,
    r8: 0,
    r9: 0,
    r10: 0,
    r11: 0,
    r12: 0,
    r13: 0,
    r14: 0,
    r15: 0,
    rip: 0,
    rflags: registers::RFLAGS_RESERVED,
};

const FLAT_32_BIT: SystemRegisters = SystemRegisters {
    cs: Segment::CODE_32,
    ds: Segment::DATA,
    es: Segment::DATA,
    fs: Segment::DATA,
    gs: Segment::DATA,
    ss: Segment::DATA,
    tr: Segment::TSS,
    ldt: Segment::NO_LDT,
    gdt: segments::GDT_REGISTER,
    // No handler: a fault before the kernel has its own table is a triple fault, which ends the machine.
    idt: DescriptorTable { base: 0, limit: 0 },
    cr0: cr0::PE | cr0::ET,
    cr3: 0,
    cr4: 0,
    efer: 0,
};

#[cfg(test)]
mod tests;
