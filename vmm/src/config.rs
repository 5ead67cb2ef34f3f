//! The configuration of a machine: plain data, read from arguments or a file, validated without opening
//! anything.
//!
//! Key names are the same on the command line, in TOML and in JSON. Every field that a user may leave
//! out has its default here and nowhere else.

mod action;
mod byte_size;
mod console;
mod disk;
mod memory;
mod network;
mod problem;
mod validate;
mod vsock;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use action::Action;
pub use byte_size::{ByteSize, ParseByteSizeError};
pub use console::SerialConfig;
pub use disk::{
    CacheMode, DISK_QUEUES_MAX, DiskConfig, DiskEngine, DiskErrorAction, DiskFormat, DiskPolling,
};
pub use memory::{HugePages, MemoryConfig};
pub use network::NetConfig;
pub use problem::{Problem, Problems};
pub(crate) use validate::{disk_problems, net_problems};
pub use virtio::devices::net::MacAddress;
pub use vsock::VsockConfig;

/// The most vCPUs that a machine can have: with identifier 255 reserved for broadcast, a local APIC in
/// xAPIC mode has 255 addresses (Intel SDM volume 3, 12.6.1).
pub const CPUS_MAX: u16 = 255;

/// A whole machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MachineConfig {
    /// The machine's name: in messages, thread names, and the seed of derived MAC addresses.
    pub name: String,
    /// The kernel: an ELF `vmlinux` or a `bzImage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line. A default that brings up the serial console where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Who unpacks the payload of a `bzImage`.
    pub unpack: Unpack,
    /// How many vCPUs: 1 to [`CPUS_MAX`].
    pub cpus: u16,
    /// What the vCPUs can do: `host`, then `-feature` and `+feature`, separated by commas.
    pub cpu: String,
    /// Whether instructions that KVM does not emulate are completed in its place. Where not, they are the
    /// end of a guest's kernel.
    pub completion: bool,
    /// Guest memory.
    pub memory: MemoryConfig,
    /// Disks, in the order in which the guest sees them.
    pub disk: Vec<DiskConfig>,
    /// Network interfaces, in the order in which the guest sees them.
    pub net: Vec<NetConfig>,
    /// Whether there is a virtio entropy device.
    pub rng: bool,
    /// The virtio socket device, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,
    /// Where the first serial port goes.
    pub serial: SerialConfig,
    /// Which interrupt controllers KVM emulates.
    pub irqchip: IrqchipMode,
    /// How the guest reaches its virtio devices.
    pub transport: Transport,
    /// How many hot-plug slots there are on PCI Express, empty at first, for devices that are attached
    /// while the machine runs. With the devices from the start they are 31 at the most.
    pub hotplug_slots: u8,
    /// Whether drivers may choose packed rings (VIRTIO_F_RING_PACKED) rather than split ones.
    pub packed_rings: bool,
    /// Announces virtio-mmio devices on the command line as well as in the DSDT.
    pub mmio_cmdline: bool,
    /// What happens when the guest turns its power off.
    pub on_poweroff: Action,
    /// What happens when the guest resets.
    pub on_reboot: Action,
    /// What happens when the guest crashes: a panic that pvpanic reports, or a vCPU that
    /// cannot go on.
    pub on_crash: Action,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            name: "cuddy".to_owned(),
            kernel: None,
            initrd: None,
            cmdline: None,
            unpack: Unpack::Auto,
            cpus: 1,
            cpu: "host".to_owned(),
            completion: true,
            memory: MemoryConfig::default(),
            disk: Vec::new(),
            net: Vec::new(),
            rng: true,
            vsock: None,
            serial: SerialConfig::Stdio,
            irqchip: IrqchipMode::Split,
            transport: Transport::Pci,
            hotplug_slots: 0,
            packed_rings: false,
            mmio_cmdline: false,
            on_poweroff: Action::Destroy,
            on_reboot: Action::Destroy,
            on_crash: Action::Destroy,
        }
    }
}

/// Who unpacks the payload of a `bzImage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// The host, before the guest starts; the guest where the host cannot.
    #[default]
    Auto,
    /// The guest, by the code in the image.
    Guest,
}

/// Which interrupt controllers KVM emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IrqchipMode {
    /// KVM has the local APICs; the 8259 pair, the IOAPIC and the 8254 are devices of this process.
    #[default]
    Split,
    /// KVM has all of them.
    Kernel,
}

/// How a guest finds and reaches its virtio devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// As functions on PCI Express, with an interrupt for each queue.
    #[default]
    Pci,
    /// Each behind a page of registers, in a machine without PCI.
    Mmio,
}
