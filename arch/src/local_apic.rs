//! What the firmware of a PC leaves in the boot processor's local APIC (Intel SDM volume 3, 12.5.1;
//! MultiProcessor Specification 1.4, 3.6.2.2, "virtual wire mode"): the 8259 pair on LINT0, NMI on LINT1.
//! The application processors' pins stay masked, as after reset; the MADT tells a kernel what is on them.

/// A register of the local APIC: its offset in the register page, which is its place in KVM_GET_LAPIC's
/// bytes too, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalApicRegister {
    /// Offset in bytes.
    pub offset: u16,
    /// 32 bits, little endian in memory.
    pub value: u32,
}

/// Offset of LINT0's entry in the local vector table.
const LVT_LINT0: u16 = 0x350;
/// Offset of LINT1's entry in the local vector table.
const LVT_LINT1: u16 = 0x360;
/// Delivery mode: the vector comes from an external interrupt controller.
const DELIVERY_EXTINT: u32 = 7 << 8;
/// Delivery mode: non-maskable interrupt.
const DELIVERY_NMI: u32 = 4 << 8;

/// For the boot processor; unmasked, edge-triggered, active high.
pub const BOOT_PROCESSOR: [LocalApicRegister; 2] = [
    LocalApicRegister {
        offset: LVT_LINT0,
        value: DELIVERY_EXTINT,
    },
    LocalApicRegister {
        offset: LVT_LINT1,
        value: DELIVERY_NMI,
    },
];
