use super::*;

/// A list like that of an Intel host with AVX-512 and two threads in each of its cores.
pub(super) fn intel_host() -> Vec<CpuidEntry> {
    let plain = |function, registers| CpuidEntry::new(function, None, registers);
    let indexed = |function, index, registers| CpuidEntry::new(function, Some(index), registers);
    vec![
        plain(0, [0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        plain(1, [0x606a6, 0x0b40_0800, 0xfffa_3203, 0x1f8b_fbff]),
        indexed(4, 0, [0x0400_4121, 0x02c0_003f, 0x3f, 0]),
        indexed(4, 2, [0x0400_4143, 0x04c0_003f, 0x3ff, 0]),
        indexed(4, 3, [0xfc0f_c163, 0x02c0_003f, 0xbfff, 4]),
        indexed(4, 4, [0, 0, 0, 0]),
        indexed(7, 0, [0, 0xf1bf_27eb, 0x0040_5f4e, 0xac00_0400]),
        indexed(0xb, 0, [1, 2, 0x100, 0xb]),
        indexed(0xb, 1, [6, 64, 0x201, 0xb]),
        indexed(0xd, 0, [0x2e7, 0xa88, 0xa88, 0]),
        indexed(0xd, 1, [0xf, 0, 0, 0]),
        indexed(0xd, 2, [0x100, 0x240, 0, 0]),
        indexed(0xd, 5, [0x40, 0x440, 0, 0]),
        indexed(0xd, 6, [0x200, 0x480, 0, 0]),
        indexed(0xd, 7, [0x400, 0x680, 0, 0]),
        indexed(0xd, 9, [8, 0xa80, 0, 0]),
        plain(0x15, [2, 0xa0, 0x16e_3600, 0]),
        plain(0x16, [0x7d0, 0xdac, 0x64, 0]),
        plain(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        plain(0x4000_0001, [0x0100_7efb, 0, 0, 0]),
        plain(0x8000_0000, [0x8000_0008, 0, 0, 0]),
        plain(0x8000_0001, [0, 0, 0x121, 0x2c10_0800]),
        plain(0x8000_0007, [0, 0, 0, 0x100]),
        plain(0x8000_0008, [0x392e, 0x200, 0, 0]),
    ]
}

/// A list like that of an AMD host.
pub(super) fn amd_host() -> Vec<CpuidEntry> {
    let plain = |function, registers| CpuidEntry::new(function, None, registers);
    let indexed = |function, index, registers| CpuidEntry::new(function, Some(index), registers);
    vec![
        plain(0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        plain(1, [0x00a0_0f11, 0x0102_0800, 0x8120_2000, 0x078b_fbff]),
        plain(2, [0, 0, 0, 0]),
        indexed(7, 0, [0, 0x0180_0002, 4, 0x2000_0000]),
        indexed(0xd, 0, [7, 0x340, 0x340, 0]),
        indexed(0xd, 2, [0x100, 0x240, 0, 0]),
        plain(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        plain(0x4000_0001, [0x0100_7efb, 0, 0, 0]),
        plain(
            0x8000_0000,
            [0x8000_0021, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
        ),
        plain(
            0x8000_0001,
            [0x00a0_0f11, 0x4000_0000, 0x0040_0393, 0x23d3_fbff],
        ),
        plain(0x8000_0008, [0x3030, 0x1000_0005, 0x7001, 0]),
        indexed(0x8000_001d, 0, [0x121, 0x01c0_003f, 0x3f, 0]),
        indexed(0x8000_001d, 2, [0x143, 0x01c0_003f, 0x3ff, 2]),
        indexed(0x8000_001d, 3, [0x4163, 0x03c0_003f, 0x7fff, 1]),
        plain(0x8000_0026, [1, 2, 0x100, 0]),
    ]
}

pub(super) fn build(supported: &[CpuidEntry], topology: Topology, model: &str) -> Cpuid {
    let model = model.parse().unwrap();
    let config = CpuidConfig {
        topology,
        model: &model,
        tsc_deadline_timer: true,
        tsc_khz: Some(2_450_000),
    };
    Cpuid::new(supported, &config).unwrap()
}

fn one_cpu(supported: &[CpuidEntry], model: &str) -> Cpuid {
    build(supported, Topology::single_socket(1).unwrap(), model)
}

pub(super) fn leaf(cpuid: &Cpuid, function: u32, index: u32) -> CpuidEntry {
    let zeros = CpuidEntry::new(function, None, [0; 4]);
    find(cpuid.entries(), function, index)
        .copied()
        .unwrap_or(zeros)
}

#[test]
fn kvm_s_own_features_are_shown() {
    for host in [intel_host(), amd_host()] {
        let cpuid = one_cpu(&host, "host");
        for name in [
            "x2apic",
            "hypervisor",
            "tsc_deadline_timer",
            "arat",
            "kvmclock",
        ] {
            assert!(cpuid.has(&cpu_features::find(name).unwrap()), "{name}");
        }
        assert_eq!(leaf(&cpuid, 1, 0).ecx & OSXSAVE, 0);
        assert_eq!(leaf(&cpuid, 0x4000_0000, 0).eax, 0x4000_0010);
        let frequencies = leaf(&cpuid, 0x4000_0010, 0);
        assert_eq!((frequencies.eax, frequencies.ebx), (2_450_000, 1_000_000));
        assert_eq!(leaf(&cpuid, 0x15, 0).eax, 0);
        assert!(cpuid.entries().iter().all(|entry| entry.function != 2));
    }
}

#[test]
fn without_the_capability_there_is_no_deadline_timer() {
    let config = CpuidConfig {
        topology: Topology::single_socket(1).unwrap(),
        model: &CpuModel::default(),
        tsc_deadline_timer: false,
        tsc_khz: None,
    };
    let cpuid = Cpuid::new(&intel_host(), &config).unwrap();
    assert!(!cpuid.has(&cpu_features::find("tsc_deadline_timer").unwrap()));
    assert_eq!(leaf(&cpuid, 0x4000_0000, 0).eax, 0x4000_0001);
}

#[test]
fn every_question_has_one_answer() {
    for host in [intel_host(), amd_host()] {
        let cpuid = build(&host, Topology::new(2, 4, 2).unwrap(), "host");
        let mut questions: Vec<_> = cpuid
            .entries()
            .iter()
            .map(|entry| (entry.function, entry.index.unwrap_or(0)))
            .collect();
        let count = questions.len();
        questions.sort_unstable();
        questions.dedup();
        assert_eq!(questions.len(), count);
    }
}

#[test]
fn masked_features_are_gone_with_their_dependants_and_state() {
    let cpuid = one_cpu(&intel_host(), "host");
    assert_eq!(leaf(&cpuid, 0xd, 0), intel_host()[9]);

    let cpuid = one_cpu(&intel_host(), "host,-avx512f");
    assert_eq!(leaf(&cpuid, 7, 0).ebx & (1 << 16 | 1 << 30), 0);
    let state = leaf(&cpuid, 0xd, 0);
    assert_eq!(
        (state.eax, state.ecx),
        (0x207, 0xa88),
        "PKU is last and stays"
    );
    assert_eq!(leaf(&cpuid, 0xd, 6).eax, 0);

    let cpuid = one_cpu(&intel_host(), "host,-avx2,-pku");
    let state = leaf(&cpuid, 0xd, 0);
    assert_eq!((state.eax, state.ebx, state.ecx), (7, 0x340, 0x340));

    let cpuid = one_cpu(&intel_host(), "host,-xsave");
    assert!(cpuid.entries().iter().all(|entry| entry.function != 0xd));
    assert!(!cpuid.has(&cpu_features::find("avx").unwrap()));
    assert!(cpuid.has(&cpu_features::find("sse4_2").unwrap()));
}

#[test]
fn supervisor_state_goes_with_the_last_feature_that_has_it() {
    let mut host = intel_host();
    let state = |index, registers| CpuidEntry::new(0xd, Some(index), registers);
    for entry in &mut host {
        match (entry.function, entry.index) {
            (7, Some(0)) => (entry.ecx, entry.edx) = (entry.ecx | 1 << 7, entry.edx | 1 << 20),
            (0xd, Some(1)) => entry.ecx = 0b11 << 11,
            _ => {}
        }
    }
    host.extend([state(11, [0x10, 0, 1, 0]), state(12, [0x18, 0, 1, 0])]);
    for (model, left) in [
        ("host", 0b11 << 11),
        ("host,-shstk", 0b11 << 11),
        ("host,-shstk,-ibt", 0),
        ("host,-xsaves", 0),
        ("host,-avx2", 0b11 << 11),
    ] {
        let cpuid = one_cpu(&host, model);
        assert_eq!(leaf(&cpuid, 0xd, 1).ecx, left, "{model}");
        assert_eq!(leaf(&cpuid, 0xd, 12).eax != 0, left != 0, "{model}");
    }
}

#[test]
fn amd_s_repeated_bits_go_too() {
    let cpuid = one_cpu(&amd_host(), "host,-mmx");
    assert_eq!(leaf(&cpuid, 1, 0).edx & 1 << 23, 0);
    assert_eq!(leaf(&cpuid, 0x8000_0001, 0).edx & 1 << 23, 0);
    assert_ne!(leaf(&cpuid, 0x8000_0001, 0).edx & 1 << 24, 0);
}

#[test]
fn what_the_host_lacks_is_listed() {
    let model: CpuModel = "host,+avx2,+x2apic,+vmx,+rdrand".parse().unwrap();
    let config = CpuidConfig {
        topology: Topology::single_socket(1).unwrap(),
        model: &model,
        tsc_deadline_timer: true,
        tsc_khz: None,
    };
    let error = Cpuid::new(&amd_host(), &config).unwrap_err();
    assert_eq!(error.names, ["avx2", "vmx", "rdrand"]);
    assert_eq!(
        error.to_string(),
        "this host cannot give a guest the CPU features avx2, vmx, rdrand"
    );
}

#[test]
fn the_address_width_is_the_smaller_one() {
    assert_eq!(physical_address_bits(&intel_host()), 46);
    assert_eq!(physical_address_bits(&amd_host()), 48);
    assert_eq!(physical_address_bits(&[]), 36);
    let nested = CpuidEntry::new(0x8000_0008, None, [0x0030_3934, 0, 0, 0]);
    assert_eq!(physical_address_bits(&[nested]), 48);
}

#[test]
fn a_list_without_leaves_is_still_made_into_one() {
    let cpuid = build(&[], Topology::single_socket(255).unwrap(), "host");
    assert_eq!(leaf(&cpuid, 0, 0).eax, 0xb);
    assert_eq!(leaf(&cpuid, 0xb, 1).ebx, 255);
}
