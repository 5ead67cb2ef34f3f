//! The network device, driven by a guest that talks to the host's protocol stack. Needs root.

use cuddy_tests::{MachineBuilder, network};

/// A machine on a TAP device of this thread's own network, with an echo service on the host's side.
fn machine(tests: &str, keys: &str) -> MachineBuilder {
    network::enter_namespace();
    network::create_tap("tap0");
    network::configure("tap0");
    network::start_echo_service();
    MachineBuilder::suite(tests).argument("--net", format!("tap=tap0{keys}"))
}

#[test]
fn given_mac_address() {
    machine("net-identity", ",mac=52:54:00:12:34:56")
        .option("net.mac=52:54:00:12:34:56")
        .pass_on_each_transport();
}

#[test]
fn derived_mac_address_is_stable() {
    let machine = machine("net-identity", "");
    let first = machine.pass().after("MAC ");
    assert_eq!(machine.pass().after("MAC "), first);
}

#[test]
fn host_answers_arp() {
    machine("net-arp", "").pass_on_each_transport();
}

#[test]
fn packets_of_all_sizes_go_both_ways() {
    machine("net-udp", "")
        .option("packets=300")
        .pass_on_each_transport();
}

#[test]
fn checksums_are_offloaded() {
    machine("net-checksum", "").pass_on_each_transport();
}

#[test]
fn receive_buffers_are_merged() {
    machine("net-mergeable", "").pass_on_each_transport();
}

#[test]
fn received_packets_interrupt() {
    let machine = machine("net-interrupt", "");
    for irqchip in ["split", "kernel"] {
        machine
            .clone()
            .argument("--irqchip", irqchip)
            .pass_on_each_transport();
    }
}

#[test]
fn packed_rings_do_the_same() {
    let tests = "net-identity,net-arp,net-udp,net-checksum,net-mergeable,net-interrupt,net-overrun";
    machine(tests, "")
        .argument("--packed-rings", "on")
        .option("rings=packed")
        .option("packets=300")
        .pass_on_each_transport();
}

#[test]
fn more_packets_than_buffers_do_no_harm() {
    machine("net-overrun", "").pass_on_each_transport();
}

#[test]
fn tap_device_is_made_when_there_is_none() {
    network::enter_namespace();
    let mut machine = MachineBuilder::suite("net-udp")
        .argument("--net", "tap=made0,create=on")
        .option("packets=20")
        .start();
    network::configure("made0");
    network::start_echo_service();
    machine.expect("PASS net-udp");
    let finished = machine.finish();
    assert_eq!(finished.code(), Some(0), "{finished}");
}
