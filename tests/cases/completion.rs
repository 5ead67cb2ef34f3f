//! What a kernel executes that a KVM without hardware does not emulate, and what no KVM emulates on a device's
//! registers. On a KVM in hardware the same tests pass, with next to no completion.

use cuddy_tests::MachineBuilder;

const RING_0: &str = "ring0-breakpoint,ring0-interrupt,ring0-exchange,ring0-bits,ring0-access-flag,ring0-state,\
                      ring0-vectors,ring0-time,ring0-faults,ring0-single-step";

fn machine(tests: &str) -> MachineBuilder {
    // The processor with all its features, slow ones as well, and registers at an address that guests know.
    MachineBuilder::suite(tests)
        .argument("--cpu", "host,+cx16")
        .argument("--transport", "mmio")
}

#[test]
fn a_kernel_executes_what_its_processor_has() {
    for irqchip in ["split", "kernel"] {
        machine(RING_0).argument("--irqchip", irqchip).pass();
    }
}

#[test]
fn two_processors_agree_on_locked_exchanges() {
    machine("ring0-contention").argument("--cpus", "2").pass();
}

#[test]
fn a_program_calls_its_kernel() {
    machine("ring3-system-call").pass();
}

#[test]
fn a_program_reaches_a_device_by_vectors() {
    machine("ring3-device-vectors").pass();
}

#[test]
fn a_program_cannot_end_its_machine() {
    machine("ring3-unknown,ring3-unknown").pass();
}

#[test]
fn a_kernel_that_nobody_can_go_on_with_ends_with_its_registers() {
    for completion in ["on", "off"] {
        let machine = machine("ring0-unknown").argument("--completion", completion);
        let finished = machine.start().finish();
        assert_eq!(finished.code(), Some(3), "{finished}");
        let errors = String::from_utf8_lossy(&finished.errors);
        assert!(errors.contains("fbld tbyte ptr"), "{errors}");
        assert!(errors.contains("\n  rip 00000000001"), "{errors}");
        assert!(finished.error_lines() < 12, "{errors}");
    }
}

#[test]
fn what_was_completed_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("metrics");
    machine("completion-loop")
        .option("kind=popcnt count=50")
        .argument("--metrics", &path)
        .pass();
    let text = std::fs::read_to_string(&path).expect("metrics");
    let line = |prefix: &str| {
        let found = text.lines().find(|line| line.starts_with(prefix));
        found.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
    };
    let internal = "cuddy_vcpu_exits_total{machine=\"cuddy\",vcpu=\"0\",reason=\"internal_error\"}";
    let popcnt = "cuddy_vcpu_completions_total{machine=\"cuddy\",vcpu=\"0\",mnemonic=\"popcnt\"}";
    // On hardware there is none of either.
    let exits = line(internal).expect("exits");
    assert!(exits == 0 || exits >= 50, "{text}");
    assert_eq!(line(popcnt).unwrap_or(0), exits.min(50), "{text}");
}
