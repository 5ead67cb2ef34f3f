//! Leaf 0xd, the layout of XSAVE's area, cut down to what the features left in the other leaves use (Intel
//! SDM volume 1, 13.2). Its EBX fields are the size for what the guest has enabled; KVM keeps them.

use super::{Cpuid, find};
use crate::cpu_features::Register;

const LEAF: u32 = 0xd;
/// Descriptions of AMX's tiles and of their multiplier, which mean nothing without their state.
const LEAVES_AMX: [u32; 2] = [0x1d, 0x1e];
/// x87 and SSE state, which are there wherever XSAVE is: the legacy area and the header.
const LEGACY_COMPONENTS: u64 = 0b11;
const LEGACY_BYTES: u32 = 576;
/// Components from this index on have a sub-leaf with their size and offset.
const FIRST_EXTENDED: u32 = 2;

/// One feature's bit: leaf (index 0), register, mask.
type Bit = (u32, Register, u32);
const XSAVE: Bit = (1, Register::Ecx, 1 << 26);
const AVX: Bit = (1, Register::Ecx, 1 << 28);
const MPX: Bit = (7, Register::Ebx, 1 << 14);
const AVX512F: Bit = (7, Register::Ebx, 1 << 16);
const INTEL_PT: Bit = (7, Register::Ebx, 1 << 25);
const PKU: Bit = (7, Register::Ecx, 1 << 3);
const SHSTK: Bit = (7, Register::Ecx, 1 << 7);
const UINTR: Bit = (7, Register::Edx, 1 << 5);
const ARCH_LBR: Bit = (7, Register::Edx, 1 << 19);
const IBT: Bit = (7, Register::Edx, 1 << 20);
const AMX_TILE: Bit = (7, Register::Edx, 1 << 24);
/// In index 1 of the leaf itself.
const XSAVES: u32 = 1 << 3;

/// Components of XCR0, and the feature without which there are none of them.
const USER_COMPONENTS: [(u64, Bit); 5] = [
    (1 << 2, AVX),
    (0b11 << 3, MPX),
    (0b111 << 5, AVX512F),
    (1 << 9, PKU),
    (0b11 << 17, AMX_TILE),
];
/// Components of IA32_XSS, and the features that have them: they go with the last.
const SUPERVISOR_COMPONENTS: [(u64, [Bit; 2]); 4] = [
    (1 << 8, [INTEL_PT, INTEL_PT]),
    (0b11 << 11, [SHSTK, IBT]),
    (1 << 14, [UINTR, UINTR]),
    (1 << 15, [ARCH_LBR, ARCH_LBR]),
];

pub(super) fn limit(cpuid: &mut Cpuid) {
    if !has(cpuid, XSAVE) {
        cpuid.remove_leaf(LEAF);
    }
    if !has(cpuid, AMX_TILE) {
        for leaf in LEAVES_AMX {
            cpuid.remove_leaf(leaf);
        }
    }
    limit_user(cpuid);
    limit_supervisor(cpuid);
}

fn has(cpuid: &Cpuid, (leaf, register, mask): Bit) -> bool {
    cpuid.has_bits(leaf, 0, register, mask)
}

fn limit_user(cpuid: &mut Cpuid) {
    let Some(leaf) = find(&cpuid.entries, LEAF, 0) else {
        return;
    };
    let supported = join(leaf.eax, leaf.edx);
    let gone: u64 = USER_COMPONENTS
        .iter()
        .filter(|(_, bit)| !has(cpuid, *bit))
        .map(|(components, _)| components)
        .sum();
    // Nothing was masked: the sizes are the host's.
    if supported & gone == 0 {
        return;
    }
    let left = supported & !gone | LEGACY_COMPONENTS;
    remove_components(cpuid, gone);
    let bytes = cpuid
        .entries
        .iter()
        .filter(|entry| component(entry.function, entry.index).is_some_and(|one| left & one != 0))
        .map(|entry| entry.eax.saturating_add(entry.ebx))
        .fold(LEGACY_BYTES, u32::max);
    let leaf = cpuid.leaf_mut(LEAF, Some(0));
    (leaf.eax, leaf.edx) = split(left);
    leaf.ecx = bytes;
    leaf.ebx = leaf.ebx.min(bytes);
}

fn limit_supervisor(cpuid: &mut Cpuid) {
    let Some(leaf) = find(&cpuid.entries, LEAF, 1) else {
        return;
    };
    let supported = join(leaf.ecx, leaf.edx);
    let gone = if leaf.eax & XSAVES == 0 {
        supported
    } else {
        SUPERVISOR_COMPONENTS
            .iter()
            .filter(|(_, bits)| bits.iter().all(|bit| !has(cpuid, *bit)))
            .map(|(components, _)| components & supported)
            .sum()
    };
    remove_components(cpuid, gone);
    let leaf = cpuid.leaf_mut(LEAF, Some(1));
    (leaf.ecx, leaf.edx) = split(supported & !gone);
}

/// Removes the sub-leaves of components.
fn remove_components(cpuid: &mut Cpuid, gone: u64) {
    cpuid
        .entries
        .retain(|entry| component(entry.function, entry.index).is_none_or(|one| gone & one == 0));
}

/// The bit of the component that a sub-leaf describes.
fn component(function: u32, index: Option<u32>) -> Option<u64> {
    let index = index.filter(|index| function == LEAF && *index >= FIRST_EXTENDED)?;
    1u64.checked_shl(index)
}

const fn join(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn split(components: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = components.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}
