//! What the host lends a machine for all its incarnations: kernel, initrd, disks, network interfaces, a socket.

mod attached;
mod disk;
mod vsock;

use std::fmt::{Display, Write};
use std::sync::Arc;

use block::{Disk, DiskOptions, EngineKind, ImageFormat, IoPoll, Rate, RateLimit};
use boot::acpi::VirtioMmio;
use boot::{DEFAULT_CMDLINE, InitrdFile, KernelFile};
use virtio::VirtioDevice;
use virtio::devices::blk::{Blk, BlkOptions, OnError, Serial};
use virtio::devices::net::{MacAddress, Net, NetOptions};
use virtio::devices::vsock::{Vsock, VsockCounters};
use virtio::tap::{Tap, TapError};

use crate::config::{
    CacheMode, DiskConfig, DiskEngine, DiskErrorAction, DiskFormat, DiskPolling, HugePages,
    MachineConfig, NetConfig, Problem, Problems, Unpack,
};
use crate::error::VmmError;
use crate::events::EventQueue;
pub use attached::LentDevice;
pub use disk::DiskHandle;
use disk::{DiskErrors, LentDisk};
use vsock::LentVsock;

/// Most queues of a disk for which no number is given.
const DISK_QUEUES_BY_DEFAULT: u16 = 4;

/// Everything that a configuration names, open.
#[derive(Debug)]
pub struct Resources {
    /// The kernel, recognised.
    pub kernel: KernelFile,
    /// The initial RAM disk.
    pub initrd: Option<InitrdFile>,
    disks: Vec<LentDisk>,
    /// Where word goes of requests that wait for the machine to be paused.
    events: Arc<EventQueue>,
    /// What a disk has as many queues as, where nothing is said.
    queues_by_default: u16,
    /// Guest memory is allocated up front, in few pages.
    memory_is_there: bool,
    taps: Vec<Arc<Tap>>,
    vsock: Option<LentVsock>,
}

impl Resources {
    /// Opens everything that `config` names. What concerns the whole machine goes into `events`.
    ///
    /// # Errors
    ///
    /// All that could not be opened, at once; what could be is closed again.
    pub fn open(config: &MachineConfig, events: &Arc<EventQueue>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let kernel = config.kernel.as_ref().and_then(|path| {
            let unpack = match config.unpack {
                Unpack::Auto => boot::Unpack::Auto,
                Unpack::Guest => boot::Unpack::Guest,
            };
            noted("kernel", KernelFile::open(path, unpack), &mut problems)
        });
        let initrd = config
            .initrd
            .as_ref()
            .and_then(|path| noted("initrd", InitrdFile::open(path), &mut problems));
        let mut disks = Vec::with_capacity(config.disk.len());
        for (index, disk) in config.disk.iter().enumerate() {
            let disk = Disk::open(&disk_options(disk));
            let disk = noted(&format!("disk[{index}]"), disk, &mut problems);
            disks.extend(disk.map(LentDisk::new));
        }
        let mut taps = Vec::with_capacity(config.net.len());
        for (index, net) in config.net.iter().enumerate() {
            let tap = open_tap(net);
            taps.extend(noted(&format!("net[{index}]"), tap, &mut problems).map(Arc::new));
        }
        let vsock = config
            .vsock
            .as_ref()
            .and_then(|vsock| noted("vsock", LentVsock::open(vsock), &mut problems));
        match kernel {
            Some(kernel) if problems.is_empty() => Ok(Self {
                kernel,
                initrd,
                disks,
                events: Arc::clone(events),
                queues_by_default: config.cpus.clamp(1, DISK_QUEUES_BY_DEFAULT),
                memory_is_there: config.memory.prefault
                    && matches!(
                        config.memory.hugepages,
                        HugePages::Size2M | HugePages::Size1G
                    ),
                taps,
                vsock,
            }),
            _ => Err(Problems(problems)),
        }
    }

    /// The block device of the disk at `index`, for this incarnation of the machine.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when its serial number does not fit.
    pub fn blk(
        &self,
        index: usize,
        config: &DiskConfig,
        incarnation: u64,
    ) -> Result<Blk, VmmError> {
        let names = (format!("disk{index}"), format!("disk[{index}]"));
        self.blk_of(&self.disks[index], names, config, incarnation)
    }

    /// The device of what was attached to the slot with this index, of this incarnation of the machine named
    /// `machine`.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when the host refuses it, or something of its configuration does not fit.
    pub fn attached(
        &self,
        machine: &str,
        slot: usize,
        device: &LentDevice,
        incarnation: u64,
    ) -> Result<Box<dyn VirtioDevice>, VmmError> {
        let name = format!("slot{}", slot + 1);
        Ok(match device {
            LentDevice::Disk { config, disk } => {
                let names = (name, "disk".to_owned());
                Box::new(self.blk_of(disk, names, config, incarnation)?)
            }
            LentDevice::Net { config, tap } => {
                let names = (name, "net".to_owned());
                Box::new(net_of(Arc::clone(tap), names, machine, config)?)
            }
        })
    }

