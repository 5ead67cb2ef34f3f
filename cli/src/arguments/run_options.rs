//! The options of `cuddy run` that are keys of a machine's configuration, one for each key.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::de::DeserializeOwned;
use vmm::config::{
    CPUS_MAX, DiskConfig, MachineConfig, MemoryConfig, NetConfig, Problem, VsockConfig,
};

use super::Choice;
use crate::key_value::{self, KeyValueError};

const ON_OFF: Choice = Choice(&["on", "off"]);
const ACTIONS: Choice = Choice(&["destroy", "restart", "preserve"]);

/// What was given on the command line; what was not keeps the value of the file, or its default.
#[derive(Debug, Default, Args)]
pub struct RunOptions {
    /// The machine's name, in messages and as the seed of MAC addresses [default: cuddy]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The kernel: an ELF vmlinux or a bzImage
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line [default: one that brings up the serial console]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// Who unpacks a bzImage: the host where it can (auto), or the guest [default: auto]
    #[arg(long, value_name = "WHO", value_parser = Choice(&["auto", "guest"]), hide_possible_values = true)]
    pub unpack: Option<String>,
    /// How many vCPUs, 1 to 255 [default: 1]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub cpus: Option<String>,
    /// What the vCPUs can do: host, then -feature and +feature [default: host]
    #[arg(long, value_name = "host[,-FEATURE][,+FEATURE]…")]
    pub cpu: Option<String>,
    /// Whether instructions that KVM does not emulate are completed in its place [default: on]
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on", value_parser = ON_OFF, hide_possible_values = true)]
    pub completion: Option<String>,
    /// Guest memory, such as 1G or size=1G,shared=on,hugepages=2M,prefault=on [default: 512M]
    #[arg(long, value_name = "SIZE[,KEY=VALUE]…", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// A disk: path=FILE, then format=raw, qcow2 or auto, readonly=on, snapshot=NAME of a qcow2 image, cache=writeback, none, directsync or unsafe, lock=off, serial=TEXT,
    /// engine=io_uring, threads or sync, iopoll=on, off or auto, queues=NUMBER, bps=SIZE and iops=NUMBER for limits in a second,
    /// on-error=report, stop or ignore; may be repeated
    #[arg(long, value_name = "path=FILE[,KEY=VALUE]…", value_hint = ValueHint::FilePath)]
    pub disk: Vec<String>,
    /// A network interface: tap=NAME, then create=on, mac=ADDRESS, mtu=BYTES; may be repeated
    #[arg(long, value_name = "tap=NAME[,KEY=VALUE]…")]
    pub net: Vec<String>,
    /// Whether there is an entropy device [default: on]
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on", value_parser = ON_OFF, hide_possible_values = true)]
    pub rng: Option<String>,
    /// A socket device: cid=NUMBER, the guest's, from 3 on, and socket=PATH, then connections=NUMBER. The host
    /// connects to PATH and writes CONNECT PORT; port N of the host is PATH_N
    #[arg(long, value_name = "cid=NUMBER,socket=PATH[,KEY=VALUE]…")]
    pub vsock: Option<String>,
    /// Where the serial port goes: stdio, none, pty, file=PATH or socket=PATH [default: stdio]
    #[arg(long, value_name = "PLACE")]
    pub serial: Option<String>,
    /// Which interrupt controllers KVM emulates: the local APICs (split) or all (kernel) [default:
    /// split]
    #[arg(long, value_name = "MODE", value_parser = Choice(&["split", "kernel"]), hide_possible_values = true)]
    pub irqchip: Option<String>,
    /// How the guest reaches its devices: PCI Express (pci), or a page of registers for each (mmio)
    /// [default: pci]
    #[arg(long, value_name = "WAY", value_parser = Choice(&["pci", "mmio"]), hide_possible_values = true)]
    pub transport: Option<String>,
    /// How many hot-plug slots there are for devices that are attached while the machine runs [default: 0]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub hotplug_slots: Option<String>,
    /// Whether drivers may choose packed virtqueues rather than split ones [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on", value_parser = ON_OFF, hide_possible_values = true)]
    pub packed_rings: Option<String>,
    /// Announce devices on the kernel's command line too, not in ACPI alone [default: off]
    #[arg(long, value_name = "on|off", num_args = 0..=1, default_missing_value = "on", value_parser = ON_OFF, hide_possible_values = true)]
    pub mmio_cmdline: Option<String>,
    /// When the guest turns its power off: destroy, restart or preserve [default: destroy]
    #[arg(long, value_name = "ACTION", value_parser = ACTIONS, hide_possible_values = true)]
    pub on_poweroff: Option<String>,
    /// When the guest resets: destroy, restart or preserve [default: destroy]
    #[arg(long, value_name = "ACTION", value_parser = ACTIONS, hide_possible_values = true)]
    pub on_reboot: Option<String>,
    /// When the guest crashes: destroy, restart or preserve [default: destroy]
    #[arg(long, value_name = "ACTION", value_parser = ACTIONS, hide_possible_values = true)]
    pub on_crash: Option<String>,
}

