//! Stock kernels to their login: as ELF and as bzImage, with 1, 2 and 4 vCPUs, with the interrupt
//! controllers of this process and of the kernel, one of them without PCI.

use std::path::Path;

use cuddy_lab::{Assets, Machine};

use crate::setup::{self, BOOT_LIMIT, COMMAND_LIMIT};

const MEMORY_MIB: u32 = 512;
/// What a stock kernel keeps for itself, its page structures and the initrd, in MiB. 64 MiB of that is
/// held back for DMA beside IOMMUs.
const KERNEL_SHARE_MIB: u32 = 160;

/// Boots to the login prompt, logs in, and looks at the machine from inside.
fn boots(
    kernel: impl Fn(&Assets) -> &Path,
    cpus: u32,
    irqchip: &'static str,
    transport: &'static str,
) {
    let mut options = setup::options(kernel);
    options.cpus = cpus;
    options.memory_mib = MEMORY_MIB;
    options.irqchip = irqchip;
    options.more = vec!["--transport", transport];
    options.cmdline = "console=ttyS0 quiet CUDDY_MODE=login".to_owned();
    let mut machine = options.start().unwrap();
    log_in(&mut machine);

    let run = |machine: &mut Machine, command: &str| machine.run(command, COMMAND_LIMIT).unwrap();
    assert_eq!(run(&mut machine, "nproc"), cpus.to_string());
    assert_eq!(run(&mut machine, "tty"), "/dev/ttyS0");
    let memory_kib = run(&mut machine, "grep MemTotal /proc/meminfo | tr -dc 0-9");
    let memory_mib = memory_kib.parse::<u32>().unwrap() / 1024;
    assert!(
        (MEMORY_MIB - KERNEL_SHARE_MIB..=MEMORY_MIB).contains(&memory_mib),
        "{memory_mib} MiB"
    );
    // The driver counts what it received; a machine whose interrupts are lost would not get this far,
    // but it would with interrupts on one processor only.
    let timers = run(&mut machine, "grep LOC: /proc/interrupts");
    let busy = timers
        .split_whitespace()
        .filter(|word| word.parse::<u64>().is_ok_and(|count| count > 0))
        .count();
    assert_eq!(busy, usize::try_from(cpus).unwrap(), "{timers}");
    setup::power_off(machine);
}

fn log_in(machine: &mut Machine) {
    machine
        .console
        .expect("cuddy-guest login: ", BOOT_LIMIT)
        .unwrap();
    machine.console.send("root\n").unwrap();
    setup::expect_shell(machine);
}

macro_rules! boots {
    ($($name:ident: $kernel:ident, $cpus:literal, $irqchip:literal, $transport:literal;)*) => {
        $(
            #[test]
            fn $name() {
                boots(|assets| &assets.$kernel, $cpus, $irqchip, $transport);
            }
        )*
    };
}

boots! {
    elf_1_vcpu_split_irqchip: vmlinux, 1, "split", "pci";
    elf_2_vcpus_split_irqchip: vmlinux, 2, "split", "pci";
    elf_4_vcpus_split_irqchip: vmlinux, 4, "split", "pci";
    elf_1_vcpu_kernel_irqchip: vmlinux, 1, "kernel", "pci";
    elf_2_vcpus_kernel_irqchip: vmlinux, 2, "kernel", "pci";
    elf_4_vcpus_kernel_irqchip: vmlinux, 4, "kernel", "pci";
    bzimage_1_vcpu_split_irqchip: vmlinuz, 1, "split", "pci";
    bzimage_2_vcpus_split_irqchip: vmlinuz, 2, "split", "pci";
    bzimage_4_vcpus_split_irqchip: vmlinuz, 4, "split", "pci";
    bzimage_1_vcpu_kernel_irqchip: vmlinuz, 1, "kernel", "mmio";
    bzimage_2_vcpus_kernel_irqchip: vmlinuz, 2, "kernel", "pci";
    bzimage_4_vcpus_kernel_irqchip: vmlinuz, 4, "kernel", "pci";
}
