//! Every way in which a machine ends, and what follows from it.

use std::ffi::OsString;
use std::time::Duration;

use cuddy_tests::{MachineBuilder, disk};

const RESETS: [&str; 4] = ["acpi-reset", "port-cf9", "i8042", "port-92"];
const CRASHES: [&str; 2] = ["triple-fault", "pvpanic"];

/// The exit code of a machine whose guest ends itself in that `way`.
fn end(way: &str, irqchip: &str) -> Option<i32> {
    let finished = MachineBuilder::suite("nothing")
        .option(&format!("end={way}"))
        .argument("--irqchip", irqchip)
        .start()
        .finish();
    assert!(finished.has_line("DONE"), "{finished}");
    let output = String::from_utf8_lossy(&finished.output);
    assert!(!output.contains("FAIL"), "{finished}");
    finished.code()
}

#[test]
fn power_off_exits_with_0() {
    for irqchip in ["split", "kernel"] {
        assert_eq!(end("poweroff", irqchip), Some(0));
    }
}

#[test]
fn resets_exit_with_0() {
    for way in RESETS {
        assert_eq!(end(way, "split"), Some(0), "{way}");
    }
    assert_eq!(end("i8042", "kernel"), Some(0));
}

#[test]
fn crashes_exit_with_3() {
    for way in CRASHES {
        for irqchip in ["split", "kernel"] {
            assert_eq!(end(way, irqchip), Some(3), "{way}");
        }
    }
}

#[test]
fn resets_restart_the_machine_when_asked_to() {
    for irqchip in ["split", "kernel"] {
        let mut machine = MachineBuilder::suite("exceptions")
            .option("end=ask")
            .argument("--on-reboot", "restart")
            .argument("--irqchip", irqchip)
            .start();
        for way in RESETS {
            machine.expect("PASS exceptions");
            machine.expect("END?");
            machine.send(way.as_bytes());
            machine.send(b"\n");
        }
        machine.expect("END?");
        machine.send(b"poweroff\n");
        let finished = machine.finish();
        assert_eq!(finished.code(), Some(0), "{finished}");
        let starts = finished
            .lines()
            .iter()
            .filter(|line| *line == "DONE")
            .count();
        assert_eq!(starts, RESETS.len() + 1, "{finished}");
    }
}

#[test]
fn crashes_and_power_offs_restart_the_machine_when_asked_to() {
    let mut machine = MachineBuilder::suite("nothing")
        .option("end=ask")
        .argument("--on-crash", "restart")
        .argument("--on-poweroff", "restart")
        .start();
    for way in ["triple-fault", "poweroff", "pvpanic", "i8042"] {
        machine.expect("END?");
        machine.send(way.as_bytes());
        machine.send(b"\n");
    }
    let finished = machine.finish();
    assert_eq!(finished.code(), Some(0), "{finished}");
    let starts = finished
        .lines()
        .iter()
        .filter(|line| *line == "DONE")
        .count();
    assert_eq!(starts, 4, "{finished}");
}

#[test]
fn restarted_guests_find_their_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = disk::prepare(directory.path(), 64);
    // The counter starts from the prepared word 0 of sector 0, which is 0.
    let mut argument = OsString::from("path=");
    argument.push(&path);
    let finished = MachineBuilder::suite("blk-count")
        .option("boots=5")
        .argument("--disk", argument)
        .argument("--on-reboot", "restart")
        .start()
        .finish();
    for boot in 1..=5 {
        assert!(finished.has_line(&format!("BOOT {boot}")), "{finished}");
    }
    assert!(finished.has_line("PASS blk-count"), "{finished}");
    assert_eq!(finished.code(), Some(0), "{finished}");
}

#[test]
fn restarted_machines_start_their_processors_again() {
    let mut machine = MachineBuilder::suite("smp")
        .option("end=ask cpus=4")
        .argument("--cpus", "4")
        .argument("--on-reboot", "restart")
        .argument("--on-crash", "restart")
        .start();
    for way in ["i8042", "triple-fault", "port-cf9", "poweroff"] {
        machine.expect("PASS smp");
        machine.expect("END?");
        machine.send(way.as_bytes());
        machine.send(b"\n");
    }
    let finished = machine.finish();
    assert_eq!(finished.code(), Some(0), "{finished}");
}

#[test]
fn preserved_machines_stay_until_a_signal() {
    // The exit code is then still that of the guest's end, which is what was preserved.
    for (way, action, code) in [
        ("poweroff", "--on-poweroff", 0),
        ("i8042", "--on-reboot", 0),
        ("pvpanic", "--on-crash", 3),
        ("triple-fault", "--on-crash", 3),
    ] {
        let mut machine = MachineBuilder::suite("nothing")
            .option(&format!("end={way}"))
            .argument(action, "preserve")
            .start();
        machine.expect("DONE");
        assert!(machine.runs_for(Duration::from_millis(300)), "{way}");
        machine.signal(libc::SIGTERM);
        let finished = machine.finish();
        assert_eq!(finished.code(), Some(code), "{way}\n{finished}");
    }
}

#[test]
fn signals_end_machines_that_sleep_and_machines_that_are_busy() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // Asleep with interrupts off; at a prompt, which polls.
        for (way, ready) in [("halt", "DONE"), ("ask", "END?")] {
            let mut machine = MachineBuilder::suite("nothing")
                .option(&format!("end={way}"))
                .start();
            machine.expect(ready);
            machine.signal(signal);
            let finished = machine.finish();
            assert_eq!(finished.code(), Some(128 + signal), "{way}\n{finished}");
        }
    }
}
