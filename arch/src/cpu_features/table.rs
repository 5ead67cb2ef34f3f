//! Where CPUID tells of which feature (Intel SDM volume 2, "CPUID"; AMD APM volume 3, appendix E; KVM's
//! cpuid.rst), and which needs which.
//!
//! Bits that follow what the guest does (OSXSAVE, OSPKE) are not here: KVM keeps them.

use super::Feature;
use super::Register::{self, Eax, Ebx, Ecx, Edx};

/// One register of one answer.
pub(super) struct Word {
    leaf: u32,
    index: u32,
    register: Register,
    /// Bit numbers and names. A name may stand at more than one bit.
    pub(super) bits: &'static [(u8, &'static str)],
}

impl Word {
    const fn new(
        leaf: u32,
        index: u32,
        register: Register,
        bits: &'static [(u8, &'static str)],
    ) -> Self {
        Self {
            leaf,
            index,
            register,
            bits,
        }
    }

    /// The feature of that name in this word.
    pub(super) fn feature(&self, name: &'static str) -> Feature {
        let named = self.bits.iter().filter(|(_, other)| *other == name);
        Feature {
            name,
            leaf: self.leaf,
            index: self.index,
            register: self.register,
            mask: named.fold(0, |mask, (bit, _)| mask | 1 << bit),
        }
    }
}

/// Bits of leaf 1 EDX that AMD repeats at the same place of leaf 0x8000_0001 EDX.
pub(crate) const AMD_REPEATED: u32 = 0x0183_f3ff;

