//! PCI under a stock kernel: what it says of the root complex, interrupts for each queue, and functions that
//! are unbound, reset, removed and found again.

use std::fs::File;

use crate::setup::{self, COMMAND_LIMIT};

/// Words of Linux when firmware, bridges or functions are not as they should be.
pub(crate) const COMPLAINTS: &str = "FW Bug|Firmware Bug|firmware bug|can't claim|no compatible bridge|failed to assign|\
                          BAR [0-9]*: no space|not reserved|ACPI Error|ACPI BIOS Error|irq .*nobody cared";

#[test]
fn functions_are_found_bound_reset_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let mut options = setup::elf();
    options.cpus = 2;
    // The others have split ones.
    options.irqchip = "kernel";
    options.disks = vec![format!("path={}", image.display())];
    let mut machine = setup::start(&options);
    let mut run = |command: &str| machine.run(command, COMMAND_LIMIT).unwrap();

    assert_eq!(
        run("cd /sys/bus/pci/devices && echo *"),
        "0000:00:00.0 0000:00:01.0 0000:00:02.0"
    );
    let complaints = format!("dmesg | grep -E \"{COMPLAINTS}\" || true");
    assert_eq!(run(&complaints), "");
    run("dmesg | grep 'MMCONFIG.*0xe0000000'");

    // A message for each queue of the disk, of which there is one a vCPU, and one for its configuration.
    let messages = run("grep -c 'PCI-MSI.*virtio0' /proc/interrupts");
    assert_eq!(messages, "3");
    run("dd if=/dev/vda of=/dev/null bs=64k");
    let queues = run("grep virtio0-req /proc/interrupts");
    let interrupts: u64 = queues
        .lines()
        .flat_map(|queue| {
            let words = queue.split_whitespace().skip(1);
            words.map_while(|word| word.parse::<u64>().ok())
        })
        .sum();
    assert!(interrupts > 0, "{queues}");

    let disk = "/sys/bus/pci/devices/0000:00:01.0";
    let driver = "/sys/bus/pci/drivers/virtio-pci";
    run(&format!(
        "echo 0000:00:01.0 > {driver}/unbind; ! test -e /dev/vda"
    ));
    run(&format!("echo 1 > {disk}/reset"));
    run(&format!(
        "echo 0000:00:01.0 > {driver}/bind; dd if=/dev/vda of=/dev/null bs=64k"
    ));
    run(&format!("echo 1 > {disk}/remove; ! test -e /dev/vda"));
    run("echo 1 > /sys/bus/pci/rescan; dd if=/dev/vda of=/dev/null bs=64k");
    assert_eq!(run(&complaints), "");
    setup::power_off(machine);
}
