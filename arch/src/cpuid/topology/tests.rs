use super::super::tests::{amd_host, build, intel_host, leaf};
use super::*;

#[test]
fn shapes_with_gaps_are_refused() {
    assert_eq!(Topology::single_socket(255).unwrap().cpus(), 255);
    assert_eq!(Topology::new(2, 4, 2).unwrap().cpus(), 16);
    assert_eq!(Topology::new(1, 3, 2).unwrap().cpus(), 6);
    assert!(matches!(
        Topology::single_socket(0),
        Err(TopologyError::Count { cpus: 0 })
    ));
    assert!(matches!(
        Topology::new(2, 128, 1),
        Err(TopologyError::Count { cpus: 256 })
    ));
    assert!(matches!(
        Topology::new(1, 2, 3),
        Err(TopologyError::NotPowerOfTwo { .. })
    ));
    assert!(matches!(
        Topology::new(2, 3, 1),
        Err(TopologyError::NotPowerOfTwo { .. })
    ));
}

#[test]
fn one_cpu_is_alone() {
    for host in [intel_host(), amd_host()] {
        let cpuid = build(&host, Topology::single_socket(1).unwrap(), "host");
        let first = leaf(&cpuid, 1, 0);
        assert_eq!(first.ebx, 0x0001_0800);
        assert_eq!(first.edx >> 28 & 1, 0, "HTT");
        assert_eq!((leaf(&cpuid, 0xb, 0).eax, leaf(&cpuid, 0xb, 0).ebx), (0, 1));
        assert_eq!((leaf(&cpuid, 0xb, 1).eax, leaf(&cpuid, 0xb, 1).ebx), (0, 1));
    }
}

#[test]
fn levels_of_leaf_b() {
    let mut cpuid = build(&intel_host(), Topology::new(2, 4, 2).unwrap(), "host");
    cpuid.set_apic_id(13);
    for function in [0xb, 0x1f] {
        let registers = |index| {
            let entry = leaf(&cpuid, function, index);
            [entry.eax, entry.ebx, entry.ecx, entry.edx]
        };
        assert_eq!(registers(0), [1, 2, 0x100, 13]);
        assert_eq!(registers(1), [3, 8, 0x201, 13]);
        assert_eq!(registers(2), [0, 0, 2, 13]);
    }
    assert_eq!(leaf(&cpuid, 1, 0).ebx, 0x0d08_0800);
    assert_ne!(leaf(&cpuid, 1, 0).edx & 1 << 28, 0);
}

#[test]
fn leaf_1f_is_there_only_where_the_host_has_leaves_that_far() {
    let cpuid = build(&amd_host(), Topology::single_socket(4).unwrap(), "host");
    assert!(cpuid.entries().iter().all(|entry| entry.function != 0x1f));
    assert_eq!(leaf(&cpuid, 0, 0).eax, 0xd);
}

#[test]
fn caches_of_an_intel_host() {
    let cpuid = build(&intel_host(), Topology::new(1, 6, 2).unwrap(), "host");
    let fields = |index| {
        let eax = leaf(&cpuid, 4, index).eax;
        (eax & 0x3fff, (eax >> 14 & 0xfff) + 1, (eax >> 26) + 1)
    };
    assert_eq!(fields(0), (0x121, 2, 8));
    assert_eq!(fields(2), (0x143, 2, 8));
    assert_eq!(fields(3), (0x163, 16, 8));
    let most = build(&intel_host(), Topology::single_socket(255).unwrap(), "host");
    assert_eq!(leaf(&most, 4, 3).eax, 63 << 26 | 255 << 14 | 0x163);
    assert_eq!(leaf(&most, 1, 0).ebx >> 16 & 0xff, 255);
    assert_eq!(leaf(&most, 0x8000_0008, 0).ecx, 0, "reserved on Intel");
}

#[test]
fn cores_of_an_amd_host() {
    let mut cpuid = build(&amd_host(), Topology::new(2, 4, 2).unwrap(), "host");
    cpuid.set_apic_id(13);
    let sharing = |index| (leaf(&cpuid, 0x8000_001d, index).eax >> 14 & 0xfff) + 1;
    assert_eq!((sharing(0), sharing(2), sharing(3)), (2, 2, 8));
    assert_eq!(leaf(&cpuid, 0x8000_0008, 0).ecx, 0x3007);
    let extended = leaf(&cpuid, 0x8000_001e, 0);
    // Thread 1 of core 2 of socket 1.
    assert_eq!((extended.eax, extended.ebx, extended.ecx), (13, 0x102, 1));
    assert_eq!(leaf(&cpuid, 0x8000_0001, 0).ecx & 2, 2, "CmpLegacy");
    assert_eq!(leaf(&cpuid, 0x8000_0026, 0).eax, 0);
    assert_eq!(leaf(&cpuid, 1, 0).ebx, 0x0d08_0800);

    let bare = build(
        &amd_host(),
        Topology::single_socket(2).unwrap(),
        "host,-topoext",
    );
    let has = |function| {
        bare.entries()
            .iter()
            .any(|entry| entry.function == function)
    };
    assert!(!has(0x8000_001d) && !has(0x8000_001e));
}

/// Patching is all that a vCPU needs, whatever was patched before.
#[test]
fn patching_forgets_the_last_vcpu() {
    for host in [intel_host(), amd_host()] {
        let fresh = build(&host, Topology::single_socket(255).unwrap(), "host");
        let mut patched = fresh.clone();
        patched.set_apic_id(254);
        assert_ne!(patched, fresh);
        patched.set_apic_id(0);
        assert_eq!(patched, fresh);
    }
}
