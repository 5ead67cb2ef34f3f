//! What the host lends a machine for all its incarnations: kernel, initrd, disks, network interfaces.

use std::fmt::{Display, Write};
use std::sync::Arc;

use block::{Disk, DiskOptions};
use boot::acpi::VirtioMmio;
use boot::{DEFAULT_CMDLINE, InitrdFile, KernelFile};
use virtio::devices::blk::{Blk, BlkOptions, Serial};
use virtio::devices::net::{MacAddress, Net, NetOptions};
use virtio::tap::{Tap, TapError};

use crate::config::{CacheMode, DiskConfig, MachineConfig, NetConfig, Problem, Problems, Unpack};
use crate::error::VmmError;

/// Everything that a configuration names, open.
#[derive(Debug)]
pub struct Resources {
    /// The kernel, recognised.
    pub kernel: KernelFile,
    /// The initial RAM disk.
    pub initrd: Option<InitrdFile>,
    disks: Vec<Disk>,
    taps: Vec<Arc<Tap>>,
}

impl Resources {
    /// Opens everything that `config` names.
    ///
    /// # Errors
    ///
    /// All that could not be opened, at once; what could be is closed again.
    pub fn open(config: &MachineConfig) -> Result<Self, Problems> {
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
            disks.extend(noted(&format!("disk[{index}]"), disk, &mut problems));
        }
        let mut taps = Vec::with_capacity(config.net.len());
        for (index, net) in config.net.iter().enumerate() {
            let tap = open_tap(net);
            taps.extend(noted(&format!("net[{index}]"), tap, &mut problems).map(Arc::new));
        }
        match kernel {
            Some(kernel) if problems.is_empty() => Ok(Self {
                kernel,
                initrd,
                disks,
                taps,
            }),
            _ => Err(Problems(problems)),
        }
    }

    /// The block device of the disk at `index`.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when its serial number does not fit.
    pub fn blk(&self, index: usize, config: &DiskConfig) -> Result<Blk, VmmError> {
        let serial = config.serial.as_deref().unwrap_or_default();
        let options = BlkOptions {
            name: format!("disk{index}"),
            serial: serial
                .parse::<Serial>()
                .map_err(|error| Problem::new(format!("disk[{index}]"), error))?,
        };
        Ok(Blk::new(self.disks[index].clone(), options))
    }

    /// The network device at `index` of the machine named `machine`.
    ///
    /// # Errors
    ///
    /// [`VmmError`] when the host refuses it.
    pub fn net(&self, machine: &str, index: usize, config: &NetConfig) -> Result<Net, VmmError> {
        let tap = Arc::clone(&self.taps[index]);
        let options = NetOptions {
            name: format!("net{index}"),
            mac: config
                .mac
                .unwrap_or_else(|| MacAddress::derive(&format!("{machine}/{}", config.tap))),
            mtu: config.mtu,
        };
        Net::new(tap, options).map_err(|error| Problem::new(format!("net[{index}]"), error).into())
    }
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
        cache: match config.cache {
            CacheMode::Writeback => block::CacheMode::Writeback,
            CacheMode::None => block::CacheMode::None,
        },
        ..DiskOptions::new(&config.path)
    }
}

/// Keeps what was opened, or writes down why it was not.
fn noted<T, E: Display>(key: &str, result: Result<T, E>, problems: &mut Vec<Problem>) -> Option<T> {
    result
        .map_err(|error| problems.push(Problem::new(key, error)))
        .ok()
}
