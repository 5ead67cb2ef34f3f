//! What the tests have in common: the guest, its shell, the times that are given.
//!
//! A KVM that emulates ring 0 is slow, and CI's machines do other work at the same time: the limits are
//! several times what an idle machine takes.

use std::time::Duration;

use cuddy_lab::{Cache, GuestKernel, Machine, MachineOptions, cuddy, tiny_initrd};

/// From the start of a machine to its shell: 10 s on an idle machine.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// For a command that does little.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// For a command that moves or sums megabytes.
pub(crate) const TRANSFER_LIMIT: Duration = Duration::from_secs(180);
/// From the guest's last command to the end of the machine's process.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(60);

/// The prompt of the guest's shell.
const PROMPT: &str = "~ # ";

/// A machine of `cpus` vCPUs with 64 MiB and the tiny kernel.
pub(crate) fn options(cpus: u32) -> MachineOptions {
    let cache = Cache::open().unwrap();
    let kernel = GuestKernel::build(&cache).unwrap();
    let initrd = tiny_initrd(&cache).unwrap();
    let mut options = MachineOptions::new(&cuddy().unwrap(), &kernel.vmlinux(), &initrd);
    options.cpus = cpus;
    options.memory_mib = 64;
    options.cmdline = GuestKernel::CMDLINE.to_owned();
    options
}

/// Starts a machine and waits for its shell.
pub(crate) fn start(options: &MachineOptions) -> Machine {
    let mut machine = options.start().unwrap();
    expect_shell(&mut machine);
    machine
}

/// Waits for the first prompt of the guest's shell.
pub(crate) fn expect_shell(machine: &mut Machine) {
    machine.console.expect(PROMPT, BOOT_LIMIT).unwrap();
}

/// Turns the guest's power off and checks that the machine ended well.
pub(crate) fn power_off(mut machine: Machine) {
    machine.console.send("poweroff -f\n").unwrap();
    let status = machine.wait(END_LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", machine.messages());
}
