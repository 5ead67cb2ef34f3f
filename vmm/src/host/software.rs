//! A KVM without hardware below it, which emulates a guest's ring 0: how it is recognised, and what a
//! guest is better not told of there.

use std::arch::x86_64::__cpuid;

use arch::cpu_features::{self, CpuModel};

/// Leaf 1, ECX: Intel's VMX, and that a hypervisor is below (Intel SDM volume 2, CPUID; KVM's cpuid.rst).
const VMX: u32 = 1 << 5;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 0x8000_0001, ECX: AMD's SVM (AMD APM volume 3, appendix E).
const SVM: u32 = 1 << 2;

/// Features whose instructions a kernel executes often, each at the cost of an exit there, and which such a
/// KVM can hide. POPCNT, SMAP and XSAVE would be others, but guests read those from the processor itself.
const COSTLY: [&str; 1] = ["cx16"];

/// Whether this host's processor has nothing for KVM to use: it is a virtual one without nested
/// virtualisation, so that a KVM that works must be a software one. Two CPUID instructions; nothing is read or
/// measured, as this is part of each machine's start.
pub fn has_software_kvm() -> bool {
    let features = __cpuid(1).ecx;
    // All 64-bit processors have the second leaf.
    is_software(features, || __cpuid(0x8000_0001).ecx)
}

fn is_software(features: u32, extended: impl FnOnce() -> u32) -> bool {
    features & HYPERVISOR != 0 && features & VMX == 0 && extended() & SVM == 0
}

/// `model` without the costly features that it does not name, and the names of those that go.
pub fn without_costly_features(model: CpuModel) -> (CpuModel, Vec<&'static str>) {
    let mut gone = Vec::new();
    let mut model = model;
    for name in COSTLY {
        let is_named = cpu_features::find(name).is_none_or(|feature| {
            let mut named = model.added().chain(model.removed());
            named.any(|other| *other == feature)
        });
        // It fails when the user wants a feature that needs this one.
        if !is_named && let Ok(without) = format!("{model},-{name}").parse() {
            model = without;
            gone.push(name);
        }
    }
    (model, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_seen_whoever_made_it() {
        let never = || panic!("not needed");
        assert!(!is_software(0, never), "no hypervisor below");
        assert!(!is_software(VMX, never));
        assert!(!is_software(HYPERVISOR | VMX, never), "nested");
        assert!(!is_software(HYPERVISOR, || SVM), "nested");
        assert!(is_software(HYPERVISOR, || !SVM));
    }

    #[test]
    fn what_the_user_names_stays_as_named() {
        for (given, expected, gone) in [
            ("host", "host,-cx16", &["cx16"][..]),
            ("host,-avx", "host,-avx,-cx16", &["cx16"]),
            ("host,+cx16", "host,+cx16", &[]),
            ("host,+avx,-cx16", "host,+avx,-cx16", &[]),
        ] {
            let (model, names) = without_costly_features(given.parse().unwrap());
            assert_eq!(model.to_string(), expected);
            assert_eq!(names, gone);
        }
    }

    #[test]
    fn this_host_agrees_with_what_its_kernel_says() {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let has = |name: &str| flags.split_ascii_whitespace().any(|flag| flag == name);
        let expected = has("hypervisor") && !has("vmx") && !has("svm");
        assert_eq!(has_software_kvm(), expected);
    }
}
