//! The entropy device, driven by a guest.

use cuddy_tests::MachineBuilder;

#[test]
fn guest_gets_random_bytes() {
    MachineBuilder::suite("rng").pass_on_each_transport();
}

#[test]
fn completions_interrupt() {
    for irqchip in ["split", "kernel"] {
        MachineBuilder::suite("rng-interrupt")
            .argument("--irqchip", irqchip)
            .pass_on_each_transport();
    }
}

#[test]
fn a_device_that_does_not_start_says_so() {
    for irqchip in ["split", "kernel"] {
        MachineBuilder::suite("rng-broken-start")
            .argument("--irqchip", irqchip)
            .pass_on_each_transport();
    }
}
