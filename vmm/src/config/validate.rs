//! What can be said of a configuration without opening anything, all of it at once.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use virtio::devices::vsock::{HostSocket, VsockOptions};

use super::{
    CPUS_MAX, CacheMode, DISK_QUEUES_MAX, DiskConfig, DiskEngine, DiskFormat, DiskPolling,
    MachineConfig, NetConfig, Problem, Problems, Transport, VsockConfig,
};

/// Less memory than this holds no kernel and its tables.
const MEMORY_MIN_BYTES: u64 = 2 << 20;
/// The kernel's name for an interface has 16 bytes with its zero (linux/if.h, IFNAMSIZ).
const INTERFACE_NAME_MAX_BYTES: usize = 15;
/// The length of a block device's serial number (virtio 1.3, 5.2.6).
const DISK_SERIAL_MAX_BYTES: usize = 20;
/// A bus has 32 devices, and the first is the host bridge (PCI Local Bus Specification 3.0, 3.2.2.3.2).
const PCI_DEVICES_MAX: usize = 31;
/// The smallest MTU of IPv4, and of virtio (virtio 1.3, 5.1.4.1).
const MTU_MIN_BYTES: u16 = 68;

impl MachineConfig {
    /// Looks for everything that is wrong in the values themselves.
    ///
    /// # Errors
    ///
    /// All the problems that were found.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        self.check_machine(&mut problems);
        self.check_devices(&mut problems);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(problems))
        }
    }

    /// How many virtio devices this machine has.
    pub const fn virtio_devices(&self) -> usize {
        self.disk.len() + self.net.len() + self.rng as usize + self.vsock.is_some() as usize
    }

    fn check_machine(&self, problems: &mut Vec<Problem>) {
        if self.kernel.is_none() {
            problems.push(Problem::new(
                "kernel",
                "there is none: name a vmlinux or bzImage with --kernel PATH",
            ));
        }
        if self.cpus == 0 || self.cpus > CPUS_MAX {
            problems.push(Problem::new(
                "cpus",
                format_args!("{} is out of range: use 1 to {CPUS_MAX}", self.cpus),
            ));
        }
        if let Err(error) = self.cpu.parse::<arch::cpu_features::CpuModel>() {
            problems.push(Problem::new("cpu", error));
        }
        let size = self.memory.size;
        let page = self.memory.hugepages.page_size_bytes();
        if size.0 < MEMORY_MIN_BYTES {
            problems.push(Problem::new(
                "memory",
                format_args!(
                    "{size} is too little for any kernel: use at least 2M, 512M for a distribution"
                ),
            ));
        } else if !size.0.is_multiple_of(page) {
            problems.push(Problem::new(
                "memory",
                format_args!("{size} is not a multiple of the page size of {page} bytes"),
            ));
        }
        if self
            .cmdline
            .as_ref()
            .is_some_and(|text| text.contains('\0'))
        {
            problems.push(Problem::new("cmdline", "has a zero byte in it: remove it"));
        }
    }

    fn check_devices(&self, problems: &mut Vec<Problem>) {
        let (most, what) = match self.transport {
            Transport::Pci => (PCI_DEVICES_MAX, "PCI has room"),
            Transport::Mmio => (
                arch::layout::gsi::VIRTIO_MMIO.len(),
                "a machine without PCI has interrupts",
            ),
        };
        if self.virtio_devices() > most {
            problems.push(Problem::new(
                "disk, net, rng, vsock",
                format_args!(
                    "{} virtio devices are too many: {what} for {most}",
                    self.virtio_devices()
                ),
            ));
        }
        self.check_slots(problems);
        if let Some(vsock) = &self.vsock {
            Self::check_vsock(vsock, problems);
        }
        if self.mmio_cmdline && self.transport != Transport::Mmio {
            problems.push(Problem::new(
                "mmio-cmdline",
                "kernels find devices on PCI by themselves: use transport 'mmio', or leave it out",
            ));
        }
        for (index, disk) in self.disk.iter().enumerate() {
            problems.extend(disk_problems(&format!("disk[{index}]"), disk));
        }
        let mut taps = HashSet::new();
        for (index, net) in self.net.iter().enumerate() {
            let key = format!("net[{index}]");
            problems.extend(net_problems(&key, net));
            if !taps.insert(&net.tap) {
                problems.push(Problem::new(
                    key,
                    format_args!(
                        "tap '{}' is used twice: give each interface its own",
                        net.tap
                    ),
                ));
            }
        }
    }

    fn check_vsock(vsock: &VsockConfig, problems: &mut Vec<Problem>) {
        let options = VsockOptions {
            connections: vsock.connections,
            ..VsockOptions::new("vsock", vsock.cid)
        };
        if let Err(error) = options.check() {
            problems.push(Problem::new("vsock", error));
        }
        let (length, most) = (
            vsock.socket.as_os_str().as_bytes().len(),
            HostSocket::PATH_MAX_BYTES,
        );
        if length == 0 {
            problems.push(Problem::new("vsock", "socket is empty: name a path"));
        } else if length > most {
            problems.push(Problem::new(
                "vsock",
                format_args!("socket is {length} bytes long: use a path of at most {most}, for ports come behind it"),
            ));
        }
    }

    fn check_slots(&self, problems: &mut Vec<Problem>) {
        let slots = usize::from(self.hotplug_slots);
        if slots == 0 {
            return;
        }
        let room = PCI_DEVICES_MAX.saturating_sub(self.virtio_devices());
        if self.transport != Transport::Pci {
            problems.push(Problem::new(
                "hotplug-slots",
                "slots are on PCI: use transport 'pci', or leave them out",
            ));
        } else if slots > room {
            problems.push(Problem::new(
                "hotplug-slots",
                format_args!("{slots} are too many: beside the devices PCI has room for {room}"),
            ));
        }
    }
}