#[rustfmt::skip]
pub(super) const WORDS: &[Word] = &[
    Word::new(1, 0, Edx, &[
        (0, "fpu"), (1, "vme"), (2, "de"), (3, "pse"), (4, "tsc"), (5, "msr"), (6, "pae"), (7, "mce"),
        (8, "cx8"), (9, "apic"), (11, "sep"), (12, "mtrr"), (13, "pge"), (14, "mca"), (15, "cmov"),
        (16, "pat"), (17, "pse36"), (18, "pn"), (19, "clflush"), (21, "dts"), (22, "acpi"), (23, "mmx"),
        (24, "fxsr"), (25, "sse"), (26, "sse2"), (27, "ss"), (29, "tm"), (31, "pbe"),
    ]),
    Word::new(1, 0, Ecx, &[
        (0, "pni"), (1, "pclmulqdq"), (2, "dtes64"), (3, "monitor"), (4, "ds_cpl"), (5, "vmx"), (6, "smx"),
        (7, "est"), (8, "tm2"), (9, "ssse3"), (10, "cid"), (11, "sdbg"), (12, "fma"), (13, "cx16"),
        (14, "xtpr"), (15, "pdcm"), (17, "pcid"), (18, "dca"), (19, "sse4_1"), (20, "sse4_2"),
        (21, "x2apic"), (22, "movbe"), (23, "popcnt"), (24, "tsc_deadline_timer"), (25, "aes"),
        (26, "xsave"), (28, "avx"), (29, "f16c"), (30, "rdrand"), (31, "hypervisor"),
    ]),
    Word::new(6, 0, Eax, &[(2, "arat")]),
    Word::new(7, 0, Ebx, &[
        (0, "fsgsbase"), (1, "tsc_adjust"), (2, "sgx"), (3, "bmi1"), (4, "hle"), (5, "avx2"),
        (6, "fdp_excptn_only"), (7, "smep"), (8, "bmi2"), (9, "erms"), (10, "invpcid"), (11, "rtm"),
        (12, "cqm"), (13, "zero_fcs_fds"), (14, "mpx"), (15, "rdt_a"), (16, "avx512f"), (17, "avx512dq"),
        (18, "rdseed"), (19, "adx"), (20, "smap"), (21, "avx512ifma"), (23, "clflushopt"), (24, "clwb"),
        (25, "intel_pt"), (26, "avx512pf"), (27, "avx512er"), (28, "avx512cd"), (29, "sha_ni"),
        (30, "avx512bw"), (31, "avx512vl"),
    ]),
    Word::new(7, 0, Ecx, &[
        (0, "prefetchwt1"), (1, "avx512vbmi"), (2, "umip"), (3, "pku"), (5, "waitpkg"),
        (6, "avx512_vbmi2"), (7, "shstk"), (8, "gfni"), (9, "vaes"), (10, "vpclmulqdq"),
        (11, "avx512_vnni"), (12, "avx512_bitalg"), (13, "tme"), (14, "avx512_vpopcntdq"), (16, "la57"),
        (22, "rdpid"), (24, "bus_lock_detect"), (25, "cldemote"), (27, "movdiri"), (28, "movdir64b"),
        (29, "enqcmd"), (30, "sgx_lc"), (31, "pks"),
    ]),
    Word::new(7, 0, Edx, &[
        (2, "avx512_4vnniw"), (3, "avx512_4fmaps"), (4, "fsrm"), (5, "uintr"), (8, "avx512_vp2intersect"),
        (9, "srbds_ctrl"), (10, "md_clear"), (11, "rtm_always_abort"), (13, "tsx_force_abort"),
        (14, "serialize"), (15, "hybrid_cpu"), (16, "tsxldtrk"), (18, "pconfig"), (19, "arch_lbr"),
        (20, "ibt"), (22, "amx_bf16"), (23, "avx512_fp16"), (24, "amx_tile"), (25, "amx_int8"),
        (26, "spec_ctrl"), (27, "intel_stibp"), (28, "flush_l1d"), (29, "arch_capabilities"),
        (30, "core_capabilities"), (31, "spec_ctrl_ssbd"),
    ]),
    Word::new(7, 1, Eax, &[
        (0, "sha512"), (1, "sm3"), (2, "sm4"), (4, "avx_vnni"), (5, "avx512_bf16"), (6, "lass"),
        (7, "cmpccxadd"), (10, "fzrm"), (11, "fsrs"), (12, "fsrc"), (17, "fred"), (18, "lkgs"),
        (19, "wrmsrns"), (21, "amx_fp16"), (23, "avx_ifma"), (26, "lam"),
    ]),
    Word::new(7, 1, Edx, &[
        (4, "avx_vnni_int8"), (5, "avx_ne_convert"), (8, "amx_complex"), (10, "avx_vnni_int16"),
        (14, "prefetchiti"), (19, "avx10"),
    ]),
    Word::new(7, 2, Edx, &[
        (0, "intel_psfd"), (1, "ipred_ctrl"), (2, "rrsba_ctrl"), (3, "ddpd_u"), (4, "bhi_ctrl"),
        (5, "mcdt_no"),
    ]),
    Word::new(0xd, 1, Eax, &[
        (0, "xsaveopt"), (1, "xsavec"), (2, "xgetbv1"), (3, "xsaves"), (4, "xfd"),
    ]),
    Word::new(0x4000_0001, 0, Eax, &[
        (0, "kvmclock"), (1, "kvm_nopiodelay"), (2, "kvm_mmu"), (3, "kvmclock"), (4, "kvm_asyncpf"),
        (5, "kvm_steal_time"), (6, "kvm_pv_eoi"), (7, "kvm_pv_unhalt"), (9, "kvm_pv_tlb_flush"),
        (10, "kvm_asyncpf_vmexit"), (11, "kvm_pv_ipi"), (12, "kvm_poll_control"),
        (13, "kvm_pv_sched_yield"), (14, "kvm_asyncpf_int"), (15, "kvm_msi_ext_dest_id"),
        (16, "kvm_hc_map_gpa_range"), (17, "kvm_migration_control"), (24, "kvmclock_stable_bit"),
    ]),
    Word::new(0x8000_0001, 0, Edx, &[
        (11, "syscall"), (19, "mp"), (20, "nx"), (22, "mmxext"), (25, "fxsr_opt"), (26, "pdpe1gb"),
        (27, "rdtscp"), (29, "lm"), (30, "3dnowext"), (31, "3dnow"),
    ]),
    Word::new(0x8000_0001, 0, Ecx, &[
        (0, "lahf_lm"), (2, "svm"), (3, "extapic"), (4, "cr8_legacy"), (5, "abm"), (6, "sse4a"),
        (7, "misalignsse"), (8, "3dnowprefetch"), (9, "osvw"), (10, "ibs"), (11, "xop"), (12, "skinit"),
        (13, "wdt"), (15, "lwp"), (16, "fma4"), (17, "tce"), (19, "nodeid_msr"), (21, "tbm"),
        (22, "topoext"), (23, "perfctr_core"), (24, "perfctr_nb"), (26, "bpext"), (27, "ptsc"),
        (28, "perfctr_llc"), (29, "mwaitx"),
    ]),
    Word::new(0x8000_0007, 0, Edx, &[(8, "constant_tsc")]),
    Word::new(0x8000_0008, 0, Ebx, &[
        (0, "clzero"), (1, "irperf"), (2, "xsaveerptr"), (4, "rdpru"), (9, "wbnoinvd"), (12, "ibpb"),
        (14, "ibrs"), (15, "stibp"), (17, "stibp_always_on"), (23, "amd_ppin"), (24, "ssbd"),
        (25, "virt_ssbd"), (26, "amd_ssb_no"), (27, "cppc"), (28, "amd_psfd"), (29, "btc_no"),
        (30, "ibpb_ret"),
    ]),
    Word::new(0x8000_000a, 0, Edx, &[
        (0, "npt"), (1, "lbrv"), (2, "svm_lock"), (3, "nrip_save"), (4, "tsc_scale"), (5, "vmcb_clean"),
        (6, "flushbyasid"), (7, "decodeassists"), (10, "pausefilter"), (12, "pfthreshold"), (13, "avic"),
        (15, "v_vmsave_vmload"), (16, "vgif"), (20, "v_spec_ctrl"), (25, "vnmi"),
    ]),
    Word::new(0x8000_0021, 0, Eax, &[
        (0, "no_nested_data_bp"), (2, "lfence_always_serializing"), (6, "null_sel_clr_base"),
        (8, "autoibrs"),
    ]),
];

