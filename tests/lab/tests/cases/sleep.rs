//! Suspend: to RAM there is no way (no `\_S3`, ACPI 6.5, 7.4.2), to idle there is, and back by a byte that comes
//! to the serial port.

use std::time::{Duration, Instant};

use cuddy_lab::{ConsoleError, Machine};

use crate::setup::COMMAND_LIMIT;

/// Between two bytes for a guest that is to wake.
const NUDGE_EVERY: Duration = Duration::from_millis(500);

/// Tries to suspend to RAM, and suspends to idle.
pub(crate) fn check(machine: &mut Machine) {
    let mut run = |command: &str| machine.run(command, COMMAND_LIMIT).unwrap();
    run("dmesg | grep 'ACPI: PM: (supports S0 S5)'");
    assert_eq!(run("cat /sys/power/mem_sleep"), "[s2idle]");
    run("echo deep 2> /dev/null > /sys/power/mem_sleep; test $? = 1");
    run("echo standby 2> /dev/null > /sys/power/state; test $? = 1");
    // Interrupts of the serial port wake the machine only if they are asked to.
    run("echo enabled > /sys/class/tty/ttyS0/power/wakeup");
    suspend_and_wake(machine, "freeze");
    // The kernel's way to say "as deep as there is".
    suspend_and_wake(machine, "mem");
    let mut run = |command: &str| machine.run(command, COMMAND_LIMIT).unwrap();
    assert_eq!(run("cat /sys/power/suspend_stats/success"), "2");
    assert_eq!(run("cat /sys/power/suspend_stats/fail"), "0");
}

fn suspend_and_wake(machine: &mut Machine, state: &str) {
    let console = &mut machine.console;
    let command =
        format!("dmesg -n 7; echo {state} > /sys/power/state; dmesg -n 4; echo wo''ken\n");
    console.send(&command).unwrap();
    console
        .expect("Suspending console(s)", COMMAND_LIMIT)
        .unwrap();
    // It does not say when it sleeps, so a byte may come too early.
    let started = Instant::now();
    loop {
        console.send("\n").unwrap();
        match console.expect("woken", NUDGE_EVERY) {
            Ok(_) => return,
            Err(ConsoleError::Timeout { .. }) if started.elapsed() < COMMAND_LIMIT => {}
            Err(error) => panic!("{error}"),
        }
    }
}
