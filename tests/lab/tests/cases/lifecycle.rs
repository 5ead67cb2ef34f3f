//! The ends of a machine, and its restart: what a stock kernel does, and the exit status for it.

use std::process::Command;

use cuddy_lab::Machine;

use crate::setup::{self, COMMAND_LIMIT, END_LIMIT};

fn signal(machine: &Machine, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), machine.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn power_off_ends_with_status_0() {
    // Both interrupt controllers are covered by the cases that boot.
    setup::power_off(setup::start(&setup::elf()));
}

#[test]
fn a_reset_ends_with_status_0_when_it_is_to_destroy() {
    let mut machine = setup::start(&setup::elf());
    machine.console.send("reboot -f\n").unwrap();
    let status = machine.wait(END_LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", machine.messages());
}

#[test]
fn reboots_restart_the_guest() {
    let mut options = setup::elf();
    options.cpus = 2;
    options.more = vec!["--on-reboot", "restart"];
    let mut machine = setup::start(&options);
    let process = machine.id();
    // The second restart proves that the first one left everything as it was.
    for _ in 0..2 {
        let boot = "cat /proc/sys/kernel/random/boot_id";
        let before = machine.run(boot, COMMAND_LIMIT).unwrap();
        machine
            .run("touch /tmp/gone-with-a-restart", COMMAND_LIMIT)
            .unwrap();
        setup::reboot(&mut machine);
        assert_ne!(machine.run(boot, COMMAND_LIMIT).unwrap(), before);
        machine
            .run("test ! -e /tmp/gone-with-a-restart", COMMAND_LIMIT)
            .unwrap();
        assert_eq!(machine.run("nproc", COMMAND_LIMIT).unwrap(), "2");
    }
    assert_eq!(machine.id(), process);
    setup::power_off(machine);
}

#[test]
fn a_reset_by_the_keyboard_controller_is_a_reset() {
    let mut options = setup::elf();
    options.cmdline.push_str(" reboot=k");
    let mut machine = setup::start(&options);
    machine.console.send("reboot -f\n").unwrap();
    let status = machine.wait(END_LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", machine.messages());
}

#[test]
fn a_panic_ends_with_status_3() {
    let mut machine = setup::start(&setup::elf());
    machine
        .console
        .send("echo c > /proc/sysrq-trigger\n")
        .unwrap();
    let status = machine.wait(END_LIMIT).unwrap();
    assert_eq!(status.code(), Some(3), "{}", machine.messages());
}

#[test]
fn a_triple_fault_ends_with_status_3() {
    let mut options = setup::elf();
    options.cmdline.push_str(" reboot=t");
    let mut machine = setup::start(&options);
    machine.console.send("reboot -f\n").unwrap();
    let status = machine.wait(END_LIMIT).unwrap();
    assert_eq!(status.code(), Some(3), "{}", machine.messages());
}

#[test]
fn signals_end_with_128_and_their_number() {
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let mut machine = setup::start(&setup::elf());
        signal(&machine, name);
        let status = machine.wait(END_LIMIT).unwrap();
        assert_eq!(status.code(), Some(128 + number), "{}", machine.messages());
    }
}
