//! What the cases have in common: the small guest, its login, the times that are given.

use std::path::Path;
use std::time::Duration;

use cuddy_lab::{Assets, Machine, MachineOptions};

/// From the start of a machine to its shell. In the lab it is 5 to 10 s; the limit is for a machine of
/// CI that does other work at the same time.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// For a command that does little.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// For a command that moves or sums tens of megabytes: a minute or two where guest, machine and test share the
/// lab's one processor.
pub(crate) const TRANSFER_LIMIT: Duration = Duration::from_secs(400);
/// From the guest's last word to the end of the machine's process.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(30);

/// The prompt of the guest's shell, which the shell starts in root's home.
const PROMPT: &str = "~ # ";

/// Options of a machine with the small guest; `kernel` chooses the file.
pub(crate) fn options(kernel: impl Fn(&Assets) -> &Path) -> MachineOptions {
    let assets = Assets::get().unwrap();
    MachineOptions::new(&assets.cuddy, kernel(&assets), &assets.initrd)
}

/// Options of a machine with the small guest and the ELF kernel.
pub(crate) fn elf() -> MachineOptions {
    options(|assets| &assets.vmlinux)
}

/// Starts a machine and waits for its shell.
pub(crate) fn start(options: &MachineOptions) -> Machine {
    let mut machine = options.start().unwrap();
    expect_shell(&mut machine);
    machine
}

/// Waits for the prompt of the guest's shell.
pub(crate) fn expect_shell(machine: &mut Machine) {
    machine.console.expect(PROMPT, BOOT_LIMIT).unwrap();
}

/// Reboots the guest, whose machine is to restart, and waits for its shell.
pub(crate) fn reboot(machine: &mut Machine) {
    machine.console.send("reboot -f\n").unwrap();
    // Prompts before this are those of the guest that goes.
    machine
        .console
        .expect("reboot: Restarting system", COMMAND_LIMIT)
        .unwrap();
    expect_shell(machine);
}

/// Turns the guest's power off and checks that the machine ended well.
pub(crate) fn power_off(mut machine: Machine) {
    machine.console.send("poweroff -f\n").unwrap();
    let status = machine.wait(END_LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", machine.messages());
}