/// What is wrong with a disk by itself.
pub fn disk_problems(key: &str, disk: &DiskConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_disk(key, disk, &mut problems);
    check_disk_service(key, disk, &mut problems);
    problems
}

/// What is wrong with a network interface by itself.
pub fn net_problems(key: &str, net: &NetConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_net(key, net, &mut problems);
    problems
}

fn check_disk(key: &str, disk: &DiskConfig, problems: &mut Vec<Problem>) {
    if disk.path.as_os_str().is_empty() {
        problems.push(Problem::new(
            key,
            "path is empty: name an image or a block device",
        ));
    }
    if disk.snapshot.is_some() && (!disk.readonly || disk.format == DiskFormat::Raw) {
        problems.push(Problem::new(
            key,
            "a snapshot is for reading alone, and of a qcow2 image: add format=qcow2,readonly=on",
        ));
    }
    if let Some(serial) = &disk.serial
        && (serial.len() > DISK_SERIAL_MAX_BYTES
            || !serial.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
    {
        problems.push(Problem::new(
            key,
            format_args!("serial '{serial}' does not fit: use at most {DISK_SERIAL_MAX_BYTES} printable ASCII characters"),
        ));
    }
}

/// Queues and rates of a disk.
fn check_disk_service(key: &str, disk: &DiskConfig, problems: &mut Vec<Problem>) {
    if let Some(queues) = disk.queues
        && (queues == 0 || queues > DISK_QUEUES_MAX)
    {
        problems.push(Problem::new(
            key,
            format_args!("queues {queues} is out of range: use 1 to {DISK_QUEUES_MAX}"),
        ));
    }
    if disk.iopoll == DiskPolling::On {
        if !matches!(disk.cache, CacheMode::None | CacheMode::DirectSync) {
            problems.push(Problem::new(
                key,
                "iopoll is past the page cache: use cache 'none' or 'directsync', or iopoll 'auto'",
            ));
        }
        if disk.engine != DiskEngine::IoUring {
            problems.push(Problem::new(
                key,
                "iopoll is by io_uring: use engine 'io_uring', or iopoll 'auto'",
            ));
        }
    }
    let rates = [
        (
            "bps",
            disk.bps.map(|size| size.0),
            disk.bps_burst.map(|size| size.0),
        ),
        ("iops", disk.iops, disk.iops_burst),
    ];
    for (name, rate, burst) in rates {
        if rate == Some(0) || burst == Some(0) {
            problems.push(Problem::new(
                key,
                format_args!("{name} and {name}-burst cannot be 0: leave them out for no limit"),
            ));
        }
        if rate.is_none() && burst.is_some() {
            problems.push(Problem::new(
                key,
                format_args!("{name}-burst means nothing without {name}: add {name}=…"),
            ));
        }
    }
}

fn check_net(key: &str, net: &NetConfig, problems: &mut Vec<Problem>) {
    let name = &net.tap;
    let allowed =
        |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%';
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX_BYTES || !name.bytes().all(allowed) {
        problems.push(Problem::new(
            key,
            format_args!("tap '{name}' is no interface name: use 1 to {INTERFACE_NAME_MAX_BYTES} letters, digits, '-', '_' and '.'"),
        ));
    }
    if let Some(mtu) = net.mtu
        && mtu < MTU_MIN_BYTES
    {
        problems.push(Problem::new(
            key,
            format_args!("mtu {mtu} is too small: use {MTU_MIN_BYTES} to 65535"),
        ));
    }
}

#[cfg(test)]
mod tests;