    /// `names` are the device's, and that of its key in a configuration.
    fn blk_of(
        &self,
        disk: &LentDisk,
        names: (String, String),
        config: &DiskConfig,
        incarnation: u64,
    ) -> Result<Blk, VmmError> {
        let (name, key) = names;
        let serial = config.serial.as_deref().unwrap_or_default();
        let options = BlkOptions {
            serial: serial
                .parse::<Serial>()
                .map_err(|error| Problem::new(key, error))?,
            queues: config.queues.unwrap_or(self.queues_by_default),
            engine: match config.engine {
                DiskEngine::IoUring => EngineKind::IoUring,
                DiskEngine::Threads => EngineKind::Threads,
                DiskEngine::Sync => EngineKind::Sync,
            },
            rate_limit: rate_limit(config),
            on_error: match config.on_error {
                DiskErrorAction::Report => OnError::Report,
                DiskErrorAction::Ignore => OnError::Ignore,
                DiskErrorAction::Stop => OnError::Stop(Arc::new(DiskErrors {
                    events: Arc::clone(&self.events),
                    incarnation,
                })),
            },
            hold_memory: self.memory_is_there,
            ..BlkOptions::new(name)
        };
        Ok(disk.device(options))
    }

    /// A handle on the disk at `index`, if there is one.
    pub fn disk(&self, index: usize) -> Option<DiskHandle> {
        self.disks.get(index).map(LentDisk::handle)
    }

    /// The socket device, if there is one.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when something of its configuration does not fit.
    pub fn vsock(&self, config: &MachineConfig) -> Result<Option<Vsock>, VmmError> {
        let (Some(config), Some(lent)) = (&config.vsock, &self.vsock) else {
            return Ok(None);
        };
        Ok(Some(lent.device(config)?))
    }

    /// What passes through the socket device, if there is one.
    pub fn vsock_counters(&self) -> Option<Arc<VsockCounters>> {
        self.vsock.as_ref().map(LentVsock::counters)
    }

    /// The network device at `index` of the machine named `machine`.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when the host refuses it.
    pub fn net(&self, machine: &str, index: usize, config: &NetConfig) -> Result<Net, VmmError> {
        let names = (format!("net{index}"), format!("net[{index}]"));
        net_of(Arc::clone(&self.taps[index]), names, machine, config)
    }
}

/// `names` are the device's, and that of its key in a configuration.
fn net_of(
    tap: Arc<Tap>,
    names: (String, String),
    machine: &str,
    config: &NetConfig,
) -> Result<Net, VmmError> {
    let (name, key) = names;
    let options = NetOptions {
        name,
        mac: config
            .mac
            .unwrap_or_else(|| MacAddress::derive(&format!("{machine}/{}", config.tap))),
        mtu: config.mtu,
    };
    Net::new(tap, options).map_err(|error| Problem::new(key, error).into())
}

/// The command line that the kernel gets: the user's or the default, and the devices if it is to tell
/// of them (Linux, Documentation/admin-guide/kernel-parameters, `virtio_mmio.device`).
pub fn command_line(config: &MachineConfig, virtio: &[VirtioMmio]) -> String {
    let text = config.cmdline.as_deref().unwrap_or(DEFAULT_CMDLINE);
    let mut text = text.to_owned();
    if config.mmio_cmdline {
        for device in virtio {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                " virtio_mmio.device={:#x}@{:#x}:{}",
                device.length, device.address, device.gsi
            );
        }
    }
    text
}

fn open_tap(config: &NetConfig) -> Result<Tap, TapError> {
    if !config.create {
        return Tap::open(&config.tap);
    }
    let tap = Tap::open_or_create(&config.tap)?;
    // An interface that was there before is its owner's business.
    if let (true, Some(mtu)) = (tap.was_created(), config.mtu) {
        tap.set_mtu_bytes(mtu)?;
    }
    Ok(tap)
}

fn disk_options(config: &DiskConfig) -> DiskOptions {
    DiskOptions {
        readonly: config.readonly,
        lock: config.lock,
        snapshot: config.snapshot.clone(),
        format: match config.format {
            DiskFormat::Raw => ImageFormat::Raw,
            DiskFormat::Qcow2 => ImageFormat::Qcow2,
            DiskFormat::Auto => ImageFormat::Auto,
        },
        cache: match config.cache {
            CacheMode::Writeback => block::CacheMode::Writeback,
            CacheMode::None => block::CacheMode::None,
            CacheMode::DirectSync => block::CacheMode::DirectSync,
            CacheMode::Unsafe => block::CacheMode::Unsafe,
        },
        iopoll: match (config.engine, config.iopoll) {
            (DiskEngine::IoUring, DiskPolling::Auto) => IoPoll::Auto,
            (DiskEngine::IoUring, DiskPolling::On) => IoPoll::On,
            _ => IoPoll::Off,
        },
        ..DiskOptions::new(&config.path)
    }
}

fn rate_limit(config: &DiskConfig) -> RateLimit {
    let rate = |per_second: Option<u64>, burst: Option<u64>| {
        let rate = Rate::new(per_second?);
        Some(Rate {
            burst: burst.unwrap_or(rate.burst),
            ..rate
        })
    };
    RateLimit {
        bytes: rate(
            config.bps.map(|size| size.0),
            config.bps_burst.map(|size| size.0),
        ),
        operations: rate(config.iops, config.iops_burst),
    }
}

/// Keeps what was opened, or writes down why it was not.
fn noted<T, E: Display>(key: &str, result: Result<T, E>, problems: &mut Vec<Problem>) -> Option<T> {
    result
        .map_err(|error| problems.push(Problem::new(key, error)))
        .ok()
}