/// Other names, as QEMU, the manuals and other versions of Linux have them, and the name in [`WORDS`].
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("sse3", "pni"),
    ("cmpxchg16b", "cx16"),
    ("tsc-deadline", "tsc_deadline_timer"),
    ("lzcnt", "abm"),
    ("ffxsr", "fxsr_opt"),
    ("i64", "lm"),
    ("xd", "nx"),
    ("invtsc", "constant_tsc"),
    ("nonstop_tsc", "constant_tsc"),
    ("cmt", "cqm"),
    ("perfctr_l2", "perfctr_llc"),
    ("user_shstk", "shstk"),
    ("amd-no-ssb", "amd_ssb_no"),
    ("amd-ssbd", "ssbd"),
    ("amd-stibp", "stibp"),
    ("core-capability", "core_capabilities"),
];

/// A feature, and another without which it cannot be used.
pub(super) const REQUIREMENTS: &[(&str, &str)] = &[
    // Vector state.
    ("fxsr", "fpu"),
    ("mmx", "fpu"),
    ("mmxext", "mmx"),
    ("3dnow", "mmx"),
    ("3dnowext", "3dnow"),
    ("fxsr_opt", "fxsr"),
    ("sse", "fxsr"),
    ("sse2", "sse"),
    ("lm", "sse2"),
    ("lm", "pae"),
    ("pni", "sse2"),
    ("ssse3", "pni"),
    ("sse4_1", "ssse3"),
    ("sse4_2", "sse4_1"),
    ("sse4a", "pni"),
    ("misalignsse", "sse"),
    ("aes", "sse2"),
    ("pclmulqdq", "sse2"),
    ("sha_ni", "sse2"),
    ("gfni", "sse2"),
    // Extended state.
    ("xsave", "fxsr"),
    ("xsaveopt", "xsave"),
    ("xsavec", "xsave"),
    ("xgetbv1", "xsave"),
    ("xsaves", "xsavec"),
    ("xfd", "xsaves"),
    ("xsaveerptr", "xsave"),
    ("pku", "xsave"),
    ("mpx", "xsave"),
    ("shstk", "xsaves"),
    ("ibt", "xsaves"),
    ("uintr", "xsaves"),
    ("arch_lbr", "xsaves"),
    ("avx", "xsave"),
    ("avx", "sse4_2"),
    ("avx2", "avx"),
    ("fma", "avx"),
    ("f16c", "avx"),
    ("fma4", "avx"),
    ("xop", "avx"),
    ("vaes", "avx"),
    ("vaes", "aes"),
    ("vpclmulqdq", "avx"),
    ("vpclmulqdq", "pclmulqdq"),
    ("sha512", "avx2"),
    ("sm3", "avx"),
    ("sm4", "avx2"),
    ("avx_vnni", "avx2"),
    ("avx_vnni_int8", "avx2"),
    ("avx_vnni_int16", "avx2"),
    ("avx_ne_convert", "avx2"),
    ("avx_ifma", "avx2"),
    ("avx512f", "avx2"),
    ("avx512f", "fma"),
    ("avx512f", "f16c"),
    ("avx512dq", "avx512f"),
    ("avx512ifma", "avx512f"),
    ("avx512pf", "avx512f"),
    ("avx512er", "avx512f"),
    ("avx512cd", "avx512f"),
    ("avx512bw", "avx512f"),
    ("avx512vl", "avx512f"),
    ("avx512vbmi", "avx512bw"),
    ("avx512_vbmi2", "avx512bw"),
    ("avx512_vnni", "avx512f"),
    ("avx512_bitalg", "avx512bw"),
    ("avx512_vpopcntdq", "avx512f"),
    ("avx512_4vnniw", "avx512f"),
    ("avx512_4fmaps", "avx512f"),
    ("avx512_vp2intersect", "avx512f"),
    ("avx512_bf16", "avx512bw"),
    ("avx512_fp16", "avx512bw"),
    ("avx10", "avx512f"),
    ("amx_tile", "xfd"),
    ("amx_bf16", "amx_tile"),
    ("amx_int8", "amx_tile"),
    ("amx_fp16", "amx_tile"),
    ("amx_complex", "amx_tile"),
    // Addresses and memory types.
    ("syscall", "lm"),
    ("lahf_lm", "lm"),
    ("pdpe1gb", "lm"),
    ("fsgsbase", "lm"),
    ("cx16", "lm"),
    ("cx16", "cx8"),
    ("la57", "lm"),
    ("lam", "lm"),
    ("fred", "lkgs"),
    ("lkgs", "lm"),
    ("pcid", "lm"),
    ("invpcid", "pcid"),
    ("nx", "pae"),
    ("clflushopt", "clflush"),
    // Time and interrupts.
    ("x2apic", "apic"),
    ("tsc_deadline_timer", "apic"),
    ("tsc_deadline_timer", "tsc"),
    ("extapic", "apic"),
    ("arat", "apic"),
    ("rdtscp", "tsc"),
    ("tsc_adjust", "tsc"),
    ("constant_tsc", "tsc"),
    // Transactions, protection, processor state.
    ("tsxldtrk", "rtm"),
    ("sgx_lc", "sgx"),
    ("stibp_always_on", "stibp"),
    // Nested virtualisation.
    ("npt", "svm"),
    ("lbrv", "svm"),
    ("svm_lock", "svm"),
    ("nrip_save", "svm"),
    ("tsc_scale", "svm"),
    ("vmcb_clean", "svm"),
    ("flushbyasid", "svm"),
    ("decodeassists", "svm"),
    ("pausefilter", "svm"),
    ("pfthreshold", "pausefilter"),
    ("avic", "npt"),
    ("v_vmsave_vmload", "npt"),
    ("vgif", "svm"),
    ("v_spec_ctrl", "svm"),
    ("vnmi", "vgif"),
    // Paravirtualisation.
    ("kvmclock_stable_bit", "kvmclock"),
    ("kvm_steal_time", "kvmclock"),
    ("kvm_asyncpf_vmexit", "kvm_asyncpf"),
    ("kvm_asyncpf_int", "kvm_asyncpf"),
    ("kvm_pv_tlb_flush", "kvm_steal_time"),
    ("kvm_pv_sched_yield", "kvm_steal_time"),
];
