//! To the shell and to the end, with one and with two vCPUs.

use crate::setup::{self, COMMAND_LIMIT, END_LIMIT};

/// Boots, looks at the machine from inside, and turns it off.
fn boots(cpus: u32) {
    let mut machine = setup::start(&setup::options(cpus));
    let mut run = |command: &str| machine.run(command, COMMAND_LIMIT).unwrap();
    assert_eq!(run("nproc"), cpus.to_string());
    assert!(run("uname -r").starts_with("6.1."), "another kernel");
    // Timers reach every processor: one that lost its interrupts would have none of its own.
    let timers = run("grep LOC: /proc/interrupts");
    let busy = timers
        .split_whitespace()
        .filter(|word| word.parse::<u64>().is_ok_and(|count| count > 0))
        .count();
    assert_eq!(busy, usize::try_from(cpus).unwrap(), "{timers}");
    setup::power_off(machine);
}

#[test]
fn one_vcpu_to_its_shell_and_off() {
    boots(1);
}

#[test]
fn two_vcpus_to_their_shell_and_off() {
    boots(2);
}

/// Programs keep their own registers while others run: each of two at a time sums the same bytes, with the
/// widest vectors that its libc finds, on fewer processors than programs.
#[test]
fn programs_keep_their_registers() {
    let mut machine = setup::start(&setup::options(1));
    let run = "dd if=/bin/busybox bs=256k count=1 of=/tmp/bytes 2> /dev/null; \
               for n in 1 2 3 4; do sha256sum < /tmp/bytes > /tmp/sum$n & done; wait; \
               cat /tmp/sum1 /tmp/sum2 /tmp/sum3 /tmp/sum4";
    let sums = machine.run(run, COMMAND_LIMIT).unwrap();
    let sums: Vec<_> = sums.lines().collect();
    assert_eq!(sums.len(), 4);
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    setup::power_off(machine);
}

#[test]
fn a_reset_ends_with_status_0_when_it_is_to_destroy() {
    let mut machine = setup::start(&setup::options(1));
    machine.console.send("reboot -f\n").unwrap();
    let status = machine.wait(END_LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", machine.messages());
}