impl RunOptions {
    /// Puts what was given into `config`: single values in place of those that are there, disks and
    /// interfaces after them. Says all that is wrong with the values.
    pub fn apply(self, config: &mut MachineConfig) -> Vec<Problem> {
        let mut problems = Vec::new();
        let found = &mut problems;
        config.kernel = self.kernel.or(config.kernel.take());
        config.initrd = self.initrd.or(config.initrd.take());
        config.cmdline = self.cmdline.or(config.cmdline.take());
        set("--name", self.name, &mut config.name, found);
        set("--unpack", self.unpack, &mut config.unpack, found);
        if let Some(text) = self.cpus {
            match key_value::from_scalar(&text) {
                Ok(cpus) => config.cpus = cpus,
                Err(_) => found.push(Problem::new(
                    "--cpus",
                    format_args!("'{text}' is out of range: use 1 to {CPUS_MAX}"),
                )),
            }
        }
        set("--cpu", self.cpu, &mut config.cpu, found);
        set(
            "--completion",
            self.completion,
            &mut config.completion,
            found,
        );
        if let Some(text) = self.memory {
            let from_text = |text: &str| key_value::from_pairs::<MemoryConfig>(text, "size");
            if let Some(memory) = read("--memory", &text, from_text, found) {
                config.memory = memory;
            }
        }
        config.disk.extend(self.disk.iter().filter_map(|text| {
            let from_text = |text: &str| key_value::from_pairs::<DiskConfig>(text, "path");
            read("--disk", text, from_text, found)
        }));
        config.net.extend(self.net.iter().filter_map(|text| {
            let from_text = |text: &str| key_value::from_pairs::<NetConfig>(text, "tap");
            read("--net", text, from_text, found)
        }));
        set("--rng", self.rng, &mut config.rng, found);
        if let Some(text) = self.vsock {
            let from_text = |text: &str| key_value::from_pairs::<VsockConfig>(text, "cid");
            if let Some(vsock) = read("--vsock", &text, from_text, found) {
                config.vsock = Some(vsock);
            }
        }
        set("--serial", self.serial, &mut config.serial, found);
        set("--irqchip", self.irqchip, &mut config.irqchip, found);
        set("--transport", self.transport, &mut config.transport, found);
        set(
            "--hotplug-slots",
            self.hotplug_slots,
            &mut config.hotplug_slots,
            found,
        );
        set(
            "--packed-rings",
            self.packed_rings,
            &mut config.packed_rings,
            found,
        );
        set(
            "--mmio-cmdline",
            self.mmio_cmdline,
            &mut config.mmio_cmdline,
            found,
        );
        set(
            "--on-poweroff",
            self.on_poweroff,
            &mut config.on_poweroff,
            found,
        );
        set("--on-reboot", self.on_reboot, &mut config.on_reboot, found);
        set("--on-crash", self.on_crash, &mut config.on_crash, found);
        problems
    }
}

fn set<T: DeserializeOwned>(
    option: &str,
    text: Option<String>,
    value: &mut T,
    problems: &mut Vec<Problem>,
) {
    if let Some(text) = text {
        match key_value::from_scalar(&text) {
            Ok(read) => *value = read,
            Err(error) => problems.push(Problem::new(option, error)),
        }
    }
}

fn read<T>(
    option: &str,
    text: &str,
    from_text: impl FnOnce(&str) -> Result<T, KeyValueError>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    from_text(text)
        .map_err(|error| problems.push(Problem::new(format!("{option} '{text}'"), error)))
        .ok()
}
