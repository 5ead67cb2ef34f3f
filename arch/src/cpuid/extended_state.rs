//! Leaf 0xd, the layout of XSAVE's area, cut down to what the features left in the other leaves use (Intel
//! SDM volume 1, 13.2). Its EBX fields are the size for what the guest has enabled; KVM keeps them.

use super::{Cpuid, find};
use crate::cpu_features::Register;

const LEAF: u32 = 0xd;
/// x87 and SSE state, which are there wherever XSAVE is: the legacy area and the header.
const LEGACY_COMPONENTS: u64 = 0b11;
const LEGACY_BYTES: u32 = 576;
/// Components from this index on have a sub-leaf with their size and offset.
const FIRST_EXTENDED: u32 = 2;

/// XSAVE, in ECX of leaf 1.
const XSAVE: u32 = 1 << 26;

/// Components of XCR0, and the feature without which there are none of them: its leaf, register and bit.
const COMPONENTS: [(u64, (u32, Register, u32)); 5] = [
    // AVX.
    (1 << 2, (1, Register::Ecx, 1 << 28)),
    // MPX.
    (0b11 << 3, (7, Register::Ebx, 1 << 14)),
    // AVX-512.
    (0b111 << 5, (7, Register::Ebx, 1 << 16)),
    // Protection keys.
    (1 << 9, (7, Register::Ecx, 1 << 3)),
    // AMX.
    (0b11 << 17, (7, Register::Edx, 1 << 24)),
];

pub(super) fn limit(cpuid: &mut Cpuid) {
    if !cpuid.has_bits(1, 0, Register::Ecx, XSAVE) {
        cpuid.remove_leaf(LEAF);
        return;
    }
    let Some(leaf) = find(&cpuid.entries, LEAF, 0) else {
        return;
    };
    let supported = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
    let gone: u64 = COMPONENTS
        .iter()
        .filter(|&&(_, (leaf, register, bit))| !cpuid.has_bits(leaf, 0, register, bit))
        .map(|(components, _)| components)
        .sum();
    // Nothing was masked: the sizes are the host's.
    if supported & gone == 0 {
        return;
    }
    let left = supported & !gone | LEGACY_COMPONENTS;
    cpuid.entries.retain(|entry| {
        let index = entry.index.unwrap_or(0);
        entry.function != LEAF || index < FIRST_EXTENDED || gone >> (index & 63) & 1 == 0
    });
    let bytes = cpuid
        .entries
        .iter()
        .filter(|entry| entry.function == LEAF)
        .filter(|entry| {
            let index = entry.index.unwrap_or(0);
            index >= FIRST_EXTENDED && left >> (index & 63) & 1 != 0
        })
        .map(|entry| entry.eax.saturating_add(entry.ebx))
        .fold(LEGACY_BYTES, u32::max);
    let leaf = cpuid.leaf_mut(LEAF, Some(0));
    let [low, high] = [left & 0xffff_ffff, left >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    (leaf.eax, leaf.edx, leaf.ecx) = (low, high, bytes);
    leaf.ebx = leaf.ebx.min(bytes);
}
