//! More than one processor.

use cuddy_tests::MachineBuilder;

fn start(irqchip: &str, processors: &str, tests: &str) {
    MachineBuilder::suite(tests)
        .option(&format!("cpus={processors}"))
        .argument("--cpus", processors)
        .argument("--irqchip", irqchip)
        .pass();
}

#[test]
fn four_processors_start() {
    start("split", "4", "smp,smp-ipi");
}

#[test]
fn four_processors_start_with_the_kernels_interrupt_controllers() {
    start("kernel", "4", "smp,smp-ipi");
}

#[test]
fn two_processors_start() {
    start("split", "2", "smp");
}

#[test]
fn the_most_processors_start() {
    start("split", "255", "acpi-madt,smp");
    start("kernel", "255", "acpi-madt,smp");
}

#[test]
fn processors_leave_the_guest_at_the_same_time() {
    start("split", "4", "smp-exits");
}

#[test]
fn processors_are_started_again_after_init() {
    start("split", "3", "smp,smp-ipi,smp,smp-ipi");
}
