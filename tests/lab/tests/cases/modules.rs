//! Drivers of virtio that are unloaded and loaded while their devices are at work.

use cuddy_lab::Machine;

use crate::setup::COMMAND_LIMIT;

/// Each before those that need it.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_rng", "virtio_blk", "virtio_net"];
/// Functions with these drivers.
const FUNCTIONS: &str = "/sys/bus/pci/devices/0000:00:0[1-4].0";

/// Unloads the drivers: the functions stand still, without any.
pub(crate) fn take_away(machine: &mut Machine) {
    let mut run = |command: &str| machine.run(command, COMMAND_LIMIT).unwrap();
    for module in MODULES.iter().rev() {
        run(&format!("rmmod {module}"));
    }
    run("! test -e /dev/vda && ! test -e /sys/class/net/eth0");
    let bound = format!("ls -d {FUNCTIONS}/driver 2> /dev/null || true");
    assert_eq!(run(&bound), "");
    assert_eq!(run("grep -c virtio /proc/interrupts || true"), "0");
    // Bit 2 of each command register, that of the bus master.
    let commands =
        format!("for function in {FUNCTIONS}; do od -An -tu1 -j4 -N1 $function/config; done");
    let commands = run(&commands);
    assert_eq!(commands.lines().count(), 4, "{commands}");
    for command in commands.lines() {
        assert_eq!(
            command.trim().parse::<u8>().unwrap() & 1 << 2,
            0,
            "{commands}"
        );
    }
}

/// Loads them again, and waits for what they find.
pub(crate) fn give_back(machine: &mut Machine) {
    for module in MODULES {
        let load = format!("insmod /lib/modules/{module}.ko");
        machine.run(&load, COMMAND_LIMIT).unwrap();
    }
    let wait = "until test -b /dev/vda && test -e /sys/class/net/eth0; do sleep 0.1; done";
    machine.run(wait, COMMAND_LIMIT).unwrap();
}
