//! The opcode maps beside the host's processor.

use iced_x86::Mnemonic as M;

use crate::testing::against_host::{compare, legacy, vex};

/// How many random states each form of an instruction begins with.
const STATES: u64 = 48;

#[test]
fn legacy_instructions_are_as_on_the_host() {
    let spaces = legacy();
    let report = compare(&spaces, STATES, 1);
    report.print("legacy");
    for mnemonic in [M::Add, M::Cmpxchg, M::Bts, M::Rcl, M::Pxor, M::Movups] {
        assert!(report.has(mnemonic), "{mnemonic:?}");
    }
}

#[test]
fn vex_instructions_are_as_on_the_host() {
    if !std::is_x86_feature_detected!("avx2") {
        println!("this processor has no AVX2: nothing is compared");
        return;
    }
    let report = compare(&vex(), STATES, 2);
    report.print("VEX");
    for mnemonic in [M::Vpxor, M::Andn, M::Mulx, M::Vmovdqu] {
        assert!(report.has(mnemonic), "{mnemonic:?}");
    }
}
